public import Bytes

/// A frame's place in the order of its channel: by seq_no, then timestamp, then id.
public struct FrameKey: Hashable, Comparable, Sendable {
  public var seqNo: Int64
  public var timestamp: Int64
  /// A `Name`: ASCII, so that Swift and Redis compare it alike.
  public var id: String

  public init(seqNo: Int64, timestamp: Int64, id: String) {
    self.seqNo = seqNo
    self.timestamp = timestamp
    self.id = id
  }

  public static func < (a: FrameKey, b: FrameKey) -> Bool {
    (a.seqNo, a.timestamp, a.id) < (b.seqNo, b.timestamp, b.id)
  }

  /// The numbers as 16 bytes whose order is the numbers' own (big-endian, the sign flipped), then the id: Redis compares
  /// the members of a sorted set with equal scores byte by byte.
  public var encoded: Bytes {
    var bytes = FrameKey.encoded(seqNo) + FrameKey.encoded(timestamp)
    bytes.append(contentsOf: id.utf8)
    return Bytes(bytes)
  }

  /// - Returns: nil for bytes that are no key.
  public init?(encoded bytes: Bytes) {
    guard bytes.count > 16, let id = bytes.dropFirst(16).string else { return nil }
    self.init(
      seqNo: FrameKey.decoded(bytes.prefix(8)), timestamp: FrameKey.decoded(bytes.dropFirst(8).prefix(8)), id: id)
  }

  /// What stands before every key of a seq_no, and of those after it.
  static func start(at seqNo: Int64) -> Bytes { Bytes(encoded(seqNo)) }

  private static func encoded(_ number: Int64) -> [UInt8] {
    let flipped = UInt64(bitPattern: number) ^ (1 << 63)
    return stride(from: 56, through: 0, by: -8).map { UInt8(truncatingIfNeeded: flipped >> UInt64($0)) }
  }

  private static func decoded(_ bytes: Bytes) -> Int64 {
    let flipped = bytes.withUnsafeBytes { $0.reduce(0 as UInt64) { $0 << 8 | UInt64($1) } }
    return Int64(bitPattern: flipped ^ (1 << 63))
  }
}
