internal import Redis

/// Lists of clients and nodes, in pages ordered by id.
extension Registry {
  /// Records of one page at most.
  public static let maximumPage = 1000

  public struct Page<Item: Sendable>: Sendable {
    public var items: [Item]
    /// The id to go on after; nil on the last page.
    public var next: String?
  }

  /// A client with whether it is online.
  public struct ListedClient: Sendable {
    public var record: ClientRecord
    public var isOnline: Bool
  }

  /// Clients in the order of their ids.
  ///
  /// - Parameters:
  ///   - after: the id that the page before ended with; "" for the first page.
  ///   - onlineOnly: leaves out those who are away. Pages may then be short, before the last one too.
  ///   - tags: leaves out those who don't have all of them; likewise.
  public func clients(
    after: String, limit: Int, onlineOnly: Bool = false, tags: [String: String] = [:]
  ) async throws(RoutingError) -> Page<ListedClient> {
    let (ids, next) = try await page(of: Key.clients, after: after, limit: limit)
    let found = try await clients(ids)
    await forget(zip(ids, found).compactMap { $1 == nil ? $0 : nil })
    return Page(
      items: found.compactMap { $0 }.filter { ($0.isOnline || !onlineOnly) && $0.record.tags.matches(tags) }, next: next
    )
  }

  /// Clients by their ids, in two round trips. - Returns: one each, in order; nil for one that isn't known.
  public func clients(_ ids: [String]) async throws(RoutingError) -> [ListedClient?] {
    let records = try await records(of: ids)
    let nodes = try await nodes(named: Set(records.compactMap { $0?.node }).filter { !$0.isEmpty })
    return records.map { record in
      record.map { ListedClient(record: $0, isOnline: $0.isHeld(by: nodes[$0.node])) }
    }
  }

  /// The nodes whose leases live, in the order of their ids.
  public func nodes(after: String = "", limit: Int = maximumPage) async throws(RoutingError) -> Page<NodeRecord> {
    let (ids, next) = try await page(of: Key.nodes, after: after, limit: limit)
    return Page(items: try await nodeRecords(of: ids).compactMap { $0 }, next: next)
  }

  private func page(
    of index: String, after: String, limit: Int
  ) async throws(RoutingError) -> (ids: [String], next: String?) {
    let limit = min(max(1, limit), Registry.maximumPage)
    let start = after.isEmpty ? "-" : "(" + after
    let reply = try await store.one(
      .command(["ZRANGE", index, start, "+", "BYLEX", "LIMIT", "0", String(limit)]))
    let ids = reply.elements.map(\.text)
    return (ids, ids.count == limit ? ids.last : nil)
  }

  /// Takes clients without a record out of the list, and puts those back that have registered meanwhile: a record is
  /// written before its entry, so whoever isn't seen here comes after this with an entry of its own.
  private func forget(_ ids: [String]) async {
    guard !ids.isEmpty else { return }
    _ = await store.all([.command(["ZREM", Key.clients] + ids)])
    guard let records = try? await records(of: ids) else { return }
    let returned = records.compactMap { $0?.id }
    if !returned.isEmpty { _ = await store.all([.command(["ZADD", Key.clients] + returned.flatMap { ["0", $0] })]) }
  }
}
