internal import GRPC
internal import Reactor
internal import Routing
internal import Schema
internal import Telemetry

/// `PushService.PushToClient`: delivers one message here, or hands it to the node that holds its client. Belongs to the
/// node's loop.
final class DirectPush {
  /// For the call to another node.
  static let forwardTimeout: Duration = .seconds(5)
  /// Nodes to which connections are kept; one that is not used is closed when there are more.
  static let maximumChannels = 256

  private unowned let node: GatewayNode
  private var channels: [String: Channel] = [:]

  init(node: GatewayNode) {
    self.node = node
  }

  func push(_ request: PushV1.PushRequest) async throws -> PushV1.PushResponse {
    do throws(RoutingError) { try Name.validate(request.clientID, as: "client id") } catch {
      throw Status(.invalidArgument, error.message)
    }
    guard request.hops >= 0 else { throw Status(.invalidArgument, "The number of hops is negative.") }
    let message = try DirectPush.message(of: request)
    if let answer = deliver(message, to: request.clientID) { return answer }
    let location: Location
    do throws(RoutingError) { location = try await node.registry.locate([request.clientID])[0] } catch {
      throw Status(.unavailable, error.message, retryAfter: .seconds(1))
    }
    // It may have come while the registry was asked.
    if let answer = deliver(message, to: request.clientID) { return answer }
    switch location {
    case .unknown: return refusal("No client of this id is known.")
    case .offline: return refusal("The client is offline.")
    case .online(_, let holder) where holder.id == node.options.nodeID: return refusal("The client is offline.")
    case .online(_, let holder):
      guard Int(request.hops) < GatewayLimits.hops else { return refusal("The client moves faster than the message.") }
      return try await forward(message, request, to: holder)
    }
  }

  private static func message(of request: PushV1.PushRequest) throws(Status) -> PushV1.ServerMessage {
    var message = request.envelope ?? PushV1.ServerMessage(payload: .text(PushV1.TextMessage(content: request.message)))
    switch message.payload {
    case .text, .fileNotice, .event: break
    case .registered, .heartbeat, .goAway, nil:
      throw Status(.invalidArgument, "The envelope holds no text, no file notice and no event.")
    }
    if message.messageID.isEmpty { message.messageID = Name.random() }
    return message
  }

  /// nil when the client is not here.
  private func deliver(_ message: PushV1.ServerMessage, to client: String) -> PushV1.PushResponse? {
    guard let stream = node.streams[client] else { return nil }
    guard stream.send(EncodedMessage(message)) else {
      return refusal("The client reads too slowly and was disconnected.")
    }
    node.metrics.delivered.increment()
    if !message.jobID.isEmpty { node.reports.written(message.jobID, client, acknowledges: stream.session.acknowledges) }
    return PushV1.PushResponse(success: true, nodeID: node.options.nodeID)
  }

  private func forward(
    _ message: PushV1.ServerMessage, _ request: PushV1.PushRequest, to holder: NodeRecord
  ) async throws -> PushV1.PushResponse {
    guard let channel = channel(to: holder.address) else { return refusal("The address of its node can't be read.") }
    node.metrics.forwarded.increment()
    let forwarded = PushV1.PushRequest(
      clientID: request.clientID, envelope: message, hops: request.hops + 1, nodeID: holder.id)
    do {
      return try await channel.unary(
        PushV1.PushService.pushToClient, forwarded, options: CallOptions(timeout: DirectPush.forwardTimeout))
    } catch {
      throw Status(.unavailable, "Node \(holder.id), which holds the client, gave no answer: \(error).")
    }
  }

  private func channel(to address: String) -> Channel? {
    if let known = channels[address] { return known }
    guard let target = HostPort(address) else { return nil }
    if channels.count >= DirectPush.maximumChannels {
      channels = channels.filter { $0.value.isConnected }
      if channels.count >= DirectPush.maximumChannels { channels.popFirst()?.value.close() }
    }
    let channel = Channel(loop: node.loop, target: target)
    channels[address] = channel
    return channel
  }

  private func refusal(_ sentence: String) -> PushV1.PushResponse {
    PushV1.PushResponse(success: false, error: sentence, nodeID: node.options.nodeID)
  }

  func close() {
    for channel in channels.values { channel.close() }
    channels = [:]
  }
}
