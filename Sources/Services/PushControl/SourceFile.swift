internal import Bytes
internal import FileStore
internal import Glibc

/// A file of this machine that is read once from start to end, and its digests.
///
/// `@unchecked Sendable`: all calls block and are made on a pool, one at a time.
final class SourceFile: @unchecked Sendable {
  /// The name without directories.
  let name: String
  let size: Int64
  private let path: String
  private let descriptor: Int32
  private var whole = Digest(.md5)

  /// - Throws: `ControlError` when it isn't a plain file that can be read.
  init(path: String) throws(ControlError) {
    do throws(FileStoreError) {
      name = try FileName(lastComponentOf: path).text
    } catch {
      throw ControlError(.file, "\(path): \(error.message)")
    }
    self.path = path
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { throw Self.failure(path) }
    descriptor = file
    var status = stat()
    guard fstat(file, &status) == 0 else {
      let failure = Self.failure(path)
      close(file)
      throw failure
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      close(file)
      throw ControlError(.file, "\(path) is not a plain file")
    }
    size = Int64(status.st_size)
    posix_fadvise(file, 0, 0, POSIX_FADV_SEQUENTIAL)
  }

  deinit { close(descriptor) }

  /// The next bytes of the file with their MD5.
  ///
  /// - Throws: `ControlError` when the file has become shorter.
  func chunk(at offset: Int64, length: Int) throws(ControlError) -> (data: Bytes, md5: String) {
    let data = try Bytes(capacity: length) { (target) throws(ControlError) in
      var done = 0
      while done < target.count {
        let rest = UnsafeMutableRawBufferPointer(rebasing: target[done...])
        let count = pread(descriptor, rest.baseAddress, rest.count, off_t(offset) + done)
        if count < 0, errno == EINTR { continue }
        guard count >= 0 else { throw Self.failure(path) }
        guard count > 0 else { throw ControlError(.file, "\(path) became shorter while it was read") }
        done += count
      }
      return done
    }
    whole.update(data)
    return (data, Digest.hex(of: data, .md5))
  }

  /// The MD5 of all chunks so far; the next chunk begins anew.
  func finishDigest() -> String { whole.finishHex() }

  private static func failure(_ path: String) -> ControlError {
    ControlError(.file, "\(path): \(String(cString: strerror(errno)))")
  }
}
