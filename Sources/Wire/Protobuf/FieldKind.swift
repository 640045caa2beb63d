/// One of protobuf's field types: how a value of it is read, measured and written. Without instances; the generated
/// code names it.
public protocol FieldKind {
  associatedtype Value: Sendable, Equatable
  static var wireType: WireType { get }
  /// The value that an absent field has.
  static var defaultValue: Value { get }
  /// Left out by a field without explicit presence.
  static func isDefault(_ value: Value) -> Bool
  static func read(_ reader: inout WireReader) throws(ProtobufError) -> Value
  /// Without the tag, with a length where one belongs to it; bytes.
  static func payloadSize(_ value: Value) -> Int
  /// Without the tag.
  static func writePayload(_ value: Value, to writer: inout WireWriter)
}

// MARK: - Singular

extension FieldKind {
  /// Of a field without explicit presence.
  @inlinable
  public static func size(_ value: Value, _ number: UInt32) -> Int {
    isDefault(value) ? 0 : payloadSize(value) + WireSize.tag(number)
  }

  /// Of a field with explicit presence.
  @inlinable
  public static func size(optional value: Value?, _ number: UInt32) -> Int {
    guard let value else { return 0 }
    return payloadSize(value) + WireSize.tag(number)
  }

  /// Of a field that is there.
  @inlinable
  public static func size(present value: Value, _ number: UInt32) -> Int {
    payloadSize(value) + WireSize.tag(number)
  }

  @inlinable
  public static func write(_ value: Value, _ number: UInt32, to writer: inout WireWriter) {
    if !isDefault(value) { write(present: value, number, to: &writer) }
  }

  @inlinable
  public static func write(optional value: Value?, _ number: UInt32, to writer: inout WireWriter) {
    if let value { write(present: value, number, to: &writer) }
  }

  @inlinable
  public static func write(present value: Value, _ number: UInt32, to writer: inout WireWriter) {
    writePayload(value, to: &writer)
    writer.tag(number, wireType)
  }
}

// MARK: - Repeated

extension FieldKind {
  @inlinable
  public static func size(repeated values: [Value], _ number: UInt32) -> Int {
    var size = values.count * WireSize.tag(number)
    for value in values { size += payloadSize(value) }
    return size
  }

  @inlinable
  public static func write(repeated values: [Value], _ number: UInt32, to writer: inout WireWriter) {
    var index = values.count
    while index > 0 {
      index -= 1
      write(present: values[index], number, to: &writer)
    }
  }

  @inlinable
  static func packedCount(_ values: [Value]) -> Int {
    switch wireType {
    case .fixed32: return values.count * 4
    case .fixed64: return values.count * 8
    default:
      var size = 0
      for value in values { size += payloadSize(value) }
      return size
    }
  }

  @inlinable
  public static func size(packed values: [Value], _ number: UInt32) -> Int {
    values.isEmpty ? 0 : WireSize.delimited(packedCount(values)) + WireSize.tag(number)
  }

  @inlinable
  public static func write(packed values: [Value], _ number: UInt32, to writer: inout WireWriter) {
    guard !values.isEmpty else { return }
    let mark = writer.position
    var index = values.count
    while index > 0 {
      index -= 1
      writePayload(values[index], to: &writer)
    }
    writer.delimit(since: mark, number)
  }

  /// Appends the elements of the packed field at hand.
  @inlinable
  public static func read(packedInto values: inout [Value], _ reader: inout WireReader) throws(ProtobufError) {
    let count = try reader.length()
    let outerEnd = reader.end
    reader.end = reader.position + count
    switch wireType {
    case .fixed32: values.reserveCapacity(values.count + count / 4)
    case .fixed64: values.reserveCapacity(values.count + count / 8)
    default: break
    }
    while reader.position < reader.end { values.append(try read(&reader)) }
    reader.end = outerEnd
  }
}
