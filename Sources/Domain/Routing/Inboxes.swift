public import Bytes
internal import Reactor
internal import Redis

/// The inboxes of clients in Redis: each at-least-once message stays until its client has acknowledged it, or it expires.
///
/// Belongs to its loop. Every call is one pipeline; each step of it is one Lua call.
public final class Inboxes {
  /// What one inbox keeps; past that its publishers are refused.
  public struct Limits: Sendable {
    public var messages = 10_000
    public var bytes = 16 << 20

    public init() {}
  }

  /// An inbox that nobody has touched for so long is gone, unless a message in it lives longer.
  public static let lifetime = Registry.recordLifetime
  /// Messages of one page at most.
  public static let pageMessages = 200
  /// Bytes of one page at most; a single message may be longer.
  public static let pageBytes = 512 << 10
  /// Settlements that one node has under way at once: each takes out up to a thousand messages.
  static let settlementsAtOnce = 100
  /// Positions of one client that are looked at.
  public static let maximumPositions = 16

  private let store: Store
  private let limits: Limits

  public init(_ registry: Registry, limits: Limits = Limits()) {
    store = registry.store
    self.limits = limits
  }

  /// What has become of a message that was to be kept.
  enum Appended: Equatable, Sendable {
    /// It is kept, from now on or from before.
    case kept(InboxPlace, node: String, nodeEpoch: Int64)
    /// The client has acknowledged it before.
    case acknowledged
    /// No client of this id is known.
    case unknown
    /// A named limit is reached; a sentence.
    case full(String)
    /// Its time was over.
    case expired
  }

  /// Appends messages, each to the inbox of its client, and looks up where the clients are.
  ///
  /// - Returns: one answer each, in order.
  func append(_ records: [PushRecord]) async -> [Result<Appended, RoutingError>] {
    let requests = records.map { record in
      Store.Request.script(
        InboxScripts.append, keys: Inboxes.keys(of: record.clientID) + [.string(Key.client(record.clientID))],
        [
          .string(record.messageID), .bytes(record.message), .integer(record.expiresAt), .string(Name.random()),
          .integer(Int64(limits.messages)), .integer(Int64(limits.bytes)),
          .integer(Inboxes.lifetime.wholeMilliseconds),
        ])
    }
    return zip(records, await store.all(requests)).map { record, reply in
      reply.flatMap { appended($0.elements, client: record.clientID) }
    }
  }

  private func appended(_ answer: [RedisValue], client: String) -> Result<Appended, RoutingError> {
    switch (answer.first?.number ?? -1, answer.count) {
    case (0, 6), (1, 6):
      let place = InboxPlace(inboxID: answer[3].text, seq: answer[1].number, previous: answer[2].number)
      return .success(.kept(place, node: answer[4].text, nodeEpoch: answer[5].number))
    case (2, _): return .success(.acknowledged)
    case (3, _): return .success(.unknown)
    case (4, 3):
      return .success(
        .full(
          "The inbox of the client is full: \(answer[1].number) messages with \(answer[2].number) bytes wait in it, "
            + "of at most \(limits.messages) with \(limits.bytes)."))
    case (5, _): return .success(.expired)
    default: return .failure(RoutingError(.corrupt, "Redis answered an append with something else."))
    }
  }

  /// Reads a page of a client's inbox, after the position that the caller knows in it; from the beginning where it knows
  /// none.
  public func read(
    _ client: String, after positions: [InboxPosition], messages: Int = pageMessages
  ) async throws(RoutingError) -> InboxPage {
    var arguments: [RedisArgument] = [
      .integer(Int64(messages)), .integer(Int64(Inboxes.pageBytes)), .string(Name.random()),
      .integer(Inboxes.lifetime.wholeMilliseconds),
    ]
    for position in positions.prefix(Inboxes.maximumPositions) {
      arguments += [.string(position.inboxID), .integer(position.seq)]
    }
    let answer = try await store.one(
      .script(InboxScripts.read, keys: Inboxes.keys(of: client), arguments)
    ).elements
    guard answer.count >= 5, answer.count % 3 == (answer.count == 5 ? 2 : 0) else {
      throw RoutingError(.corrupt, "Redis answered the reading of an inbox with something else.")
    }
    var page = InboxPage(
      inboxID: answer[0].text, head: answer[1].number, position: answer[2].number, written: answer[3].number,
      isComplete: answer[4].number == 1, messages: [])
    if answer.count > 5 { page.had = answer[5].elements.map(\.text) }
    for index in stride(from: 6, to: answer.count, by: 3) {
      page.messages.append(
        InboxMessage(
          seq: answer[index].number, messageID: answer[index + 1].text,
          message: answer[index + 2].asBytes ?? Bytes()))
    }
    return page
  }

