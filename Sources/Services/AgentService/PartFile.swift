internal import Bytes
internal import FileStore
internal import Glibc

/// A file that grows from its start, and the MD5 of what was put in.
///
/// `@unchecked Sendable`: all calls block and are made on a pool, one at a time; the owner starts the next one after the
/// last has returned, which the pool's queue orders.
final class PartFile: @unchecked Sendable {
  /// Bytes per read when a prefix is digested again.
  private static let step = 1 << 20

  private let descriptor: Int32
  private var md5 = Digest(.md5)
  private var position: Int64 = 0

  init(descriptor: Int32) { self.descriptor = descriptor }

  deinit { close(descriptor) }

  /// Digests the file's first bytes, so that it can be carried on; the rest is cut off when the next bytes come.
  /// - Returns: how many there were, at most `end`.
  func digest(upTo end: Int64) throws(AgentError) -> Int64 {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.step, alignment: 4096)
    defer { buffer.deallocate() }
    while position < end {
      let length = Int(min(Int64(Self.step), end - position))
      let count = try checked("read the file") { pread(descriptor, buffer.baseAddress, length, off_t(position)) }
      if count == 0 { break }
      md5.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
      position += Int64(count)
    }
    return position
  }

  func append(_ pieces: [Bytes]) throws(AgentError) {
    for piece in pieces {
      try piece.withUnsafeBytes { (source) throws(AgentError) in try writeAll(descriptor, source, at: position) }
      md5.update(piece)
      position += Int64(piece.count)
    }
  }

  /// Makes what was appended safe (fdatasync).
  /// - Returns: how much that is.
  func sync() throws(AgentError) -> Int64 {
    try checked("sync the file's data") { fdatasync(descriptor) }
    return position
  }

  /// Starts again with nothing.
  func discard() throws(AgentError) {
    try checked("cut the file") { ftruncate(descriptor, 0) }
    _ = md5.finishHex()
    position = 0
  }

  /// Cuts off what an earlier run left behind the end, makes everything safe, and gives the MD5 in hex.
  func finish() throws(AgentError) -> String {
    try checked("cut the file") { ftruncate(descriptor, off_t(position)) }
    try checked("sync the file") { fsync(descriptor) }
    return finishDigest()
  }

  func finishDigest() -> String { md5.finishHex() }

  /// The size of a plain file; nil for anything else.
  func plainSize() throws(AgentError) -> Int64? {
    var status = stat()
    try checked("look at the file") { fstat(descriptor, &status) }
    return status.st_mode & S_IFMT == S_IFREG ? Int64(status.st_size) : nil
  }
}
