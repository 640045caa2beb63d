internal import Bytes

/// The whole-file MD5 and the block MD5s of a file, taken from the disk as its durable prefix grows.
///
/// The bytes are read back (they stand in the page cache, which costs a tenth of what MD5 costs), so nothing is held in
/// memory, order of arrival doesn't matter, and a file that another node began is carried on with in the same way.
///
/// `@unchecked Sendable`: `advance` and `finish` are called by one thread at a time; the owner starts the next call
/// after the last has returned, which the pool's queue orders.
public final class PrefixDigest: @unchecked Sendable {
  /// Bytes per read.
  static let step: Int64 = 1 << 20

  private var whole = Digest(.md5)
  private var block = Digest(.md5)
  private var blockMD5s: [String] = []
  /// How many bytes have been digested.
  public private(set) var position: Int64 = 0

  public init() {}

  /// Reads and digests up to `end`, or until `isCancelled` says so. Blocks.
  ///
  /// - Throws: `.corrupt` when the file ends before `end`.
  public func advance(
    in file: StoreFile, to end: Int64, unless isCancelled: () -> Bool = { false }
  ) throws(FileStoreError) {
    while position < end, !isCancelled() {
      let blockEnd = (position / Sidecar.blockSize + 1) * Sidecar.blockSize
      let length = min(Self.step, end - position, blockEnd - position)
      let bytes = try file.read(at: position, length: Int(length))
      guard bytes.count == Int(length) else {
        throw FileStoreError(.corrupt, "The file ends at \(position + Int64(bytes.count)), before \(end).")
      }
      whole.update(bytes)
      block.update(bytes)
      position += length
      if position == blockEnd { blockMD5s.append(block.finishHex()) }
    }
  }

  /// The digests of what was digested; the object is new afterwards.
  public func finish() -> FileDigests {
    if position % Sidecar.blockSize != 0 { blockMD5s.append(block.finishHex()) }
    defer {
      position = 0
      blockMD5s = []
    }
    return FileDigests(md5: whole.finishHex(), blockMD5s: blockMD5s)
  }
}