  /// Notes what clients have acknowledged and what was written to them, in one pipeline.
  ///
  /// - Returns: one answer each, in order.
  public func settle(_ settlements: [Settlement]) async -> [Result<Settled, RoutingError>] {
    let requests = settlements.map { settlement in
      let place: [RedisArgument] = [
        .string(settlement.inboxID), .integer(settlement.acknowledged), .integer(settlement.written),
      ]
      return switch settlement.source {
      case .inbox:
        Store.Request.script(
          InboxScripts.settle, keys: Inboxes.keys(of: settlement.client),
          place + settlement.messageIDs.map { .string($0) })
      case .fleet:
        Store.Request.script(
          FleetLogScripts.settle, keys: [.string(Key.cursor(settlement.client))],
          place + [.integer(Inboxes.lifetime.wholeMilliseconds)])
      }
    }
    return await store.all(requests, atOnce: Inboxes.settlementsAtOnce).map { reply in
      reply.map { value in
        let answer = value.elements
        return Settled(messageIDs: answer.dropFirst().map(\.text), isComplete: answer.first?.number != 1)
      }
    }
  }

  /// Takes messages out of inboxes, in one pipeline.
  ///
  /// - Parameter messages: the client and the id of each.
  func withdraw(_ messages: [(client: String, messageID: String)]) async throws(RoutingError) {
    let requests = messages.map { message in
      Store.Request.script(
        InboxScripts.withdraw, keys: Inboxes.keys(of: message.client), [.string(message.messageID)])
    }
    for reply in await store.all(requests) { _ = try reply.get() }
  }

  private static func keys(of client: String) -> [RedisArgument] {
    let inbox = Key.inbox(client)
    return [.string(inbox), .string(inbox + ":messages"), .string(inbox + ":ids"), .string(inbox + ":expiry")]
  }
}

/// Where a message stands in its client's inbox.
public struct InboxPlace: Equatable, Sendable {
  /// New with each life of the inbox.
  public var inboxID: String
  /// Grows with each message, with gaps.
  public var seq: Int64
  /// The message before it: what stood between them is acknowledged or has expired. 0 where nothing stood before it.
  public var previous: Int64

  public init(inboxID: String, seq: Int64, previous: Int64) {
    self.inboxID = inboxID
    self.seq = seq
    self.previous = previous
  }
}

/// How far someone has come in an inbox: everything up to `seq`.
public struct InboxPosition: Equatable, Sendable {
  public var inboxID: String
  public var seq: Int64

  public init(inboxID: String, seq: Int64) {
    self.inboxID = inboxID
    self.seq = seq
  }
}

/// A message as it waits.
public struct InboxMessage: Equatable, Sendable {
  public var seq: Int64
  public var messageID: String
  /// A `push.v1.ServerMessage` without its place.
  public var message: Bytes

  public init(seq: Int64, messageID: String, message: Bytes) {
    self.seq = seq
    self.messageID = messageID
    self.message = message
  }
}

/// A piece of an inbox.
public struct InboxPage: Equatable, Sendable {
  /// Empty when the client has no inbox.
  public var inboxID: String
  /// The newest seq that was given in it.
  public var head: Int64
  /// Where the caller stood in this inbox; 0 when it knew another one only, or none.
  public var position: Int64
  /// How far any session has written.
  public var written: Int64
  /// Nothing follows.
  public var isComplete: Bool
  /// Messages up to the caller's position that nobody has acknowledged, by their ids.
  public var had: [String] = []
  public var messages: [InboxMessage]

  public init(
    inboxID: String, head: Int64, position: Int64, written: Int64, isComplete: Bool, messages: [InboxMessage]
  ) {
    self.inboxID = inboxID
    self.head = head
    self.position = position
    self.written = written
    self.isComplete = isComplete
    self.messages = messages
  }
}

/// What a node tells about a client's inbox, or about the client's cursor in the fleet's log.
public struct Settlement: Equatable, Sendable {
  public enum Source: Hashable, Sendable { case inbox, fleet }

  public var client: String
  public var source: Source
  /// The inbox, or the log.
  public var inboxID: String
  /// All up to there is acknowledged; 0 for nothing.
  public var acknowledged: Int64 = 0
  /// All up to there was written; 0 for nothing.
  public var written: Int64 = 0
  /// Messages of the inbox that are acknowledged by themselves.
  public var messageIDs: [String] = []

  public init(client: String, source: Source = .inbox, inboxID: String) {
    self.client = client
    self.source = source
    self.inboxID = inboxID
  }
}

/// What an inbox says to that.
public struct Settled: Equatable, Sendable {
  /// The messages that the acknowledged seq has taken out.
  public var messageIDs: [String]
  /// False: say it again, there is more to take out.
  public var isComplete: Bool
}
