/// What can go wrong between a message and its client.
public struct RoutingError: Error, Equatable, Sendable, CustomStringConvertible {
  public enum Code: Sendable {
    /// A name or a number that is refused before anything is touched.
    case invalid
    /// No such client, node or job.
    case notFound
    /// The same id stands already, with another content.
    case conflict
    /// A named limit is reached.
    case exhausted
    /// Redis or Kafka can't be reached, or did not answer in time. A retry repeats every step.
    case unavailable
    /// A record in a store that can't be read.
    case corrupt
  }

  public let code: Code
  /// A sentence for whoever reads a status or a log.
  public let message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { message }
}
