/// What can go wrong between this process and Redis.
public struct RedisError: Error, Equatable, Sendable, CustomStringConvertible {
  public enum Code: Equatable, Sendable {
    /// Redis answered with an error; `message` is its text, `replyKind` its first word.
    case reply
    /// No answer within `commandTimeout`; the connection is given up.
    case timedOut
    /// The connection broke, or was given up because an older command had no answer.
    case connectionLost
    /// No connection came within `commandTimeout`: the command was never sent.
    case notConnected
    /// `maxOutstandingCommands` or `maxUnsentBytes` is reached: the command was never sent.
    case tooManyOutstanding
    /// What came is not Redis's protocol.
    case protocolViolation
    /// The address can't be read.
    case badAddress
    /// The answer has another shape than the caller asked for.
    case unexpectedReply
    /// The client was closed.
    case closed
  }

  public let code: Code
  /// A sentence for people.
  public let message: String
  /// Whether Redis may have executed the command all the same. After an error reply a script may have written before it
  /// failed; a plain command hasn't.
  public let mayHaveExecuted: Bool

  public init(code: Code, message: String, mayHaveExecuted: Bool = false) {
    self.code = code
    self.message = message
    self.mayHaveExecuted = mayHaveExecuted
  }

  /// The first word of an error reply: `WRONGTYPE`, `NOSCRIPT`, or what a script's `redis.error_reply` begins with.
  public var replyKind: String? {
    code == .reply ? String(message.prefix { $0 != " " }) : nil
  }

  public var description: String { message }
}
