public import Bytes
public import Protobuf

/// A message in gRPC's frame (a flag byte and a big-endian length of four): encoded once, queued by reference on any
/// number of streams.
public struct EncodedMessage: Sendable {
  let frame: Bytes

  /// Serializes a message behind its frame header, in one allocation.
  @inlinable
  public init(_ message: some Message) {
    self.init(
      frame: message.serialized(prefix: EncodedMessage.headerBytes) { EncodedMessage.writeHeader($0, $1) })
  }

  /// Copies a message that is serialized already.
  public init(payload: Bytes) {
    self.init(
      frame: Bytes(capacity: EncodedMessage.headerBytes + payload.count) { memory in
        EncodedMessage.writeHeader(memory, payload.count)
        UnsafeMutableRawBufferPointer(rebasing: memory[EncodedMessage.headerBytes...])
          .copyMemory(from: payload.unsafeMemory)
        return memory.count
      })
  }

  @usableFromInline
  init(frame: Bytes) { self.frame = frame }

  /// The head of a message that ends with a field of type bytes: those `length` bytes have to follow it on the stream.
  init(_ message: some Message, before length: Int, ofField number: Int) {
    let fields = message.serialized()
    let tag = EncodedMessage.varint(UInt64(number) << 3 | 2) + EncodedMessage.varint(UInt64(length))
    let size = fields.count + tag.count
    self.init(
      frame: Bytes(capacity: EncodedMessage.headerBytes + size) { memory in
        EncodedMessage.writeHeader(memory, size + length)
        UnsafeMutableRawBufferPointer(rebasing: memory[EncodedMessage.headerBytes...])
          .copyMemory(from: fields.unsafeMemory)
        UnsafeMutableRawBufferPointer(rebasing: memory[(EncodedMessage.headerBytes + fields.count)...])
          .copyBytes(from: tag)
        return memory.count
      })
    withExtendedLifetime(fields) {}
  }

  private static func varint(_ value: UInt64) -> [UInt8] {
    var (rest, bytes) = (value, [UInt8]())
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    return bytes + [UInt8(rest)]
  }

  /// The frame's length in bytes, header included.
  public var count: Int { frame.count }

  @usableFromInline static let headerBytes = 5

  @usableFromInline
  static func writeHeader(_ memory: UnsafeMutableRawBufferPointer, _ length: Int) {
    memory[0] = 0
    memory.storeBytes(of: UInt32(length).bigEndian, toByteOffset: 1, as: UInt32.self)
  }
}
