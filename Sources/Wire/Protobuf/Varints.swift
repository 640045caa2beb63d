/// A kind that is a number in 7-bit groups.
public protocol VarintKind: FieldKind {
  static func varint(_ value: Value) -> UInt64
}

extension VarintKind {
  @inlinable public static var wireType: WireType { .varint }
  @inlinable public static func payloadSize(_ value: Value) -> Int { WireSize.varint(varint(value)) }
  @inlinable public static func writePayload(_ value: Value, to writer: inout WireWriter) {
    writer.varint(varint(value))
  }
}

extension VarintKind where Value: FixedWidthInteger {
  @inlinable public static var defaultValue: Value { 0 }
  @inlinable public static func isDefault(_ value: Value) -> Bool { value == 0 }
}

/// `int32`: negative values take 10 bytes.
public enum Int32Field: VarintKind {
  @inlinable public static func read(_ reader: inout WireReader) throws(ProtobufError) -> Int32 {
    Int32(truncatingIfNeeded: try reader.varint())
  }
  @inlinable public static func varint(_ value: Int32) -> UInt64 { UInt64(bitPattern: Int64(value)) }
}

/// `int64`: negative values take 10 bytes.
public enum Int64Field: VarintKind {
  @inlinable public static func read(_ reader: inout WireReader) throws(ProtobufError) -> Int64 {
    Int64(bitPattern: try reader.varint())
  }
  @inlinable public static func varint(_ value: Int64) -> UInt64 { UInt64(bitPattern: value) }
}

/// `uint32`
public enum UInt32Field: VarintKind {
  @inlinable public static func read(_ reader: inout WireReader) throws(ProtobufError) -> UInt32 {
    UInt32(truncatingIfNeeded: try reader.varint())
  }
  @inlinable public static func varint(_ value: UInt32) -> UInt64 { UInt64(value) }
}

/// `uint64`
public enum UInt64Field: VarintKind {
  @inlinable public static func read(_ reader: inout WireReader) throws(ProtobufError) -> UInt64 {
    try reader.varint()
  }
  @inlinable public static func varint(_ value: UInt64) -> UInt64 { value }
}

/// `sint32`: small negative values are short.
public enum SInt32Field: VarintKind {
  @inlinable public static func read(_ reader: inout WireReader) throws(ProtobufError) -> Int32 {
    let zigzag = UInt32(truncatingIfNeeded: try reader.varint())
    return Int32(bitPattern: zigzag >> 1) ^ -Int32(bitPattern: zigzag & 1)
  }
  @inlinable public static func varint(_ value: Int32) -> UInt64 {
    UInt64(UInt32(bitPattern: value << 1 ^ value >> 31))
  }
}

/// `sint64`: small negative values are short.
public enum SInt64Field: VarintKind {
  @inlinable public static func read(_ reader: inout WireReader) throws(ProtobufError) -> Int64 {
    let zigzag = try reader.varint()
    return Int64(bitPattern: zigzag >> 1) ^ -Int64(bitPattern: zigzag & 1)
  }
  @inlinable public static func varint(_ value: Int64) -> UInt64 {
    UInt64(bitPattern: value << 1 ^ value >> 63)
  }
}

/// `bool`
public enum BoolField: VarintKind {
  @inlinable public static var defaultValue: Bool { false }
  @inlinable public static func isDefault(_ value: Bool) -> Bool { !value }
  @inlinable public static func read(_ reader: inout WireReader) throws(ProtobufError) -> Bool {
    try reader.varint() != 0
  }
  @inlinable public static func varint(_ value: Bool) -> UInt64 { value ? 1 : 0 }
}

/// An enum of the schema; its type keeps numbers that the schema doesn't know.
public enum EnumField<E: OpenEnum>: VarintKind {
  @inlinable public static var defaultValue: E { E() }
  @inlinable public static func isDefault(_ value: E) -> Bool { value.rawValue == 0 }
  @inlinable public static func read(_ reader: inout WireReader) throws(ProtobufError) -> E {
    E(rawValue: Int32(truncatingIfNeeded: try reader.varint()))
  }
  @inlinable public static func varint(_ value: E) -> UInt64 { UInt64(bitPattern: Int64(value.rawValue)) }
}

/// The Swift type of an enum of the schema.
public protocol OpenEnum: RawRepresentable, Hashable, Sendable, CustomStringConvertible where RawValue == Int32 {
  /// The value 0.
  init()
  init(rawValue: Int32)
  /// The name of a value in the schema; for a number that isn't there, the number.
  var name: String { get }
}

extension OpenEnum {
  public var description: String { name }
}
