internal import Glibc

/// A redis-server process with a directory of its own.
///
/// `@unchecked Sendable`: one test uses it, from one place at a time.
public final class RedisServer: @unchecked Sendable {
  public let port: UInt16
  private let directory: String
  private let arguments: [String]
  public private(set) var process: ServerProcess

  /// Starts one and waits until it serves.
  public init(password: String? = nil, arguments: [String] = []) throws {
    let directory = try temporaryDirectory("redis")
    let rest =
      ["--bind", "127.0.0.1", "--dir", directory, "--save", "", "--enable-debug-command", "yes"]
      + (password.map { ["--requirepass", $0] } ?? []) + arguments
    (port, process) = try onFreePort { try RedisServer.start(["--port", "\($0)"] + rest) }
    self.directory = directory
    self.arguments = ["--port", "\(port)"] + rest
  }

  deinit {
    process.kill()
    removeDirectory(directory)
  }

  public var address: String { "127.0.0.1:\(port)" }

  /// Starts it again, on the same port, after `process.kill()` or `process.stop()`.
  public func restart() throws {
    process = try RedisServer.start(arguments)
  }

  private static func start(_ arguments: [String]) throws -> ServerProcess {
    let process = try ServerProcess("redis-server", arguments)
    _ = try process.line(containing: "Ready to accept connections")
    return process
  }
}
