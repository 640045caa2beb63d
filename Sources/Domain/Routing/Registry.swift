internal import Reactor
public import Redis
public import Safeguards

/// Who is where: the records of clients and nodes in Redis.
///
/// Belongs to its loop. Every call is one round trip, however many records it is about. Every write that a stale owner
/// could make compares the epoch in Lua.
public final class Registry {
  /// A record that nobody has touched for so long is gone, and its client unknown.
  public static let recordLifetime: Duration = .seconds(7 * 24 * 3600)
  /// Tags of one client at most.
  public static let maximumTags = 32
  /// Bytes of a tag's name and of its value at most.
  public static let maximumTagBytes = 256

  /// The channel of Redis on which every change of a client's record is told, see `record(told:)`.
  public static let presenceChannel = "presence"

  let store: Store
  private let safeguards: Safeguards

  public init(_ redis: RedisClient, safeguards: Safeguards = .all) {
    store = Store(redis)
    self.safeguards = safeguards
  }

  /// Checks tags that came from outside.
  public static func validate(tags: [String: String]) throws(RoutingError) {
    guard tags.count <= maximumTags else { throw RoutingError(.invalid, "There are more than \(maximumTags) tags.") }
    for (name, value) in tags {
      guard !name.isEmpty, name.utf8.count <= maximumTagBytes, value.utf8.count <= maximumTagBytes else {
        throw RoutingError(.invalid, "A tag's name is empty, or longer than \(maximumTagBytes) bytes, or its value is.")
      }
    }
  }

  // MARK: Clients

  /// Makes a session the owner of its client's record; whoever owned it before no longer does. A hello that comes after
  /// that of a later stream changes nothing: see `Registered.newerStream`.
  public func register(_ registration: SessionRegistration) async throws(RoutingError) -> Registered {
    let isFenced = safeguards.contains(.fencing)
    var arguments = [
      registration.node, String(registration.nodeEpoch), registration.session, registration.lastSession,
      registration.peer, Registry.lifetime, String(isFenced ? registration.stream : 0),
      registration.logID, String(registration.logHead), isFenced && registration.isRestored ? "1" : "0",
    ]
    for (name, value) in registration.tags { arguments += [name, value] }
    let answer = try await store.one(
      .script(
        RegistryScripts.register, keys: [Key.client(registration.client), Key.cursor(registration.client)], arguments)
    ).elements
    if answer.count == 1 {
      return Registered(epoch: 0, previousNode: "", previousEpoch: 0, resumed: false, newerStream: answer[0].number)
    }
    guard answer.count == 9 else { throw RoutingError(.corrupt, "Redis answered a registration with something else.") }
    if answer[4].number == 0 { try await list(registration.client) }
    return Registered(
      epoch: answer[0].number, previousNode: answer[1].text, previousEpoch: answer[2].number,
      resumed: answer[3].number == 1,
      cursor: FleetPosition(
        logID: answer[5].text, acknowledged: answer[6].number, written: answer[7].number, judged: answer[8].number))
  }

  /// Puts a client that the registry didn't know into the list, and notes that in its record: the next registration is
  /// one call. After the record, not beside it: while Redis doesn't know the script yet, the entry would come first, and a
  /// reader of the list takes out entries without a record.
  private func list(_ client: String) async throws(RoutingError) {
    _ = try await store.one(.command(["ZADD", Key.clients, "0", client]))
    store.send(.script(RegistryScripts.listed, keys: [Key.client(client)], [])) { _ in
      // Without the note the next registration lists the client once more.
    }
  }

  /// A session that its node vouches for.
  public struct Refresh: Sendable {
    public var client: String
    public var epoch: Int64
    /// ms since the epoch.
    public var lastActive: Int64

    public init(client: String, epoch: Int64, lastActive: Int64) {
      self.client = client
      self.epoch = epoch
      self.lastActive = lastActive
    }
  }

  /// What a refresh has found.
  public struct Refreshed: Equatable, Sendable {
    public var ownership: Ownership
    /// The newest seq in the client's inbox; set when the session is held.
    public var inbox = InboxPosition(inboxID: "", seq: 0)
  }

  /// Keeps records alive and looks how far the inboxes are, in one pipeline. - Returns: one answer each, in order.
  public func refresh(
    _ sessions: [Refresh], nodeEpoch: Int64
  ) async -> [Result<Refreshed, RoutingError>] {
    let sessions = await fenced(sessions)
    let requests = sessions.map { session in
      Store.Request.script(
        RegistryScripts.refresh,
        keys: [Key.client(session.client), Key.inbox(session.client), Key.cursor(session.client)],
        [String(session.epoch), String(nodeEpoch), String(session.lastActive), Registry.lifetime])
    }
    return await store.all(requests).map { reply in
      reply.map { value in
        let answer = value.elements
        var refreshed = Refreshed(ownership: Ownership(answer.first?.number ?? 0))
        if answer.count == 3 { refreshed.inbox = InboxPosition(inboxID: answer[1].text, seq: answer[2].number) }
        return refreshed
      }
    }
  }

  /// Says that the client is away, in one pipeline. Records with another epoch stay as they are.
  public func release(_ sessions: [Refresh]) async -> [Result<Ownership, RoutingError>] {
    let sessions = await fenced(sessions)
    let requests = sessions.map { session in
      Store.Request.script(
        RegistryScripts.release, keys: [Key.client(session.client)],
        [String(session.epoch), String(session.lastActive), Registry.lifetime])
    }
    return await store.all(requests).map { reply in reply.map { Ownership($0.number) } }
  }

  /// The sessions as they are, for the scripts to compare their epochs. Without fencing each gets the epoch that stands, as
  /// if it owned the record.
  private func fenced(_ sessions: [Refresh]) async -> [Refresh] {
    guard !safeguards.contains(.fencing), let standing = try? await records(of: sessions.map(\.client)) else {
      return sessions
    }
    return zip(sessions, standing).map { session, record in
      Refresh(client: session.client, epoch: record?.epoch ?? session.epoch, lastActive: session.lastActive)
    }
  }

  /// Where clients are: their records in one round trip, those of their nodes in a second one.
  ///
  /// - Returns: one location each, in order.
  public func locate(_ clients: [String]) async throws(RoutingError) -> [Location] {
    let records = try await records(of: clients)
    let nodes = try await nodes(named: Set(records.compactMap { $0?.node }).filter { !$0.isEmpty })
    return records.map { record in
      guard let record else { return .unknown }
      guard let node = nodes[record.node], record.isHeld(by: node) else { return .offline }
      return .online(record, node)
    }
  }

  func records(of clients: [String]) async throws(RoutingError) -> [ClientRecord?] {
    let replies = await store.all(clients.map { .command(["HGETALL", Key.client($0)]) })
    var records: [ClientRecord?] = []
    records.reserveCapacity(clients.count)
    for (client, reply) in zip(clients, replies) { records.append(ClientRecord(id: client, try reply.get().pairs)) }
    return records
  }

  /// The records of those nodes whose leases live.
  public func nodes(named ids: some Collection<String>) async throws(RoutingError) -> [String: NodeRecord] {
    var nodes: [String: NodeRecord] = [:]
    for node in try await nodeRecords(of: Array(ids)) { if let node { nodes[node.id] = node } }
    return nodes
  }

  static let lifetime = String(recordLifetime.wholeMilliseconds)
}
