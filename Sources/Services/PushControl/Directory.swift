internal import GRPC
internal import Reactor
internal import Schema

extension Control {
  /// Prints the clients that the registry knows.
  ///
  /// - Parameter tags: leaves out those who don't have all of them.
  public func clients(onlineOnly: Bool, tags: [String: String] = [:]) async -> Int32 {
    await command {
      let clients = try await self.gateways.call { channel in
        var clients: [PushV1.ClientInfo] = []
        var token = ""
        repeat {
          let page = try await PushV1.DirectoryServiceClient(channel).listClients(
            .init(pageToken: token, onlineOnly: onlineOnly, tags: tags), options: self.callOptions)
          clients += page.clients
          token = page.nextPageToken
        } while !token.isEmpty
        return clients
      }
      try self.printResult(ClientsReport(clients: clients.map { .init($0) }), people: Self.table(clients))
      return true
    }
  }

  static func table(_ clients: [PushV1.ClientInfo]) -> String {
    columns(
      ["CLIENT", "STATE", "NODE", "LAST ACTIVE", "PEER", "TAGS"],
      clients.map { client in
        let tags = client.tags.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ",")
        return [
          client.clientID, client.online ? "online" : "offline", client.nodeID, ago(client.lastActiveMs), client.peer,
          tags,
        ]
      })
  }

  /// Prints the gateways that hold a lease.
  public func nodes() async -> Int32 {
    await command {
      let nodes = try await self.gateways.call { channel in
        var nodes: [PushV1.NodeInfo] = []
        var token = ""
        repeat {
          let page = try await PushV1.DirectoryServiceClient(channel).listNodes(
            .init(pageToken: token), options: self.callOptions)
          nodes += page.nodes
          token = page.nextPageToken
        } while !token.isEmpty
        return nodes
      }
      try self.printResult(
        NodesReport(nodes: nodes.map { .init($0) }),
        people: columns(
          ["NODE", "ADDRESS", "PARTITION", "CLIENTS", "LEASE LEFT", "STARTED", "STATE"],
          nodes.map { node in
            [
              node.nodeID, node.address, "\(node.partition)", "\(node.clientCount)",
              readableSeconds(node.leaseLeftMs), Self.ago(node.startedAtMs), node.draining ? "draining" : "",
            ]
          }))
      return true
    }
  }

  private static func ago(_ milliseconds: Int64) -> String {
    milliseconds == 0 ? "" : "\(readableSeconds(max(0, EventLoop.wallClockMilliseconds() - milliseconds))) ago"
  }
}
