internal import Reactor
internal import Redis

/// Nodes, their leases, and the partitions that they read.
extension Registry {
  /// Takes the node's name and writes its record. An earlier process of the same name loses it: its next renewal says so.
  ///
  /// - Returns: the node's epoch.
  public func acquireNode(
    _ id: String, address: String, partition: Int32, lease: Duration, startedAt: Int64, isDraining: Bool = false
  ) async throws(RoutingError) -> Int64 {
    let replies = await store.all([
      .script(
        RegistryScripts.acquireNode, keys: [Key.node(id)],
        [address, String(partition), String(lease.wholeMilliseconds), String(startedAt), isDraining ? "1" : "0"]),
      .command(["ZADD", Key.nodes, "0", id]),
    ])
    _ = try replies[1].get()
    return try replies[0].get().number
  }

  /// Extends the lease, and the partition's with it.
  ///
  /// - Returns: `.absent` when the lease had lapsed: then acquire the node anew, and vouch for its sessions.
  public func renewNode(
    _ id: String, epoch: Int64, topic: String, partition: Int32, partitions: Int, lease: Duration, clients: Int,
    isDraining: Bool = false
  ) async throws(RoutingError) -> Ownership {
    let milliseconds = String(lease.wholeMilliseconds)
    let replies = await store.all([
      .script(
        RegistryScripts.renewNode, keys: [Key.node(id)],
        [String(epoch), milliseconds, String(clients), isDraining ? "1" : "0"]),
      .script(
        RegistryScripts.leasePartition, keys: [Key.partitions(of: topic)],
        [id, String(partitions), milliseconds, String(partition)]),
    ])
    _ = try replies[1].get()
    return Ownership(try replies[0].get().number)
  }

  /// Ends the lease at once: the clients of the node are offline from now on.
  public func releaseNode(_ id: String, epoch: Int64, topic: String, partition: Int32) async throws(RoutingError) {
    let replies = await store.all([
      .script(RegistryScripts.releaseNode, keys: [Key.node(id)], [String(epoch)]),
      .script(RegistryScripts.releasePartition, keys: [Key.partitions(of: topic)], [id, String(partition)]),
    ])
    for reply in replies { _ = try reply.get() }
  }

  /// Leases a partition of a topic: the one that the node has from before, else a free one, else the one that the fewest
  /// nodes share.
  public func leasePartition(
    node: String, topic: String, partitions: Int, lease: Duration
  ) async throws(RoutingError) -> Int32 {
    let reply = try await store.one(
      .script(
        RegistryScripts.leasePartition, keys: [Key.partitions(of: topic)],
        [node, String(partitions), String(lease.wholeMilliseconds), ""]))
    return Int32(clamping: reply.number)
  }

  func nodeRecords(of ids: [String]) async throws(RoutingError) -> [NodeRecord?] {
    try Registry.nodeRecords(of: ids, from: await store.all(Registry.nodeRequests(of: ids)))
  }

  static func nodeRequests(of ids: [String]) -> [Store.Request] {
    ids.flatMap { [.command(["HGETALL", Key.node($0)]), .command(["PTTL", Key.node($0)])] }
  }

  static func nodeRecords(
    of ids: [String], from replies: [Result<RedisValue, RoutingError>]
  ) throws(RoutingError) -> [NodeRecord?] {
    var records: [NodeRecord?] = []
    records.reserveCapacity(ids.count)
    for (index, id) in ids.enumerated() {
      let fields = try replies[2 * index].get().pairs
      records.append(NodeRecord(id: id, fields, leaseLeft: try replies[2 * index + 1].get().number))
    }
    return records
  }
}
