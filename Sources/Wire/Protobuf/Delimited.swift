public import Bytes

/// `string`: UTF-8, checked when it is read.
public enum StringField: FieldKind {
  @inlinable public static var wireType: WireType { .delimited }
  @inlinable public static var defaultValue: String { "" }
  @inlinable public static func isDefault(_ value: String) -> Bool { value.isEmpty }
  @inlinable public static func read(_ reader: inout WireReader) throws(ProtobufError) -> String {
    try reader.string()
  }
  @inlinable public static func payloadSize(_ value: String) -> Int { WireSize.delimited(value.utf8.count) }
  @inlinable public static func writePayload(_ value: String, to writer: inout WireWriter) {
    writer.string(value)
    writer.varint(UInt64(value.utf8.count))
  }
}

/// `bytes`: a slice of what was read.
public enum BytesField: FieldKind {
  @inlinable public static var wireType: WireType { .delimited }
  @inlinable public static var defaultValue: Bytes { Bytes() }
  @inlinable public static func isDefault(_ value: Bytes) -> Bool { value.isEmpty }
  @inlinable public static func read(_ reader: inout WireReader) throws(ProtobufError) -> Bytes {
    try reader.bytes()
  }
  @inlinable public static func payloadSize(_ value: Bytes) -> Int { WireSize.delimited(value.count) }
  @inlinable public static func writePayload(_ value: Bytes, to writer: inout WireWriter) {
    value.withUnsafeBytes { writer.raw($0) }
    writer.varint(UInt64(value.count))
  }
}

/// A message inside another one.
public enum MessageField<M: Message>: FieldKind {
  @inlinable public static var wireType: WireType { .delimited }
  @inlinable public static var defaultValue: M { M() }
  // Its presence says something by itself.
  @inlinable public static func isDefault(_ value: M) -> Bool { false }
  @inlinable public static func read(_ reader: inout WireReader) throws(ProtobufError) -> M {
    var value = M()
    try reader.message(&value)
    return value
  }
  @inlinable public static func payloadSize(_ value: M) -> Int { WireSize.delimited(value.encodedSize) }
  @inlinable public static func writePayload(_ value: M, to writer: inout WireWriter) {
    let mark = writer.position
    value.encode(into: &writer)
    writer.varint(UInt64(mark - writer.position))
  }
}
