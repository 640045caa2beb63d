public import Bytes

/// A protobuf message: a value with a default state, which can be read from and written in the binary format.
///
/// Conformances are generated from Protos/ by `protoc-gen-fleetpush`. Two values are equal when their fields and their
/// unknown fields are.
public protocol Message: Sendable, Equatable {
  /// Every field at its default.
  init()

  /// The name in the schema, e.g. "push.v1.ServerMessage".
  static var fullName: String { get }

  /// The fields that this version of the schema doesn't know, as they came.
  var unknownFields: UnknownFields { get set }

  /// Merges what the reader holds up to its end: singular fields are replaced, messages merged, repeated ones appended.
  mutating func decode(from reader: inout WireReader) throws(ProtobufError)

  /// How many bytes `encode` writes.
  var encodedSize: Int { get }

  /// Writes the fields, the last one first (see `WireWriter`).
  func encode(into writer: inout WireWriter)
}

extension Message {
  /// Reads a message. Its `bytes` fields share the memory of `bytes`, and keep it alive.
  @inlinable
  public init(serialized bytes: Bytes) throws(ProtobufError) {
    self.init()
    try merge(serialized: bytes)
  }

  /// Reads a message on top of this one. After an error the value holds what was read before it.
  @inlinable
  public mutating func merge(serialized bytes: Bytes) throws(ProtobufError) {
    // The reader holds bare pointers; the bytes have to outlive its last use, not just its last retain.
    defer { withExtendedLifetime(bytes) {} }
    var reader = WireReader(bytes)
    try decode(from: &reader)
  }

  /// The binary form. The same value gives the same bytes: fields by number, map entries by key.
  @inlinable
  public func serialized() -> Bytes {
    serialized(prefix: 0) { _, _ in }
  }

  /// The binary form behind `prefix` bytes for a frame's header, in one allocation.
  ///
  /// - Parameter fill: writes all `prefix` bytes; it is given them and the length of the message that follows.
  @inlinable
  public func serialized(prefix: Int, _ fill: (UnsafeMutableRawBufferPointer, Int) -> Void) -> Bytes {
    let size = encodedSize
    return Bytes(capacity: prefix + size) { memory in
      fill(UnsafeMutableRawBufferPointer(rebasing: memory[..<prefix]), size)
      var writer = WireWriter(UnsafeMutableRawBufferPointer(rebasing: memory[prefix...]))
      encode(into: &writer)
      precondition(writer.isFull, "a message wrote less than its encodedSize")
      return memory.count
    }
  }
}
