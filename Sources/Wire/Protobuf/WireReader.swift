public import Bytes

/// How the value behind a tag is laid out.
public enum WireType: UInt32, Sendable {
  case varint = 0
  case fixed64 = 1
  case delimited = 2
  case startGroup = 3
  case endGroup = 4
  case fixed32 = 5
}

/// Reads the binary format out of one `Bytes`; generated code drives it.
///
/// It has a position and an end; a nested message is read by moving the end in and back out. Every read checks against
/// the end, so no input can make it trap or read outside. After an error a reader is of no further use.
///
/// It holds bare pointers: whoever makes one keeps the bytes alive until the last use (`Message.merge` does).
public struct WireReader: ~Copyable {
  /// How many messages and groups may stand inside each other; past it, `ProtobufError.Code.tooDeep`.
  public static let depthLimit = 100

  @usableFromInline let source: Bytes
  @usableFromInline let start: UnsafeRawPointer
  @usableFromInline var position: UnsafeRawPointer
  @usableFromInline var end: UnsafeRawPointer
  /// Where the tag that was read last begins.
  @usableFromInline var tagStart: UnsafeRawPointer
  @usableFromInline var depth = 0

  @inlinable
  public init(_ source: Bytes) {
    self.source = source
    // No bytes have no address; any will do, as it is never read from.
    start = source.unsafeMemory.baseAddress ?? UnsafeRawPointer(bitPattern: 16).unsafelyUnwrapped
    position = start
    end = start + source.count
    tagStart = start
  }

  @inlinable
  var remaining: Int { end - position }

  /// The next tag (field number × 8 + wire type), or nil at the end of the message.
  @inlinable
  public mutating func tag() throws(ProtobufError) -> UInt32? {
    guard position < end else { return nil }
    tagStart = position
    let value = try varint()
    guard value >= 8, value <= UInt64(UInt32.max), position - tagStart <= 5 else { throw .badTag }
    return UInt32(truncatingIfNeeded: value)
  }

  @inlinable
  public mutating func varint() throws(ProtobufError) -> UInt64 {
    if position < end {
      let byte = position.load(as: UInt8.self)
      if byte < 0x80 {
        position += 1
        return UInt64(byte)
      }
    }
    return try longVarint()
  }

  /// At most ten bytes; what the tenth one has above 64 bits is dropped, as other implementations do.
  @usableFromInline
  mutating func longVarint() throws(ProtobufError) -> UInt64 {
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while position < end {
      let byte = position.load(as: UInt8.self)
      position += 1
      value |= UInt64(byte & 0x7f) &<< shift
      if byte < 0x80 { return value }
      shift += 7
      if shift == 70 { throw .longVarint }
    }
    throw .truncated
  }

  /// A little-endian integer of 4 or 8 bytes.
  @inlinable
  mutating func fixed<T: FixedWidthInteger>(_: T.Type) throws(ProtobufError) -> T {
    let width = MemoryLayout<T>.size
    guard remaining >= width else { throw .truncated }
    let value = position.loadUnaligned(as: T.self)
    position += width
    return T(littleEndian: value)
  }

  /// The length in front of a string, bytes, message or packed field; that many bytes are there.
  @inlinable
  mutating func length() throws(ProtobufError) -> Int {
    let value = try varint()
    guard value <= UInt64(remaining) else { throw .truncated }
    return Int(truncatingIfNeeded: value)
  }

  @inlinable
  mutating func string() throws(ProtobufError) -> String {
    let count = try length()
    if count == 0 { return "" }
    let content = UnsafeRawBufferPointer(start: position, count: count)
    position += count
    guard isUTF8(content) else { throw .invalidUTF8 }
    return String(decoding: content, as: UTF8.self)
  }

  /// A slice of the source.
  @inlinable
  mutating func bytes() throws(ProtobufError) -> Bytes {
    let count = try length()
    if count == 0 { return Bytes() }
    let offset = position - start
    position += count
    return source[offset..<offset + count]
  }
}

// MARK: - Nested messages

extension WireReader {
  /// Moves the end to that of the delimited field at hand; gives back what `leave` needs.
  @inlinable
  mutating func enter() throws(ProtobufError) -> UnsafeRawPointer {
    let count = try length()
    guard depth < WireReader.depthLimit else { throw .tooDeep }
    depth += 1
    let outerEnd = end
    end = position + count
    return outerEnd
  }

  @inlinable
  mutating func leave(to outerEnd: UnsafeRawPointer) {
    position = end
    end = outerEnd
    depth -= 1
  }

  /// Merges the delimited field at hand into a message.
  @inlinable
  public mutating func message<M: Message>(_ value: inout M) throws(ProtobufError) {
    let outerEnd = try enter()
    try value.decode(from: &self)
    leave(to: outerEnd)
  }

  /// Merges the delimited field at hand into a message, which is made when there is none.
  @inlinable
  public mutating func message<M: Message>(_ value: inout M?) throws(ProtobufError) {
    var merged = value ?? M()
    value = nil
    try message(&merged)
    value = merged
  }

  /// Appends the delimited field at hand as one more message.
  @inlinable
  public mutating func message<M: Message>(appendingTo values: inout [M]) throws(ProtobufError) {
    var value = M()
    try message(&value)
    values.append(value)
  }
}

// MARK: - Unknown fields

extension WireReader {
  /// Keeps the field whose tag was read last.
  public mutating func unknown(_ tag: UInt32, into fields: inout UnknownFields) throws(ProtobufError) {
    let first = tagStart
    try skip(tag)
    fields.append(UnsafeRawBufferPointer(start: first, count: position - first))
  }

  /// Passes over the value behind a tag.
  public mutating func skip(_ tag: UInt32) throws(ProtobufError) {
    switch WireType(rawValue: tag & 7) {
    case .varint: _ = try varint()
    case .fixed64: _ = try fixed(UInt64.self)
    case .fixed32: _ = try fixed(UInt32.self)
    case .delimited:
      let count = try length()
      position += count
    case .startGroup: try skipGroup(number: tag >> 3)
    case .endGroup: throw .strayEndGroup
    case nil: throw .badWireType
    }
  }

  private mutating func skipGroup(number: UInt32) throws(ProtobufError) {
    guard depth < WireReader.depthLimit else { throw .tooDeep }
    depth += 1
    while let tag = try tag() {
      if tag & 7 == WireType.endGroup.rawValue {
        guard tag >> 3 == number else { throw .strayEndGroup }
        depth -= 1
        return
      }
      try skip(tag)
    }
    throw .truncated
  }
}
