internal import GRPC
internal import Routing
internal import Schema

/// `DirectoryService`: the clients and the nodes, as the registry knows them.
final class DirectoryHandlers: PushV1.DirectoryServiceHandler {
  private let registry: Registry

  init(registry: Registry) {
    self.registry = registry
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
          after: after, limit: limit - clients.count, onlineOnly: request.onlineOnly)
        clients += page.items.map(DirectoryHandlers.info)
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

  private static func limit(_ size: Int32, _ token: String) throws(Status) -> Int {
    guard size >= 0 else { throw Status(.invalidArgument, "The page size is negative.") }
    guard token.isEmpty || Name.isValid(token) else {
      throw Status(.invalidArgument, "The page token is none of ours.")
    }
    return size == 0 ? Registry.maximumPage : min(Int(size), Registry.maximumPage)
  }

  private static func info(_ client: Registry.ListedClient) -> PushV1.ClientInfo {
    let record = client.record
    return PushV1.ClientInfo(
      clientID: record.id, online: client.isOnline, nodeID: record.node, sessionID: record.session,
      sessionEpoch: record.epoch, tags: record.tags, connectedAtMs: record.connectedAt,
      lastActiveMs: record.lastActive, peer: record.peer)
  }

  private static func info(_ node: NodeRecord) -> PushV1.NodeInfo {
    PushV1.NodeInfo(
      nodeID: node.id, address: node.address, partition: node.partition, epoch: node.epoch,
      leaseLeftMs: node.leaseLeft, clientCount: node.clientCount, startedAtMs: node.startedAt)
  }
}
