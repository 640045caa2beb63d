/// One file on its way in, on the node that writes it: which bytes have come, which are safe, what is to be done next.
///
/// A state machine without I/O. Inputs are methods (`arrived`, `written`, `synced`, `streamEnded`, …), what they return
/// is what the caller has to do. A byte goes one way:
///
///     missing ──arrived──► claimed ──written──► dirty ──beginSync──► syncing ──synced──► durable
///        ▲                    │ released                               │ syncFailed         │ damaged
///        └────────────────────┴────────────────────────────────────────┴────────────────────┘
///
/// and the file: uploading ──every byte durable──► finalising ──► complete, or back to uploading when that failed.
/// Claims keep two streams from writing the same bytes at once; only what is durable is ever told to others.
/// Time is passed in, in nanoseconds of a monotonic clock.
public struct Upload: Sendable {
  /// The largest file that is taken, 1 TiB; a larger one is RESOURCE_EXHAUSTED.
  public static let maximumSize: Int64 = 1 << 40
  /// The most separate ranges that a file may be in at a time; a chunk that would make one more is RESOURCE_EXHAUSTED.
  public static let maximumFragments = 65_536

  /// What a chunk says about itself, as on the wire: nothing is checked yet.
  public struct Chunk: Sendable, Hashable {
    public var offset: Int64
    public var length: Int64
    /// The size of the whole file; 0 in a chunk that leaves it to the ones before.
    public var totalSize: Int64

    public init(offset: Int64, length: Int64, totalSize: Int64) {
      self.offset = offset
      self.length = length
      self.totalSize = totalSize
    }
  }

  /// Why something is refused; the code is gRPC's.
  public struct Refusal: Error, Sendable, Hashable {
    public enum Code: Sendable, Hashable { case invalidArgument, failedPrecondition, dataLoss, resourceExhausted }
    public let code: Code
    public let message: String

    public init(_ code: Code, _ message: String) {
      self.code = code
      self.message = message
    }
  }

  /// What to do with a chunk.
  public enum Arrival: Sendable, Hashable {
    /// Check its MD5, write it at its offset, then call `written`, or `released` when either failed.
    case write(Range<Int64>)
    /// It is here, or on its way to the disk: nothing to do.
    case duplicate
    case refused(Refusal)
  }

  /// What to answer to a stream that has said all it had to say.
  public enum Ending: Sendable, Hashable {
    /// Bytes are still being written: sync, then ask again.
    case waitForBytes
    case incomplete(missing: [Range<Int64>])
    /// Every byte is durable and nobody has begun to finalise.
    case finalise
    /// Somebody finalises: wait for the result.
    case waitForResult
    case complete(md5: String)
  }

  public enum Phase: Sendable, Hashable {
    case uploading, finalising
    case complete(md5: String)
  }

  public let size: Int64
  public private(set) var declaredMD5: String?
  public private(set) var phase: Phase
  public private(set) var durable: ByteRanges
  /// When the last byte became durable, or the upload was opened.
  public private(set) var lastProgress: Int64

  private var claimed = ByteRanges()
  private var dirty: [Range<Int64>] = []
  private var syncing: [Range<Int64>] = []
  /// Everything that isn't missing: claimed, dirty, syncing and durable.
  private var present: ByteRanges

  /// - Parameters:
  ///   - size: what the first chunk said; see `checkSize`.
  ///   - durable: what is recorded as safe on disk from before.
  public init(size: Int64, declaredMD5: String? = nil, durable: ByteRanges = ByteRanges(), now: Int64) {
    self.size = size
    self.declaredMD5 = declaredMD5
    self.durable = durable
    present = durable
    phase = .uploading
    lastProgress = now
  }

  /// Whether a file of this size can be begun.
  public static func checkSize(_ size: Int64) throws(Refusal) {
    guard size >= 0 else { throw Refusal(.invalidArgument, "The total size is negative.") }
    guard size <= maximumSize else {
      throw Refusal(.resourceExhausted, "A file may have at most \(maximumSize) bytes, not \(size).")
    }
  }

  /// Bytes that are written and not yet synced.
  public var unsyncedBytes: Int64 { dirty.reduce(0) { $0 + Int64($1.count) } }
  /// Bytes of the file that stand in it, safe or not, each counted once.
  public var writtenBytes: Int64 { durable.total + unsyncedBytes + syncing.reduce(0) { $0 + Int64($1.count) } }
  public var isSyncing: Bool { !syncing.isEmpty }
  /// Whether nothing is between missing and durable.
  public var isQuiet: Bool { claimed.isEmpty && dirty.isEmpty && syncing.isEmpty }
  /// Whether a byte of the range is on its way to the disk.
  public func isClaimed(_ range: Range<Int64>) -> Bool { claimed.overlaps(range) }
  /// Whether all bytes of the range stand in the file, safe or not.
  public func isWritten(_ range: Range<Int64>) -> Bool { present.contains(range) && !claimed.overlaps(range) }
  private var isComplete: Bool { durable.total == size }

