internal import GRPC
internal import Reactor
internal import Routing
internal import Schema

/// `NodeService`: what can be asked of a gateway itself, or of another one through it.
final class NodeHandlers: PushV1.NodeServiceHandler {
  /// How often a caller is told how far a drain is.
  static let progressInterval: Duration = .milliseconds(500)
  /// Of a caller's word for how long a drain may take.
  static let longestDrain: Duration = .seconds(24 * 3600)

  private unowned let node: GatewayNode

  init(node: GatewayNode) {
    self.node = node
  }

  func drain(
    _ request: PushV1.DrainRequest, _ responses: ResponseWriter<PushV1.DrainProgress>, _ context: ServerContext
  ) async throws {
    guard request.nodeID.isEmpty || Name.isValid(request.nodeID) else {
      throw Status(.invalidArgument, "The node id is none.")
    }
    let rate = request.clientsPerSecond == 0 ? node.options.drainRate : Rate(validating: request.clientsPerSecond)
    guard let rate else {
      throw Status(.invalidArgument, "The rate is not in 0 ... \(Int(Rate.highest)) clients a second.")
    }
    guard (0...NodeHandlers.longestDrain.wholeMilliseconds).contains(request.deadlineMs) else {
      throw Status(.invalidArgument, "The deadline is not in 0 ... \(NodeHandlers.longestDrain).")
    }
    guard request.nodeID.isEmpty || request.nodeID == node.options.nodeID else {
      return try await passOn(request, responses)
    }
    guard node.lease.epoch != nil else {
      throw Status(.unavailable, "This node has no lease at present.", retryAfter: .seconds(1))
    }
    let limit = request.deadlineMs == 0 ? node.options.drainDeadline : .milliseconds(request.deadlineMs)
    node.drain.begin(rate: rate, within: limit)
    while !context.isCancelled {
      let progress = node.drain.progress
      try await responses.write(message(progress))
      if progress.hasEnded { return }
      await node.drain.change(within: NodeHandlers.progressInterval)
    }
  }

  private func message(_ progress: NodeDrain.Progress) -> PushV1.DrainProgress {
    PushV1.DrainProgress(
      nodeID: node.options.nodeID, clientsTold: Int64(progress.told), clientsLeft: Int64(progress.left),
      elapsedMs: progress.elapsed.wholeMilliseconds, ended: progress.hasEnded,
      deadlinePassed: progress.isDeadlinePassed)
  }

  /// To the node that the request names.
  private func passOn(
    _ request: PushV1.DrainRequest, _ responses: ResponseWriter<PushV1.DrainProgress>
  ) async throws {
    guard request.hops == 0 else {
      throw Status(.failedPrecondition, "This is node \(node.options.nodeID), not the one that was meant.")
    }
    let nodes: [String: NodeRecord]
    do throws(RoutingError) { nodes = try await node.registry.nodes(named: [request.nodeID]) } catch {
      throw Status(.unavailable, error.message, retryAfter: .seconds(1))
    }
    guard let goal = nodes[request.nodeID] else {
      throw Status(.notFound, "There is no living node of this id.")
    }
    guard let target = HostPort(goal.address) else {
      throw Status(.failedPrecondition, "The address of node \(goal.id) can't be read.")
    }
    let channel = Channel(loop: node.loop, target: target)
    defer { channel.close() }
    var passed = request
    passed.hops = 1
    let progress = try await channel.serverStreaming(PushV1.NodeService.drain, passed)
    while let message = try await progress.next() { try await responses.write(message) }
  }
}
