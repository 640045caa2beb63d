internal import Glibc

/// A devbroker process, or the Kafka that KAFKA_BOOTSTRAP names.
///
/// `@unchecked Sendable`: one test uses it, from one place at a time.
public final class Broker: @unchecked Sendable {
  public let bootstrap: String
  private let arguments: [String]
  /// nil where the broker isn't ours.
  public private(set) var process: ServerProcess?

  /// Whether the tests run against a Kafka that they didn't start: it can't be stopped, and creates topics on request.
  public static var isOutside: Bool { getenv("KAFKA_BOOTSTRAP") != nil }

  /// - Parameter topics: `name:partitions`, made by the devbroker; elsewhere the test makes them.
  public init(topics: [String]) throws {
    if let outside = getenv("KAFKA_BOOTSTRAP") {
      bootstrap = String(cString: outside)
      arguments = []
      return
    }
    let rest = topics.flatMap { ["--topic", $0] }
    let (port, (process, address)) = try onFreePort { port in
      let process = try ServerProcess("\(builtProducts())/devbroker", ["--port", "\(port)"] + rest)
      return (process, try process.line(containing: "127.0.0.1:"))
    }
    arguments = ["--port", "\(port)"] + rest
    bootstrap = address
    self.process = process
  }

  /// Starts the devbroker again, empty, at the same address.
  public func restart() throws {
    let process = try ServerProcess("\(builtProducts())/devbroker", arguments)
    _ = try process.line(containing: "127.0.0.1:")
    self.process = process
  }
}
