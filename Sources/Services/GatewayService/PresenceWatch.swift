internal import GRPC
internal import Reactor
internal import Routing
internal import Schema
internal import Telemetry

/// One call of `WatchClients`: the state of its clients, then what changes. Belongs to the node's loop.
///
/// All that is told goes through one queue, so it is told in the order in which it was found out. What comes in messages
/// is bounded there; a list and the clients of a node are gone through a slice at a time, as the caller takes them.
final class PresenceWatch {
  /// Changes that wait at most beside those that are being written; past that the caller is told so and ended.
  static let maximumQueued = 10_000
  /// Clients of a node that are looked at before what was found out is written.
  static let slice = 500
  /// Before a list that could not be read is read again.
  static let retryDelay: Duration = .seconds(1)

  /// Whom it is about.
  struct Filter {
    static let maximumIDs = 1000
    var ids: Set<String> = []
    var tags: [String: String] = [:]

    func matches(_ record: ClientRecord) -> Bool {
      (ids.isEmpty || ids.contains(record.id)) && tags.allSatisfy { record.tags[$0.key] == $0.value }
    }
  }

  private let feed: PresenceFeed
  private let filter: Filter
  private var table = PresenceTable()
  private var queue: [PushV1.ClientEvent] = []
  private var changedNodes: Set<String> = []
  /// The subscription behind which the list was read; 0: not yet.
  private var readBehind = 0
  private var ending: Status?
  private let wakeup = Wakeup()

  init(feed: PresenceFeed, filter: Filter) {
    self.feed = feed
    self.filter = filter
  }

  // MARK: What the feed tells

  func heard(_ record: ClientRecord, isHeld: Bool) {
    guard ending == nil else { return }
    let isMatch = filter.matches(record)
    guard isMatch || table.record(of: record.id) != nil else { return }
    let change = table.saw(record, isHeld: isHeld)
    if !isMatch { table.forget(record.id) }
    guard let change else { return }
    guard queue.count < PresenceWatch.maximumQueued else {
      return end(
        Status(
          .resourceExhausted, "More than \(PresenceWatch.maximumQueued) changes wait: this caller reads too slowly.",
          retryAfter: .seconds(1)))
    }
    add(change, record, because: record.node.isEmpty ? "disconnected" : "connected to \(record.node)")
  }

  func leasesChanged(_ nodes: [String]) {
    changedNodes.formUnion(nodes)
    wake()
  }

  func wake() { wakeup.fire() }

  func end(_ status: Status) {
    guard ending == nil else { return }
    ending = status
    queue = []
    wake()
  }

  // MARK: The story

  /// Writes until the call ends. - Throws: the status that it ends with.
  func run(_ responses: ResponseWriter<PushV1.ClientEvent>) async throws -> Never {
    while true {
      if let ending { throw ending }
      if !queue.isEmpty {
        try await flush(responses)
      } else if feed.subscriptions != readBehind {
        try await readList(responses)
      } else if let node = changedNodes.popFirst() {
        try await lookAtClients(of: node, responses)
      } else {
        await wakeup.wait()
      }
    }
  }

  private func flush(_ responses: ResponseWriter<PushV1.ClientEvent>) async throws {
    while !queue.isEmpty {
      let batch = queue
      queue = []
      for event in batch {
        try await responses.write(event)
        if let ending { throw ending }
      }
    }
  }

  private func readList(_ responses: ResponseWriter<PushV1.ClientEvent>) async throws {
    let behind = feed.subscriptions
    table.beginReading()
    do throws(RoutingError) {
      var pages = Pages(filter: filter)
      while let page = try await pages.next(feed.registry) {
        for client in page.clients { take(client, askedAt: page.askedAt) }
        do { try await flush(responses) } catch { return end(Status(error)) }
      }
    } catch {
      feed.log.debug("clients not read", ["error": error.message])
      return try await feed.loop.sleep(for: PresenceWatch.retryDelay)
    }
    for record in table.endReading() { add(.offline, record, because: "its record is gone") }
    if readBehind == 0 {
      queue.append(PushV1.ClientEvent(atMs: EventLoop.wallClockMilliseconds(), snapshotEnd: true))
    }
    readBehind = behind
  }

  private func take(_ client: Registry.ListedClient, askedAt: Int64) {
    let record = client.record
    let isMatch = filter.matches(record)
    guard isMatch || table.record(of: record.id) != nil else { return }
    if client.isOnline { feed.vouched(record, at: askedAt) }
    let change = table.saw(record, isHeld: client.isOnline)
    if !isMatch { table.forget(record.id) }
    if let change { add(change, record, because: "", isSnapshot: readBehind == 0) }
  }

  private func lookAtClients(of node: String, _ responses: ResponseWriter<PushV1.ClientEvent>) async throws {
    var rest = table.clients(of: node)[...]
    while !rest.isEmpty {
      for client in rest.prefix(PresenceWatch.slice) {
        guard let change = table.settle(client, isHeld: feed.hold), let record = table.record(of: client) else {
          continue
        }
        let reason = change == .offline ? "the lease of \(record.node) has ended" : "\(record.node) is back"
        add(change, record, because: reason)
      }
      rest = rest.dropFirst(PresenceWatch.slice)
      try await flush(responses)
    }
  }

  private func add(
    _ change: PresenceChange, _ record: ClientRecord, because reason: String, isSnapshot: Bool = false
  ) {
    queue.append(
      PushV1.ClientEvent(
        event: PushV1.NotifyEvent(type: change.rawValue, details: reason),
        client: DirectoryHandlers.info(record, isOnline: change != .offline), atMs: EventLoop.wallClockMilliseconds(),
        snapshot: isSnapshot))
    wake()
  }

  /// The clients of a filter, page by page.
  private struct Pages {
    private let ids: [String]?
    private var after: String? = ""

    init(filter: Filter) {
      ids = filter.ids.isEmpty ? nil : filter.ids.sorted()
    }

    mutating func next(
      _ registry: Registry
    ) async throws(RoutingError) -> (clients: [Registry.ListedClient], askedAt: Int64)? {
      guard let start = after else { return nil }
      let askedAt = EventLoop.monotonicNanoseconds()
      if let ids {
        after = nil
        return (try await registry.clients(ids).compactMap { $0 }, askedAt)
      }
      let page = try await registry.clients(after: start, limit: Registry.maximumPage)
      after = page.next
      return (page.items, askedAt)
    }
  }
}
