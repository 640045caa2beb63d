internal import GRPC
internal import Routing
internal import Schema

/// `DirectoryService`: the clients and the nodes, as the registry knows them.
final class DirectoryHandlers: PushV1.DirectoryServiceHandler {
  private let registry: Registry
  private let presence: PresenceFeed

  init(registry: Registry, presence: PresenceFeed) {
    self.registry = registry
    self.presence = presence
  }

  func listClients(
    _ request: PushV1.ListClientsRequest, _ context: ServerContext
  ) async throws -> PushV1.ListClientsResponse {
    let limit = try DirectoryHandlers.limit(request.pageSize, request.pageToken)
    return try await translated { () async throws(RoutingError) in
      var clients: [PushV1.ClientInfo] = []
      var after = request.pageToken
      while true {
        let page = try await registry.clients(
          after: after, limit: limit - clients.count, onlineOnly: request.onlineOnly, tags: request.tags)
        clients += page.items.map { DirectoryHandlers.info($0.record, isOnline: $0.isOnline) }
        guard let next = page.next else { return PushV1.ListClientsResponse(clients: clients) }
        guard clients.count < limit else { return PushV1.ListClientsResponse(clients: clients, nextPageToken: next) }
        after = next
      }
    }
  }

  func listNodes(_ request: PushV1.ListNodesRequest, _ context: ServerContext) async throws -> PushV1.ListNodesResponse
  {
    let limit = try DirectoryHandlers.limit(request.pageSize, request.pageToken)
    return try await translated { () async throws(RoutingError) in
      let page = try await registry.nodes(after: request.pageToken, limit: limit)
      return PushV1.ListNodesResponse(nodes: page.items.map(DirectoryHandlers.info), nextPageToken: page.next ?? "")
    }
  }

  func watchClients(
    _ request: PushV1.WatchClientsRequest, _ responses: ResponseWriter<PushV1.ClientEvent>, _ context: ServerContext
  ) async throws {
    guard request.clientIDs.count <= PresenceWatch.Filter.maximumIDs else {
      throw Status(.invalidArgument, "There are more than \(PresenceWatch.Filter.maximumIDs) client ids.")
    }
    do throws(RoutingError) {
      for id in request.clientIDs { try Name.validate(id, as: "client id") }
      try Registry.validate(tags: request.tags)
    } catch {
      throw Status(.invalidArgument, error.message)
    }
    let filter = PresenceWatch.Filter(ids: Set(request.clientIDs), tags: request.tags)
    let watch = PresenceWatch(feed: presence, filter: filter)
    try presence.add(watch)
    defer { presence.remove(watch) }
    context.onCancel { watch.end(Status(.cancelled, "the call is over")) }
    responses.sendHeaders()
    try await watch.run(responses)
  }

  private static func limit(_ size: Int32, _ token: String) throws(Status) -> Int {
    guard size >= 0 else { throw Status(.invalidArgument, "The page size is negative.") }
    guard token.isEmpty || Name.isValid(token) else {
      throw Status(.invalidArgument, "The page token is none of ours.")
    }
    return size == 0 ? Registry.maximumPage : min(Int(size), Registry.maximumPage)
  }

  static func info(_ record: ClientRecord, isOnline: Bool) -> PushV1.ClientInfo {
    PushV1.ClientInfo(
      clientID: record.id, online: isOnline, nodeID: record.node, sessionID: record.session,
      sessionEpoch: record.epoch, tags: record.tags, connectedAtMs: record.connectedAt,
      lastActiveMs: record.lastActive, peer: record.peer)
  }

  private static func info(_ node: NodeRecord) -> PushV1.NodeInfo {
    PushV1.NodeInfo(
      nodeID: node.id, address: node.address, partition: node.partition, epoch: node.epoch,
      leaseLeftMs: node.leaseLeft, clientCount: node.clientCount, startedAtMs: node.startedAt, draining: node.isDraining
    )
  }
}
