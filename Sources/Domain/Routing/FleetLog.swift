internal import Bytes
internal import Reactor
internal import Redis

/// The fleet's log in Redis: messages to tags and to all, each once, however many clients it is for. How far each client
/// is in it stands in the client's cursor.
///
/// Belongs to its loop. Bounded by trimming the oldest entries; each call is one Lua call or command.
public final class FleetLog {
  /// What the log keeps; past that its oldest entries go, and clients that haven't had them are told of a gap.
  public struct Limits: Sendable {
    public var entries = 100_000
    public var bytes = 64 << 20

    public init() {}
  }

  /// A log that nobody has appended to for so long is gone, unless an entry in it lives longer.
  public static let lifetime = Registry.recordLifetime
  /// Entries of one page at most.
  public static let pageEntries = 500
  /// Bytes of one page at most; a single entry may be longer.
  public static let pageBytes = 512 << 10
  /// What its positions are called in `push.v1.Position`.
  public static let source = "fleet"

  private let store: Store
  private let limits: Limits

  public init(_ registry: Registry, limits: Limits = Limits()) {
    store = registry.store
    self.limits = limits
  }

  /// What has become of a record that was to be kept.
  enum Appended: Equatable, Sendable {
    /// It is kept, from now on or from before; these other messages were trimmed for it.
    case kept(InboxPlace, trimmed: [String])
    /// It was kept before, and is removed by now.
    case removed
    /// Its time was over.
    case expired
  }

  /// Appends a record, once.
  func append(_ record: PushRecord) async throws(RoutingError) -> Appended {
    let answer = try await store.one(
      .script(
        FleetLogScripts.append, keys: FleetLog.keys,
        [
          .string(record.messageID), .bytes(record.encoded()), .integer(record.expiresAt), .string(Name.random()),
          .integer(Int64(limits.entries)), .integer(Int64(limits.bytes)),
          .integer(FleetLog.lifetime.wholeMilliseconds),
        ])
    ).elements
    switch (answer.first?.number ?? -1, answer.count) {
    case (0...1, 4...):
      let place = InboxPlace(inboxID: answer[3].text, seq: answer[1].number, previous: answer[2].number)
      return .kept(place, trimmed: answer.dropFirst(4).map(\.text))
    case (2, _): return .removed
    case (5, _): return .expired
    default: throw RoutingError(.corrupt, "Redis answered an append to the fleet's log with something else.")
    }
  }

  /// Whether a message was appended before, and is perhaps removed by now.
  func knows(_ messageID: String) async throws(RoutingError) -> Bool {
    !(try await store.one(.command(["ZSCORE", Key.fleetLog + ":ids", messageID])).isNull)
  }

  /// Takes a message out. - Returns: whether it was there.
  func withdraw(_ messageID: String) async throws(RoutingError) -> Bool {
    try await store.one(
      .script(FleetLogScripts.withdraw, keys: FleetLog.keys, [.string(messageID)])
    ).number == 1
  }

  /// How far the log is.
  public struct Head: Equatable, Sendable {
    /// Empty when there is no log.
    public var logID: String
    /// The newest seq that was given in it.
    public var seq: Int64
    /// Entries up to there were removed for want of room.
    public var trimmed: Int64
    /// How many entries were taken out of it.
    public var withdrawn: Int64
  }

  public func head() async throws(RoutingError) -> Head {
    try FleetLog.head(
      try await store.one(.command(["HMGET", Key.fleetLog, "id", "seq", "trimmed", "withdrawn"])).elements)
  }

  /// Finds where the newest part begins that is within limits: everything after the seq that comes with the head.
  public func findTail(entries: Int, bytes: Int) async throws(RoutingError) -> (head: Head, start: Int64) {
    let answer = try await store.one(
      .script(FleetLogScripts.findTail, keys: FleetLog.keys, [.integer(Int64(entries)), .integer(Int64(bytes))])
    ).elements
    guard answer.count == 5 else {
      throw RoutingError(.corrupt, "Redis answered a search in the fleet's log with something else.")
    }
    return (try FleetLog.head(answer), answer[4].number)
  }

  /// A piece of the log, in order.
  public struct Page: Sendable {
    public var head: Head
    /// Nothing follows.
    public var isComplete: Bool
    public var entries: [(seq: Int64, record: PushRecord)]
    /// The page holds everything up to there.
    public var end: Int64
  }

  /// Reads a page after a position. An entry that can't be read is left out.
  public func read(after seq: Int64, entries: Int = pageEntries) async throws(RoutingError) -> Page {
    let answer = try await store.one(
      .script(
        FleetLogScripts.read, keys: FleetLog.keys,
        [.integer(seq), .integer(Int64(entries)), .integer(Int64(FleetLog.pageBytes))])
    ).elements
    guard answer.count >= 5, answer.count % 2 == 1 else {
      throw RoutingError(.corrupt, "Redis answered the reading of the fleet's log with something else.")
    }
    let head = try FleetLog.head(answer)
    var page = Page(head: head, isComplete: answer[4].number == 1, entries: [], end: head.seq)
    for index in stride(from: 5, to: answer.count, by: 2) {
      guard let record = try? PushRecord(encoded: answer[index + 1].asBytes ?? Bytes()) else { continue }
      page.entries.append((answer[index].number, record))
    }
    if !page.isComplete { page.end = answer[answer.count - 2].number }
    return page
  }

  private static func head(_ answer: [RedisValue]) throws(RoutingError) -> Head {
    guard answer.count >= 4 else {
      throw RoutingError(.corrupt, "Redis answered a look at the fleet's log with something else.")
    }
    return Head(
      logID: answer[0].text, seq: answer[1].number, trimmed: answer[2].number, withdrawn: answer[3].number)
  }

  private static var keys: [RedisArgument] {
    ["", ":entries", ":ids", ":expiry"].map { .string(Key.fleetLog + $0) }
  }
}

/// How far a client is in the fleet's log, as its cursor says.
public struct FleetPosition: Equatable, Sendable {
  /// Empty when the log did not exist.
  public var logID: String
  /// Everything up to there is done with.
  public var acknowledged: Int64
  /// How far any session has written.
  public var written: Int64
  /// Up to there the rows of a job say whether the client is a member: its tags have changed since.
  public var judged: Int64

  public init(logID: String = "", acknowledged: Int64 = 0, written: Int64 = 0, judged: Int64 = 0) {
    self.logID = logID
    self.acknowledged = acknowledged
    self.written = written
    self.judged = judged
  }
}
