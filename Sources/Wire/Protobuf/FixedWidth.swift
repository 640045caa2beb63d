/// A kind that is a little-endian integer of a fixed width.
public protocol FixedKind: FieldKind {
  associatedtype Pattern: FixedWidthInteger
  static func pattern(_ value: Value) -> Pattern
  static func value(_ pattern: Pattern) -> Value
}

extension FixedKind {
  @inlinable public static var wireType: WireType { MemoryLayout<Pattern>.size == 4 ? .fixed32 : .fixed64 }
  // By pattern: a negative zero is not the default.
  @inlinable public static func isDefault(_ value: Value) -> Bool { pattern(value) == 0 }
  @inlinable public static var defaultValue: Value { value(0) }
  @inlinable public static func payloadSize(_ value: Value) -> Int { MemoryLayout<Pattern>.size }
  @inlinable public static func writePayload(_ value: Value, to writer: inout WireWriter) {
    writer.fixed(pattern(value))
  }
  @inlinable public static func read(_ reader: inout WireReader) throws(ProtobufError) -> Value {
    value(try reader.fixed(Pattern.self))
  }
}

/// `fixed32`
public enum Fixed32Field: FixedKind {
  public typealias Value = UInt32
  @inlinable public static func pattern(_ value: UInt32) -> UInt32 { value }
  @inlinable public static func value(_ pattern: UInt32) -> UInt32 { pattern }
}

/// `fixed64`
public enum Fixed64Field: FixedKind {
  public typealias Value = UInt64
  @inlinable public static func pattern(_ value: UInt64) -> UInt64 { value }
  @inlinable public static func value(_ pattern: UInt64) -> UInt64 { pattern }
}

/// `sfixed32`
public enum SFixed32Field: FixedKind {
  public typealias Value = Int32
  @inlinable public static func pattern(_ value: Int32) -> Int32 { value }
  @inlinable public static func value(_ pattern: Int32) -> Int32 { pattern }
}

/// `sfixed64`
public enum SFixed64Field: FixedKind {
  public typealias Value = Int64
  @inlinable public static func pattern(_ value: Int64) -> Int64 { value }
  @inlinable public static func value(_ pattern: Int64) -> Int64 { pattern }
}

/// `float`
public enum FloatField: FixedKind {
  public typealias Value = Float
  @inlinable public static func pattern(_ value: Float) -> UInt32 { value.bitPattern }
  @inlinable public static func value(_ pattern: UInt32) -> Float { Float(bitPattern: pattern) }
}

/// `double`
public enum DoubleField: FixedKind {
  public typealias Value = Double
  @inlinable public static func pattern(_ value: Double) -> UInt64 { value.bitPattern }
  @inlinable public static func value(_ pattern: UInt64) -> Double { Double(bitPattern: pattern) }
}
