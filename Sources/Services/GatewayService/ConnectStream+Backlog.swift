internal import GRPC
internal import Reactor
internal import Routing
internal import Schema
internal import Telemetry

/// What a stream does when its client reads too slowly.
///
/// Messages go to the call while no more than its low mark is queued there. Past that, best-effort ones are held back here,
/// where the oldest can still be dropped, and what is kept goes on up to the limit and then waits in the inbox. Both
/// together are bounded by `maximumQueuedBytes`, and by one message.
extension ConnectStream {
  enum Sending: Equatable {
    /// The call has it.
    case written
    /// Held back; its row is told later.
    case held
    /// There was no room, also without what was held back.
    case dropped
    /// The stream is not open, or was closed because too much is queued.
    case closed
  }

  var queuedBytes: Int { call.pendingBytes + backlog.bytes }

  /// Whether a message of this length may be queued: one may in any case.
  func hasRoom(for length: Int) -> Bool {
    call.pendingBytes == 0 || queuedBytes + length <= node.options.maximumQueuedBytes
  }

  /// Queues a best-effort message by reference.
  @discardableResult
  func send(_ message: EncodedMessage, of record: PushRecord) -> Sending {
    guard session.epoch != nil else { return .closed }
    guard backlog.isEmpty, call.pendingBytes <= GatewayLimits.streamLowWaterBytes else { return hold(message, record) }
    call.send(message)
    return .written
  }

  /// Queues a message ahead of what is held back, or doesn't take it.
  ///
  /// - Returns: false when there is no room; with `.disconnect` the stream is closed then.
  func push(_ message: EncodedMessage, _ policy: SlowReader) -> Bool {
    guard session.epoch != nil else { return false }
    if policy == .dropOldest { dropOldest(toFit: message.count) }
    guard hasRoom(for: message.count) else {
      if policy == .disconnect { disconnect() }
      return false
    }
    call.send(message)
    return true
  }

  private func hold(_ message: EncodedMessage, _ record: PushRecord) -> Sending {
    let limit = node.options.maximumQueuedBytes
    if queuedBytes + message.count > limit {
      guard record.slowReader != .disconnect else {
        disconnect()
        return .closed
      }
      dropOldest(toFit: message.count)
      guard queuedBytes + message.count <= limit else {
        node.metrics.dropped.increment()
        return .dropped
      }
    }
    var client: String?
    if case .client(let id) = record.target { client = id } else if record.isAtLeastOnce { client = session.client }
    backlog.append(Backlog.Held(message: message, job: record.jobID, client: client))
    return .held
  }

  private func dropOldest(toFit length: Int) {
    let limit = node.options.maximumQueuedBytes
    // Where nothing helps, nothing goes.
    guard call.pendingBytes + length <= limit else { return }
    while queuedBytes + length > limit, let oldest = backlog.popFirst() {
      drop(oldest, "Dropped: the client reads too slowly.")
    }
  }

  private func drop(_ held: Backlog.Held, _ reason: String) {
    node.metrics.dropped.increment()
    guard let client = held.client, !held.job.isEmpty else { return }
    node.reports.step(held.job, client, to: .failed, RowFields(reason: reason))
  }

  /// Gives the call what was held back, as far as it has room.
  func feed() {
    guard session.epoch != nil else { return }
    while call.pendingBytes <= GatewayLimits.streamLowWaterBytes, let held = backlog.popFirst() {
      call.send(held.message)
      node.metrics.delivered.increment()
      guard !held.job.isEmpty else { continue }
      if let client = held.client {
        node.reports.written(held.job, client, acknowledges: session.acknowledges)
      } else {
        node.reports.written(held.job, count: 1)
      }
    }
  }

  /// The stream is over: what was held back reaches nobody.
  func dropBacklog() {
    while let held = backlog.popFirst() { drop(held, "The client's stream ended before it was written.") }
  }

  /// Tells the client to come back later, and ends its stream.
  func disconnect() {
    node.metrics.overflowed.increment()
    let limit = node.options.maximumQueuedBytes
    let reason = "More than \(limit) bytes wait for this client: it reads too slowly."
    sayGoodbye(
      PushV1.GoAway(reason: reason, retryAfterMs: GatewayLimits.slowReaderRetry.wholeMilliseconds))
    close(Status(.resourceExhausted, reason, retryAfter: GatewayLimits.slowReaderRetry))
  }
}
