public import Bytes
internal import Glibc
internal import Synchronization

/// An open file below the shared directory.
///
/// All calls block: they belong on a `BlockingPool`, and may be made from several threads at once, since each names its
/// own offset.
public final class StoreFile: Sendable {
  private let descriptor: Int32
  private let isClosed = Atomic<Bool>(false)

  init(descriptor: Int32) { self.descriptor = descriptor }

  deinit {
    if !isClosed.load(ordering: .relaxed) { _ = Glibc.close(descriptor) }
  }

  /// Writes all of the bytes at an offset, however many calls that takes.
  public func write(_ bytes: Bytes, at offset: Int64) throws(FileStoreError) {
    try bytes.withUnsafeBytes { (source) throws(FileStoreError) in
      var done = 0
      while done < source.count {
        // pwrite(2): "may be interrupted … return less than count"; 0 would mean no progress, which a regular file
        // doesn't give for a positive count.
        let rest = UnsafeRawBufferPointer(rebasing: source[done...])
        let count = try retrying("write to the file") {
          pwrite(descriptor, rest.baseAddress, rest.count, Int(offset) + done)
        }
        guard count > 0 else { throw FileStoreError(.io, "The file took no more bytes.") }
        done += count
      }
    }
  }

  /// Reads up to `length` bytes from an offset on: fewer at the end of the file only, none past it.
  public func read(at offset: Int64, length: Int) throws(FileStoreError) -> Bytes {
    try Bytes(capacity: length) { (target) throws(FileStoreError) in
      var done = 0
      while done < target.count {
        let rest = UnsafeMutableRawBufferPointer(rebasing: target[done...])
        let count = try retrying("read the file") {
          pread(descriptor, rest.baseAddress, rest.count, Int(offset) + done)
        }
        if count == 0 { break }
        done += count
      }
      return done
    }
  }

  /// Fills `target` from an offset on.
  ///
  /// - Throws: `.corrupt` when the file ends before.
  func readAll(into target: UnsafeMutableRawBufferPointer, at offset: Int64) throws(FileStoreError) {
    var done = 0
    while done < target.count {
      let rest = UnsafeMutableRawBufferPointer(rebasing: target[done...])
      let count = try retrying("read the file") { pread(descriptor, rest.baseAddress, rest.count, Int(offset) + done) }
      guard count > 0 else {
        throw FileStoreError(.corrupt, "The file ends at \(offset + Int64(done)), too early.")
      }
      done += count
    }
  }

  /// Cuts the file off behind `length` bytes, or lengthens it with zeros.
  func truncate(to length: Int64) throws(FileStoreError) {
    try retrying("size the file") { ftruncate(descriptor, off_t(length)) }
  }

  /// The size as the file system has it now. On NFS it may be another host's cached view: decide nothing by it but
  /// whether a finished file is as long as its sidecar says.
  public func size() throws(FileStoreError) -> Int64 {
    var status = stat()
    try retrying("look at the file") { fstat(descriptor, &status) }
    return Int64(status.st_size)
  }

  /// Makes what was written safe (fdatasync). After an error nobody knows which bytes are: write them again.
  public func syncData() throws(FileStoreError) { try retrying("sync the file's data") { fdatasync(descriptor) } }

  /// Makes the data and everything about the file safe (fsync).
  public func sync() throws(FileStoreError) { try retrying("sync the file") { fsync(descriptor) } }

  /// Tells the kernel that a reader goes through the file in order (advice; errors don't matter).
  public func adviseSequential() { _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_SEQUENTIAL) }

  /// Closes the file, once. Don't call it while another thread uses the file.
  ///
  /// close(2): on NFS errors of earlier writes may first be reported here; the descriptor is gone even after EINTR.
  public func close() throws(FileStoreError) {
    guard !isClosed.exchange(true, ordering: .relaxed) else { return }
    if Glibc.close(descriptor) < 0, errno != EINTR { throw .system("close the file", errno: errno) }
  }
}
