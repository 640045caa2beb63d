internal import Bytes
internal import Synchronization

/// The whole-file MD5 of a file, taken from the disk as its durable prefix grows.
///
/// The bytes are read back (they stand in the page cache, which costs a twentieth of what MD5 costs), so nothing is held in
/// memory, order of arrival doesn't matter, and a file that another node began is carried on with from its checkpoint.
///
/// `@unchecked Sendable`: `advance` and `hex` are called by one thread at a time; the owner starts the next call after
/// the last has returned, which the pool's queue orders. `position` may be read by any thread meanwhile.
public final class PrefixDigest: @unchecked Sendable {
  /// Bytes per read: they stay in the core's own cache until they are digested.
  private static let step = 256 << 10

  private var md5: ResumableMD5
  private let progress: Atomic<Int64>
  /// How many bytes have been digested.
  public var position: Int64 { progress.load(ordering: .relaxed) }

  /// - Parameter checkpoint: where to go on; nil for the start of the file.
  public init(from checkpoint: DigestCheckpoint? = nil) {
    md5 = checkpoint.map { ResumableMD5($0) } ?? ResumableMD5()
    progress = Atomic(md5.length)
  }

  /// Reads and digests up to `end`, or until `isCancelled` says so. Blocks.
  ///
  /// - Returns: the state at each end of a block of the file that was passed.
  /// - Throws: `.corrupt` when the file ends before `end`.
  @discardableResult
  public func advance(
    in file: StoreFile, to end: Int64, unless isCancelled: () -> Bool = { false }
  ) throws(FileStoreError) -> [DigestCheckpoint] {
    guard md5.length < end else { return [] }
    var checkpoints: [DigestCheckpoint] = []
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.step, alignment: 64)
    defer { memory.deallocate() }
    while md5.length < end, !isCancelled() {
      let blockEnd = (md5.length / Sidecar.blockSize + 1) * Sidecar.blockSize
      let length = Int(min(Int64(Self.step), end - md5.length, blockEnd - md5.length))
      let part = UnsafeMutableRawBufferPointer(rebasing: memory[..<length])
      try file.readAll(into: part, at: md5.length)
      md5.update(UnsafeRawBufferPointer(part))
      progress.store(md5.length, ordering: .relaxed)
      if md5.length == blockEnd, let checkpoint = md5.checkpoint { checkpoints.append(checkpoint) }
    }
    return checkpoints
  }

  /// The digest of what was digested.
  public func hex() -> String { md5.hex() }
}

extension FileDigests {
  /// Reads a whole file for its digests. Blocks.
  public static func read(_ file: StoreFile, size: Int64) throws(FileStoreError) -> FileDigests {
    let whole = PrefixDigest()
    try whole.advance(in: file, to: size)
    let blocks = (0..<BlockDigests.count(ofSize: size)).map { BlockDigests.range($0, ofSize: size) }
    return FileDigests(md5: whole.hex(), blockMD5s: try BlockDigests.read(blocks, of: file))
  }
}
