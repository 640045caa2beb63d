/// Which texts may name clients, nodes and jobs.
///
/// The names stand in keys of Redis, in headers of Kafka and in logs, so the alphabet is strict: printable ASCII without
/// the space, `/` (it parts a message id), `{` and `}` (they mark hash tags), quotes and the backslash.
public enum Name {
  /// The longest name, in bytes.
  public static let maximumBytes = 128

  /// Checks a name that came from outside.
  ///
  /// - Parameter what: what is named, for the sentence: "client id".
  /// - Throws: `.invalid` with a sentence that doesn't repeat the text.
  public static func validate(_ text: String, as what: String) throws(RoutingError) {
    guard !text.isEmpty else { throw RoutingError(.invalid, "The \(what) is empty.") }
    guard text.utf8.count <= maximumBytes else {
      throw RoutingError(.invalid, "The \(what) is longer than \(maximumBytes) bytes.")
    }
    guard text.utf8.allSatisfy(isAllowed) else {
      throw RoutingError(
        .invalid,
        "The \(what) holds a character that is not allowed: printable ASCII without space, quotes, \\, /, { and }.")
    }
  }

  public static func isValid(_ text: String) -> Bool {
    !text.isEmpty && text.utf8.count <= maximumBytes && text.utf8.allSatisfy(isAllowed)
  }

  private static func isAllowed(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "/"), UInt8(ascii: "{"), UInt8(ascii: "}"), UInt8(ascii: "\\"): false
    case UInt8(ascii: "\""), UInt8(ascii: "'"), UInt8(ascii: "`"): false
    default: byte > 0x20 && byte < 0x7F
    }
  }

  /// A fresh name of 128 random bits, as 32 hexadecimal digits.
  public static func random() -> String {
    var generator = SystemRandomNumberGenerator()
    var digits: [UInt8] = []
    digits.reserveCapacity(32)
    for _ in 0..<2 {
      let bits = generator.next()
      for shift in stride(from: 60, through: 0, by: -4) {
        let digit = UInt8(truncatingIfNeeded: bits >> UInt64(shift)) & 0xF
        digits.append(digit < 10 ? 0x30 + digit : 0x57 + digit)
      }
    }
    return String(decoding: digits, as: UTF8.self)
  }
}

/// The id of a message: `job/client`, so that the same message has the same id at every delivery, or the job alone where
/// every client gets the same bytes.
public struct MessageID: Hashable, Sendable, CustomStringConvertible {
  public let job: String
  /// nil for a message to all.
  public let client: String?

  public init(job: String, client: String?) {
    self.job = job
    self.client = client
  }

  /// nil when the text is no such id.
  public init?(_ text: String) {
    let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    guard parts.allSatisfy(Name.isValid) else { return nil }
    self.init(job: parts[0], client: parts.count == 2 ? parts[1] : nil)
  }

  public var description: String { client.map { "\(job)/\($0)" } ?? job }
}

/// The keys in Redis. What stands in `{}` is the hash tag: the keys of one Lua call share it.
enum Key {
  static func client(_ id: String) -> String { "client:{\(id)}" }
  static func inbox(_ client: String) -> String { "inbox:{\(client)}" }
  /// How far a client is in the fleet's log.
  static func cursor(_ client: String) -> String { "cursor:{\(client)}" }
  static func node(_ id: String) -> String { "node:{\(id)}" }
  /// The log of messages to tags and to all.
  static let fleetLog = "log:{fleet}"
  /// A set of all client ids that have a record, or had one not long ago.
  static let clients = "index:{clients}"
  static let nodes = "index:{nodes}"
  static func channel(_ name: String) -> String { "channel:{\(name)}" }
  /// The leases of a topic's partitions: a sorted set of `partition:node` by the time when the lease ends.
  static func partitions(of topic: String) -> String { "partitions:{\(topic)}" }

  static func job(_ id: String) -> String { "job:{\(id)}" }
  /// A job's clients by the ordinal of the last change of their rows.
  static func rows(of job: String) -> String { "job:{\(job)}:rows" }
  static func row(of job: String, _ client: String) -> String { "job:{\(job)}:row:\(client)" }
  /// Job ids by the time of their submission.
  static let jobs = "index:{jobs}"
  /// Job ids by the time when rows of theirs are to end that nobody has ended by then.
  static let deadlines = "index:{deadlines}"
}
