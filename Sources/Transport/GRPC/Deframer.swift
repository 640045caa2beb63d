internal import Bytes

/// Cuts the bytes of a stream into gRPC messages. A value without I/O: bytes in, messages out.
///
/// A message that arrives whole is copied once; one that comes in pieces is assembled in memory of its exact size. The
/// limit bounds that memory, and the kernel gives pages of it only as the bytes come in.
struct Deframer {
  // The frame header as far as it is here: its bytes, the first one highest.
  private var header: UInt64 = 0
  private var headerCount = 0
  private var assembled: ByteWriterBox?
  private var expected = 0

  /// Bytes of the message that is not complete yet, its frame header included.
  private(set) var partialBytes = 0

  /// - Parameters:
  ///   - limit: the largest message, in bytes.
  ///   - emit: called for each message, in order.
  /// - Throws: RESOURCE_EXHAUSTED for a message over the limit, UNIMPLEMENTED for a compressed one.
  mutating func feed(
    _ bytes: UnsafeRawBufferPointer, limit: Int, _ emit: (Bytes) -> Void
  ) throws(Status) {
    var rest = bytes[...]
    while !rest.isEmpty {
      if assembled == nil {
        while headerCount < EncodedMessage.headerBytes, let byte = rest.popFirst() {
          header = header << 8 | UInt64(byte)
          headerCount += 1
          partialBytes += 1
        }
        guard headerCount == EncodedMessage.headerBytes else { return }
        expected = try length(limit)
        if rest.count >= expected {
          emit(Bytes(copying: UnsafeRawBufferPointer(rebasing: rest.prefix(expected))))
          rest = rest.dropFirst(expected)
          reset()
        } else {
          assembled = ByteWriterBox(capacity: expected)
        }
      } else if let box = assembled {
        let taken = rest.prefix(expected - box.count)
        box.append(UnsafeRawBufferPointer(rebasing: taken))
        partialBytes += taken.count
        rest = rest.dropFirst(taken.count)
        if box.count == expected {
          let message = box.finish()
          reset()
          emit(message)
        }
      }
    }
  }

  private mutating func reset() {
    header = 0
    headerCount = 0
    assembled = nil
    partialBytes = 0
  }

  private func length(_ limit: Int) throws(Status) -> Int {
    guard header >> 32 == 0 else {
      throw Status(.unimplemented, "a message is compressed; this side takes identity only")
    }
    let length = Int(header & 0xFFFF_FFFF)
    guard length <= limit else {
      throw Status(.resourceExhausted, "a message of \(length) bytes is over the limit of \(limit)")
    }
    return length
  }
}

/// A message under assembly: a reference, so that the deframer stays copyable around a writer that isn't.
private final class ByteWriterBox {
  private var writer: ByteWriter
  var count: Int { writer.count }

  init(capacity: Int) { writer = ByteWriter(capacity: capacity) }

  func append(_ bytes: UnsafeRawBufferPointer) { writer.append(bytes) }

  func finish() -> Bytes {
    var done = ByteWriter(capacity: 16)
    swap(&done, &writer)
    return done.finish()
  }
}
