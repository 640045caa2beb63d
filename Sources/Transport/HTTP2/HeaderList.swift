/// A received header block or trailer block: names and values side by side in one buffer, in their order.
public struct HeaderList: Sendable {
  private struct Field {
    let start: Int32
    let nameLength: Int32
    let valueLength: Int32
  }
  private var storage: [UInt8] = []
  private var fields: [Field] = []
  /// The size as HTTP/2 counts it: names, values and 32 bytes a field.
  private(set) var size = 0

  public init() {}

  mutating func append(name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) {
    if fields.isEmpty {
      storage.reserveCapacity(224)
      fields.reserveCapacity(12)
    }
    fields.append(
      Field(start: Int32(storage.count), nameLength: Int32(name.count), valueLength: Int32(value.count)))
    storage.append(contentsOf: name)
    storage.append(contentsOf: value)
    size += name.count + value.count + 32
  }

  public var count: Int { fields.count }

  /// The name (lower case on the wire) and the value of a field; invalid UTF-8 is repaired.
  public subscript(index: Int) -> (name: String, value: String) {
    let field = fields[index]
    return (text(field.start, field.nameLength), text(field.start + field.nameLength, field.valueLength))
  }

  /// The first value of a name, or nil.
  public subscript(name: StaticString) -> String? {
    index(of: name).map { self[$0].value }
  }

  /// Whether the first field of the name has a value that begins with `prefix`; makes no string.
  public func value(of name: StaticString, hasPrefix prefix: StaticString) -> Bool {
    guard let index = index(of: name) else { return false }
    let field = fields[index]
    guard Int(field.valueLength) >= prefix.utf8CodeUnitCount else { return false }
    return isEqual(at: Int(field.start + field.nameLength), to: prefix)
  }

  /// Whether the content type is this one, with or without a suffix (`+proto`) or parameters (`;…`); makes no string.
  public func mediaType(isOf type: StaticString) -> Bool {
    guard let index = index(of: "content-type"), value(of: "content-type", hasPrefix: type) else { return false }
    let field = fields[index]
    guard Int(field.valueLength) > type.utf8CodeUnitCount else { return true }
    let next = storage[Int(field.start + field.nameLength) + type.utf8CodeUnitCount]
    return next == UInt8(ascii: "+") || next == UInt8(ascii: ";") || next == UInt8(ascii: " ")
  }

  public func contains(_ name: StaticString) -> Bool { index(of: name) != nil }

  private func index(of name: StaticString) -> Int? {
    fields.firstIndex { Int($0.nameLength) == name.utf8CodeUnitCount && isEqual(at: Int($0.start), to: name) }
  }

  private func isEqual(at start: Int, to text: StaticString) -> Bool {
    storage.withUnsafeBytes { bytes in
      let slice = UnsafeRawBufferPointer(rebasing: bytes[start..<start + text.utf8CodeUnitCount])
      return text.withUTF8Buffer { slice.elementsEqual($0) }
    }
  }

  private func text(_ start: Int32, _ length: Int32) -> String {
    String(decoding: storage[Int(start)..<Int(start + length)], as: UTF8.self)
  }
}

/// A header field to send. The name is lower case.
public struct HeaderField: Sendable, Equatable {
  public var name: String
  public var value: String

  public init(_ name: String, _ value: String) {
    self.name = name
    self.value = value
  }
}
