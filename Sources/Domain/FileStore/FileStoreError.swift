internal import Glibc

/// What can go wrong below the shared directory, or with a name that was to lead there.
///
/// `message` is a sentence for whoever reads a status or a log; it never holds a path of the server.
public struct FileStoreError: Error, Sendable, Hashable, CustomStringConvertible {
  public enum Code: Sendable, Hashable {
    /// An id, a name or a number that is refused before anything is touched.
    case invalid
    /// No such file.
    case notFound
    /// The name is taken by another file.
    case exists
    /// The disk or the quota is full (ENOSPC, EDQUOT, EFBIG).
    case full
    /// What stands on the disk isn't what was recorded about it.
    case corrupt
    /// Any other error of a system call.
    case io
  }

  public let code: Code
  public let message: String
  /// The system's error number, 0 when no call failed.
  public let errno: Int32

  public init(_ code: Code, _ message: String, errno: Int32 = 0) {
    self.code = code
    self.message = message
    self.errno = errno
  }

  /// The error of a system call that has just failed.
  ///
  /// - Parameter what: what was tried, as in "write the part file".
  static func system(_ what: String, errno number: Int32) -> FileStoreError {
    let code: Code =
      switch number {
      case ENOENT: .notFound
      case EEXIST: .exists
      case ENOSPC, EDQUOT, EFBIG: .full
      default: .io
      }
    return FileStoreError(code, "Could not \(what): \(String(cString: strerror(number))).", errno: number)
  }

  public var description: String { message }
}

/// Calls again while a signal interrupts, and turns -1 into an error.
@discardableResult
func retrying<T: SignedInteger>(_ what: @autoclosure () -> String, _ call: () -> T) throws(FileStoreError) -> T {
  while true {
    let result = call()
    if result >= 0 { return result }
    let number = Glibc.errno
    if number == EINTR { continue }
    throw .system(what(), errno: number)
  }
}
