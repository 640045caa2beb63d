internal import Glibc

/// What the endpoint's own machine refuses. The message is a sentence for logs and reports.
public struct AgentError: Error, Sendable, Hashable, CustomStringConvertible {
  public enum Code: Sendable, Hashable {
    /// The directory can't be used.
    case directory
    /// Another agent works in the directory.
    case locked
    /// A name or an id in a notice that is not taken.
    case badNotice
    /// The disk or the quota is full.
    case full
    /// Another failed call.
    case io
  }

  public let code: Code
  public let message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  /// The error of a system call that has just failed.
  static func system(_ what: String, errno number: Int32) -> AgentError {
    let code: Code = [ENOSPC, EDQUOT, EFBIG].contains(number) ? .full : .io
    return AgentError(code, "could not \(what): \(String(cString: strerror(number)))")
  }

  public var description: String { message }
}

/// Calls again while a signal interrupts, and turns -1 into an error.
@discardableResult
func checked<T: SignedInteger>(_ what: @autoclosure () -> String, _ call: () -> T) throws(AgentError) -> T {
  while true {
    let result = call()
    if result >= 0 { return result }
    let number = errno
    if number != EINTR { throw .system(what(), errno: number) }
  }
}
