internal import CLinux
internal import Glibc

/// A failed system call: what was called, and errno.
public struct IOError: Error, Equatable, Sendable, CustomStringConvertible {
  /// errno as the call left it.
  public let code: Int32
  /// The call and, where it helps, its object: `connect 127.0.0.1:6379`.
  public let call: String

  public init(code: Int32, call: String) {
    self.code = code
    self.call = call
  }

  /// The error of the call that has just failed on this thread.
  static func last(_ call: String) -> IOError { IOError(code: errno, call: call) }

  public var description: String { "\(call): \(String(cString: strerror(code)))" }

  /// ETIMEDOUT: the deadline of a connect ended.
  public var isTimeout: Bool { code == ETIMEDOUT }
}

/// The one way through errno: runs a call that returns -1 for an error, again after EINTR.
@discardableResult
func system(_ call: @autoclosure () -> String, _ body: () -> Int32) throws(IOError) -> Int32 {
  while true {
    let result = body()
    if result >= 0 { return result }
    if errno != EINTR { throw IOError.last(call()) }
  }
}
