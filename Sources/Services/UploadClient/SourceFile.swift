internal import Bytes
internal import FileStore
internal import Glibc

/// A plain file of this machine that is being sent. Nothing of it changes after `init`; its calls block, and may be made
/// from several threads at once.
final class SourceFile: Sendable {
  /// The name without directories.
  let name: String
  let size: Int64
  let path: String
  /// The path that everybody on this machine would call it by.
  let realPath: String
  private let descriptor: Int32
  private let stamp: Stamp

  /// What changes when somebody writes to a file.
  struct Stamp: Sendable, Hashable {
    var size: Int64
    var inode: UInt64
    var modified: Int64
    /// Also moves when modification times are set back, and with names and rights.
    var changed: Int64

    init(_ status: stat) {
      size = Int64(status.st_size)
      inode = UInt64(status.st_ino)
      modified = Int64(status.st_mtim.tv_sec) &* 1_000_000_000 &+ Int64(status.st_mtim.tv_nsec)
      changed = Int64(status.st_ctim.tv_sec) &* 1_000_000_000 &+ Int64(status.st_ctim.tv_nsec)
    }
  }

  /// - Throws: `UploadError` when it isn't a plain file that can be read.
  init(path: String) throws(UploadError) {
    do throws(FileStoreError) {
      name = try FileName(lastComponentOf: path).text
    } catch {
      throw UploadError(.file, "\(path): \(error.message)")
    }
    self.path = path
    let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard file >= 0 else { throw Self.failure(path) }
    var status = stat()
    guard fstat(file, &status) == 0 else {
      let failure = Self.failure(path)
      close(file)
      throw failure
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      close(file)
      throw UploadError(.file, "\(path) is not a plain file")
    }
    descriptor = file
    stamp = Stamp(status)
    size = stamp.size
    if let resolved = realpath(path, nil) {
      realPath = String(cString: resolved)
      free(resolved)
    } else {
      realPath = path
    }
    posix_fadvise(file, 0, 0, POSIX_FADV_SEQUENTIAL)
  }

  deinit { close(descriptor) }

  /// The bytes of a range.
  ///
  /// - Throws: `UploadError` `.changed` when the file has become shorter.
  func read(_ range: Range<Int64>) throws(UploadError) -> Bytes {
    try Bytes(capacity: range.count) { (target) throws(UploadError) in
      var done = 0
      while done < target.count {
        let rest = UnsafeMutableRawBufferPointer(rebasing: target[done...])
        let count = pread(descriptor, rest.baseAddress, rest.count, off_t(range.lowerBound) + done)
        if count < 0, errno == EINTR { continue }
        guard count >= 0 else { throw Self.failure(path) }
        guard count > 0 else { throw UploadError(.changed, "\(path) became shorter while it was read") }
        done += count
      }
      return done
    }
  }

  /// - Throws: `UploadError` `.changed` when the file isn't what it was when it was opened.
  func checkUnchanged() throws(UploadError) {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw Self.failure(path) }
    let now = Stamp(status)
    guard now.size == stamp.size, now.modified == stamp.modified else {
      throw UploadError(.changed, "\(path) was changed while it was read; nothing of it was published")
    }
  }

  private static func failure(_ path: String) -> UploadError {
    UploadError(.file, "\(path): \(String(cString: strerror(errno)))")
  }

  // MARK: Identity

  /// The id that the same file gets each time: of this machine, its real path, inode, size, and times of change. A file
  /// that was written to, replaced or copied is another one. No byte of it is read for this.
  var derivedID: String {
    let parts = [
      "file", Self.machine, realPath, "\(stamp.inode)", "\(stamp.size)", "\(stamp.modified)", "\(stamp.changed)",
    ]
    return Self.digest(parts)
  }

  /// Names this user's uploads of this path: the same command goes on in the session of the one that broke off, and
  /// everybody else is another session.
  var derivedSession: String { Self.digest(["session", Self.machine, "\(getuid())", realPath]) }

  private static func digest(_ parts: [String]) -> String {
    String(Digest.hex(of: parts.joined(separator: "\0"), .sha256).prefix(32))
  }

  private static let machine: String = {
    if let file = fopen("/etc/machine-id", "re") {
      defer { fclose(file) }
      var line = [CChar](repeating: 0, count: 64)
      if fgets(&line, Int32(line.count), file) != nil {
        let id = String(decoding: line.prefix { $0 > 0x20 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        if !id.isEmpty { return id }
      }
    }
    var name = [CChar](repeating: 0, count: 256)
    gethostname(&name, name.count - 1)
    return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }()
}
