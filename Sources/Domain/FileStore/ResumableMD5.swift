internal import COpenSSL

/// The state of an MD5 behind a multiple of 64 bytes: whoever has it goes on without the bytes before.
public struct DigestCheckpoint: Sendable, Hashable {
  /// How many bytes are behind it.
  public let position: Int64
  /// The four words of the chaining value.
  public let words: [UInt32]

  /// - Returns: nil when there can't be such a state.
  public init?(position: Int64, words: [UInt32]) {
    guard position >= 0, position % 64 == 0, words.count == 4 else { return nil }
    self.position = position
    self.words = words
  }
}

/// A running MD5 whose state can be taken out and put back.
///
/// On OpenSSL's own functions of MD5, as `Digest` isn't: EVP keeps its state to itself. Not for several threads at once.
public struct ResumableMD5: Sendable {
  private var context = MD5_CTX()
  /// How many bytes went in.
  public private(set) var length: Int64

  public init() {
    length = 0
    precondition(MD5_Init(&context) == 1, "MD5_Init")
  }

  public init(_ checkpoint: DigestCheckpoint) {
    self.init()
    context.A = checkpoint.words[0]
    context.B = checkpoint.words[1]
    context.C = checkpoint.words[2]
    context.D = checkpoint.words[3]
    // The length in bits, as two words.
    let bits = UInt64(checkpoint.position) * 8
    context.Nl = UInt32(truncatingIfNeeded: bits)
    context.Nh = UInt32(truncatingIfNeeded: bits >> 32)
    length = checkpoint.position
  }

  /// The state now; nil inside a block of 64 bytes.
  public var checkpoint: DigestCheckpoint? {
    DigestCheckpoint(position: length, words: [context.A, context.B, context.C, context.D])
  }

  public mutating func update(_ source: UnsafeRawBufferPointer) {
    precondition(MD5_Update(&context, source.baseAddress, source.count) == 1, "MD5_Update")
    length += Int64(source.count)
  }

  /// The digest of what was put in, in lower-case hex; more can be put in afterwards.
  public func hex() -> String {
    var copy = context
    return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 16) { buffer in
      precondition(MD5_Final(buffer.baseAddress, &copy) == 1, "MD5_Final")
      return Digest.hex(UnsafeBufferPointer(buffer))
    }
  }
}
