internal import Bytes
internal import GRPC
internal import Reactor
internal import Routing
internal import Safeguards
internal import Telemetry

/// Brings records to the streams of this node. Belongs to its loop.
final class Delivery {
  private unowned let node: GatewayNode
  private let fanOut: FanOut
  private var missed: [PushRecord] = []
  /// Jobs of which nothing more is to be delivered, the newest of them: their records may still be on the way.
  private var cancelled: [String] = []
  private var isRerouting = false

  init(node: GatewayNode) {
    self.node = node
    fanOut = FanOut(node: node)
  }

  /// Delivers a record that was for this node, or for all.
  func deliver(_ record: PushRecord) {
    let isCancelled = !cancelled.isEmpty && cancelled.contains(record.jobID)
    if case .all = record.target, let place = record.place {
      return node.fleetDelivery.received(record, at: place, isCancelled: isCancelled)
    }
    guard !isCancelled else { return }
    if record.expiresAt > 0, record.expiresAt < EventLoop.wallClockMilliseconds() { return expire(record) }
    switch record.target {
    case .client(let client):
      guard !write(record, to: client) else { return }
      node.metrics.missed.increment()
      if node.options.safeguards.contains(.rerouting) { reroute(record) }
    case .all(let tags): fanOut.add(record, to: tags)
    case .moved(let client, let epoch):
      guard let stream = node.streams[client], (stream.session.epoch ?? epoch) < epoch else { return }
      stream.replace()
    case .cancelled(let job): cancel(job)
    case .channel: node.channelFeeds.hinted(record)
    }
  }

  private func cancel(_ job: String) {
    if cancelled.count >= GatewayLimits.cancelledJobs { cancelled.removeFirst() }
    cancelled.append(job)
    node.fleetDelivery.cancelled(job)
  }

  private func write(_ record: PushRecord, to client: String) -> Bool {
    guard let stream = node.streams[client] else { return false }
    if let place = record.place {
      node.inboxDelivery.deliver(record, at: place, to: stream)
      return true
    }
    switch stream.send(EncodedMessage(payload: record.message), of: record) {
    case .closed: return false
    case .held: break
    case .dropped: fail(record, "Dropped: the client reads too slowly.")
    case .written:
      node.metrics.delivered.increment()
      if !record.jobID.isEmpty { node.reports.written(record.jobID, client, acknowledges: stream.session.acknowledges) }
    }
    return true
  }

  private func expire(_ record: PushRecord) {
    node.metrics.expired.increment()
    guard case .client(let client) = record.target, !record.jobID.isEmpty else { return }
    node.reports.step(record.jobID, client, to: .expired, RowFields(reason: "Its time to live ended on the way."))
  }

  // MARK: Clients that are not here

  /// Looks up again where the clients of missed records are, and passes the records on there, a bounded number of times.
  private func reroute(_ record: PushRecord) {
    missed.append(record)
    guard !isRerouting else { return }
    isRerouting = true
    node.loop.spawn { [self] in
      while !missed.isEmpty {
        let records = missed
        missed = []
        await reroute(records)
      }
      isRerouting = false
    }
  }

  private func reroute(_ records: [PushRecord]) async {
    var next: [PushRecord] = []
    for var record in records {
      record.hops += 1
      if record.hops > GatewayLimits.hops {
        fail(record, "The client moves faster than the message.")
      } else {
        next.append(record)
      }
    }
    do throws(RoutingError) {
      for (record, outcome) in zip(next, try await node.publisher.publish(next, unlessHeldBy: node.options.nodeID)) {
        switch outcome {
        case .routed: node.metrics.forwarded.increment()
        // A client that has begun a session here meanwhile has read its inbox, too; a poke more does no harm.
        case .stored, .acknowledged: _ = deliverLate(record)
        case .offline: if !deliverLate(record) { fail(record, "The client is offline.") }
        case .unknown: fail(record, "No client of this id is known.")
        case .failed(let reason), .full(let reason): fail(record, reason)
        case .expired: expire(record)
        }
      }
    } catch {
      for record in next { fail(record, error.message) }
    }
  }

  /// Its session may have begun here while the registry was asked.
  private func deliverLate(_ record: PushRecord) -> Bool {
    if case .client(let client) = record.target { write(record, to: client) } else { false }
  }

  private func fail(_ record: PushRecord, _ reason: String) {
    // What is kept waits for the client's next session.
    guard record.place == nil, case .client(let client) = record.target, !record.jobID.isEmpty else { return }
    node.reports.step(record.jobID, client, to: .failed, RowFields(reason: reason))
  }
}