  /// A size or an MD5 (normalised) that a client declares: the first one stands.
  public mutating func declare(size: Int64? = nil, md5: String? = nil) throws(Refusal) {
    if let size, size != self.size {
      throw Refusal(
        .failedPrecondition, "The file was begun with \(self.size) bytes and can't become \(size) bytes long.")
    }
    guard let md5 else { return }
    if case .complete(let standing) = phase, standing != md5 {
      throw Refusal(.failedPrecondition, "The file is complete, and its MD5 is \(standing), not \(md5).")
    }
    if let declaredMD5, declaredMD5 != md5 {
      throw Refusal(.failedPrecondition, "The file was declared with MD5 \(declaredMD5), and now with \(md5).")
    }
    declaredMD5 = md5
  }

  /// A chunk has arrived.
  public mutating func arrived(_ chunk: Chunk) -> Arrival {
    guard chunk.offset >= 0, chunk.length >= 0, chunk.totalSize >= 0 else {
      return .refused(Refusal(.invalidArgument, "A chunk's offset and sizes can't be negative."))
    }
    if chunk.totalSize != 0, chunk.totalSize != size {
      let message = "The file was begun with \(size) bytes, and this chunk says \(chunk.totalSize)."
      return .refused(Refusal(.failedPrecondition, message))
    }
    guard chunk.offset <= size, chunk.length <= size - chunk.offset else {
      let message = "The chunk at \(chunk.offset) with \(chunk.length) bytes reaches past the file's size of \(size)."
      return .refused(Refusal(.invalidArgument, message))
    }
    let range = chunk.offset..<(chunk.offset + chunk.length)
    if present.contains(range) { return .duplicate }
    if present.overlaps(range) {
      let message = "The chunk at \(chunk.offset) with \(chunk.length) bytes overlaps another chunk in part."
      return .refused(Refusal(.failedPrecondition, message))
    }
    guard present.ranges.count < Self.maximumFragments else {
      return .refused(Refusal(.resourceExhausted, "The file is in more than \(Self.maximumFragments) pieces."))
    }
    claimed.insert(range)
    present.insert(range)
    return .write(range)
  }

  /// A claimed chunk stands in the file, not yet safe.
  public mutating func written(_ range: Range<Int64>) {
    claimed.remove(range)
    dirty.append(range)
  }

  /// A claimed chunk was not written: its bytes are missing again.
  public mutating func released(_ range: Range<Int64>) {
    claimed.remove(range)
    present.remove(range)
  }

  /// The chunks to sync and record now; empty when there are none or a sync is running.
  public mutating func beginSync() -> [Range<Int64>] {
    guard syncing.isEmpty else { return [] }
    syncing = dirty
    dirty = []
    return syncing
  }

  /// The sync that was begun has ended and is recorded.
  public mutating func synced(now: Int64) {
    for range in syncing { durable.insert(range) }
    syncing = []
    lastProgress = now
  }

  /// The sync failed: nobody knows which of the bytes are on the disk (a failed fdatasync may mark the pages clean), so
  /// all of them are missing again.
  public mutating func syncFailed() {
    for range in syncing { present.remove(range) }
    syncing = []
  }

  /// Durable bytes aren't what was written there: they are missing again, whoever sent them.
  public mutating func damaged(_ range: Range<Int64>) {
    durable.remove(range)
    present.remove(range)
    if phase == .finalising { phase = .uploading }
  }

  /// A stream has ended, or wants to know where the file stands.
  public func streamEnded() -> Ending {
    switch phase {
    case .complete(let md5): return .complete(md5: md5)
    case .finalising: return .waitForResult
    case .uploading:
      if isComplete { return .finalise }
      return isQuiet ? .incomplete(missing: durable.gaps(upTo: size)) : .waitForBytes
    }
  }

  /// Takes the step to finalising, once.
  public mutating func beginFinalising() -> Bool {
    guard phase == .uploading, isComplete else { return false }
    phase = .finalising
    return true
  }

  /// The file stands, finalised here or elsewhere: every byte is there.
  public mutating func finalised(md5: String, now: Int64) {
    durable.insert(0..<size)
    present.insert(0..<size)
    phase = .complete(md5: md5)
    lastProgress = now
  }

  /// Finalising failed for a reason that may pass; it can be begun again.
  public mutating func finalisingFailed() {
    if phase == .finalising { phase = .uploading }
  }
}
