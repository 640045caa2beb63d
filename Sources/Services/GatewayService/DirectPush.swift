internal import GRPC
internal import Reactor
internal import Routing
internal import Schema
internal import Telemetry

/// `PushService.PushToClient`: delivers one message here, or at the node that holds its client, or keeps it. Belongs to
/// the node's loop.
///
///     here? ──yes──► answer
///       │ no
///     passed on by another node? ──yes──► NOT_HERE: that node looks again
///       │ no
///     ┌► known node, else the registry ──nobody──► refusal ──keep──► inbox
///     │      │
///     │      ▼
///     └─miss─ ask that node ──► answer
///
/// What is known of clients' nodes is never trusted over a miss: it is dropped then, and the registry is asked. A message
/// is passed on `GatewayLimits.hops` times at most.
final class DirectPush {
  /// For the call to another node, beyond what it waits for the client.
  static let forwardTimeout: Duration = .seconds(5)

  private unowned let node: GatewayNode
  private let channels: NodeChannels
  private var locations = ClientLocations(limit: GatewayLimits.rememberedLocations)

  init(node: GatewayNode, channels: NodeChannels) {
    self.node = node
    self.channels = channels
  }

  /// - Parameter deadline: when the caller gives up, monotonic ns.
  func push(_ request: PushV1.PushRequest, deadline: Int64?) async throws -> PushV1.PushResponse {
    let order = try DirectPushOrder(request, now: EventLoop.monotonicNanoseconds(), deadline: deadline)
    guard !order.hasExpired else { return refusal(.expired, "The message's time to live is over.") }
    guard !order.isPassedOn else {
      let isMeant = request.nodeID.isEmpty || request.nodeID == node.options.nodeID
      if isMeant, let answer = try await deliver(order) { return answer }
      return refusal(.notHere, "The client is not here.")
    }
    do {
      let answer = try await route(order)
      guard order.keeps, order.isToBeKept(after: answer) else { return answer }
    } catch let status as Status {
      // Whether the message was written isn't known: the client knows it by its id.
      guard order.keeps, status.code == .unavailable || status.code == .resourceExhausted else { throw status }
    }
    return try await keep(order)
  }

  // MARK: The way

  private func route(_ order: DirectPushOrder) async throws -> PushV1.PushResponse {
    var known = locations.find(order.client)
    var missedBy: NodeRecord?
    var failure: Status?
    for hop in 1...GatewayLimits.hops {
      if let answer = try await deliver(order) { return answer }
      let holder: NodeRecord
      if let node = known {
        holder = node
        known = nil
      } else {
        switch try await locate(order.client) {
        case .unknown: return refusal(.unknownClient, "No client of this id is known.")
        case .offline: return refusal(.offline, "The client is offline.")
        case .online(_, let found): holder = found
        }
        // It may have come while the registry was asked.
        if let answer = try await deliver(order) { return answer }
        // What the registry says of a node that has just missed the client is no longer true.
        if holder.id == node.options.nodeID || holder.id == missedBy?.id && holder.epoch == missedBy?.epoch {
          if let failure { throw failure }
          return refusal(.offline, "The client is offline.")
        }
      }
      do {
        let answer = try await forward(order, to: holder, hop: hop)
        if answer.reason != .notHere {
          locations.insert(order.client, holder)
          return answer
        }
        failure = nil
      } catch let status as Status where status.code == .unavailable && !Task.isCancelled {
        failure = status
      }
      node.metrics.missed.increment()
      locations.remove(order.client)
      missedBy = holder
    }
    return refusal(.tooManyHops, "The client moves faster than the message.")
  }

  private func locate(_ client: String) async throws -> Location {
    try await translated { () async throws(RoutingError) in try await node.registry.locate([client])[0] }
  }

  private func forward(
    _ order: DirectPushOrder, to holder: NodeRecord, hop: Int
  ) async throws -> PushV1.PushResponse {
    guard let channel = channels.channel(to: holder.address) else {
      throw Status(.unavailable, "The address of node \(holder.id), which holds the client, can't be read.")
    }
    node.metrics.forwarded.increment()
    let now = EventLoop.monotonicNanoseconds()
    do {
      return try await channel.unary(
        PushV1.PushService.pushToClient, order.request(for: holder.id, hops: hop, now: now),
        options: CallOptions(timeout: order.timeLeft(now: now, beyond: DirectPush.forwardTimeout)))
    } catch {
      let status = Status(error)
      guard status.code == .unavailable || status.code == .deadlineExceeded || status.code == .cancelled else {
        throw status
      }
      throw Status(
        .unavailable, "Node \(holder.id), which holds the client, gave no answer: \(error).", retryAfter: .seconds(1))
    }
  }

  // MARK: The ends

  /// nil when the client is not here, or has left before it acknowledged.
  private func deliver(_ order: DirectPushOrder) async throws -> PushV1.PushResponse? {
    guard let stream = node.streams[order.client], stream.session.epoch != nil else { return nil }
    var wait: AcknowledgementWaits.Wait?
    if order.waits, stream.session.acknowledges {
      wait = node.acknowledgementWaits.begin(stream, order.message.messageID)
      guard wait != nil else {
        throw Status(
          .resourceExhausted, "\(GatewayLimits.acknowledgementWaits) calls wait for acknowledgements already.",
          retryAfter: .seconds(1))
      }
    }
    guard stream.push(order.encoded, order.slowReader) else {
      if let wait { node.acknowledgementWaits.drop(wait) }
      return refusal(.slow, "The client reads too slowly.")
    }
    node.metrics.delivered.increment()
    if !order.message.jobID.isEmpty {
      node.reports.written(order.message.jobID, order.client, acknowledges: stream.session.acknowledges)
    }
    var answer = PushV1.PushResponse(success: true, nodeID: node.options.nodeID, acknowledged: order.waits)
    guard let wait else { return answer }
    switch await node.acknowledgementWaits.wait(wait, until: order.acknowledgedBy) {
    case .acknowledged: return answer
    case .gone: return nil
    case .cancelled: throw Status(.cancelled, "The caller has given up.")
    case .late:
      answer = refusal(.notAcknowledged, "The client has the message, and did not acknowledge it in time.")
      return answer
    }
  }

  /// Leaves the message to the client's inbox.
  private func keep(_ order: DirectPushOrder) async throws -> PushV1.PushResponse {
    let record = order.record(at: EventLoop.wallClockMilliseconds())
    let outcomes = try await translated { () async throws(RoutingError) in try await node.publisher.publish([record]) }
    switch outcomes[0] {
    case .routed, .stored: return PushV1.PushResponse(success: true, nodeID: node.options.nodeID, stored: true)
    case .acknowledged: return PushV1.PushResponse(success: true, nodeID: node.options.nodeID, acknowledged: true)
    case .full(let reason): return refusal(.inboxFull, reason)
    case .expired: return refusal(.expired, "The message's time to live is over.")
    case .unknown: return refusal(.unknownClient, "No client of this id is known.")
    case .offline: return refusal(.offline, "The client is offline.")
    case .failed(let reason): throw Status(.unavailable, reason, retryAfter: .seconds(1))
    }
  }

  private func refusal(_ reason: PushV1.PushResponse.Reason, _ sentence: String) -> PushV1.PushResponse {
    PushV1.PushResponse(success: false, error: sentence, nodeID: node.options.nodeID, reason: reason)
  }
}
