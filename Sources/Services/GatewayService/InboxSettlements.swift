internal import Reactor
internal import Routing
internal import Telemetry

/// What clients have acknowledged and what was written to them, on its way into their inboxes, and into their cursors in
/// the fleet's log.
///
/// Belongs to the node's loop. What comes within a short while goes out as one pipeline, one entry for each client and
/// source; while it is under way, the next one gathers. What can't be sent waits and is joined with what follows: nothing
/// of it is lost but with the process, and then the client gets the messages again. Nothing is let go before the ledger
/// has what was reported of it.
final class InboxSettlements {
  /// Clients that wait for Redis at most; past that new entries are dropped and counted, and their messages come again.
  static let maximumPending = 100_000
  static let retryDelay: Duration = .seconds(1)
  /// How long an entry waits for others to share its pipeline: what was written and what is acknowledged soon after is one
  /// entry then. A node that dies meanwhile has the messages of that time come again.
  static let gatherInterval: Duration = .milliseconds(50)

  private struct Key: Hashable {
    let client: String
    let source: Settlement.Source
    let inboxID: String
  }

  private struct Entry {
    var settlement: Settlement
    /// Messages whose rows know already that they are acknowledged.
    var reported: Set<String>
  }

  private let inboxes: Inboxes
  private let reports: LedgerReports
  private let loop: EventLoop
  private let metrics: GatewayMetrics
  private let log: Logger
  private var waiting: [Key: Entry] = [:]
  private var gatherTimer: LoopTimer?
  private var isSending = false
  private var isFlushing = false
  private let sent = Wakeup()

  init(inboxes: Inboxes, reports: LedgerReports, loop: EventLoop, metrics: GatewayMetrics, log: Logger) {
    self.inboxes = inboxes
    self.reports = reports
    self.loop = loop
    self.metrics = metrics
    self.log = log
  }

  /// Takes an entry in.
  ///
  /// - Parameter reported: messages whose rows have been told of the acknowledgement.
  func add(_ settlement: Settlement, reported: some Sequence<String> = []) {
    let key = Key(client: settlement.client, source: settlement.source, inboxID: settlement.inboxID)
    guard waiting.count < InboxSettlements.maximumPending || waiting[key] != nil else {
      return metrics.droppedSettlements.increment()
    }
    join(key, Entry(settlement: settlement, reported: Set(reported)))
    sendLater()
  }

  private func sendLater() {
    guard gatherTimer == nil, !isSending else { return }
    gatherTimer = loop.schedule(after: InboxSettlements.gatherInterval) { [weak self] in self?.send() }
  }

  private func join(_ key: Key, _ new: Entry) {
    guard var entry = waiting[key] else { return waiting[key] = new }
    entry.settlement.acknowledged = max(entry.settlement.acknowledged, new.settlement.acknowledged)
    entry.settlement.written = max(entry.settlement.written, new.settlement.written)
    let room = GatewayLimits.acknowledgedIDs - entry.settlement.messageIDs.count
    entry.settlement.messageIDs += new.settlement.messageIDs.prefix(max(0, room))
    entry.reported.formUnion(new.reported)
    waiting[key] = entry
  }

  private func send() {
    gatherTimer?.cancel()
    gatherTimer = nil
    guard !isSending, !waiting.isEmpty else { return }
    isSending = true
    loop.spawn { [self] in
      await sendBatch()
      isSending = false
      if !waiting.isEmpty { isFlushing ? send() : sendLater() } else { sent.fire() }
    }
  }

  private func sendBatch() async {
    let batch = Array(waiting)
    waiting = [:]
    // The rows first: what an inbox has let go comes to no client again, so nobody would report it any more after this node.
    await reports.record()
    var failure: RoutingError?
    for ((key, entry), answer) in zip(batch, await inboxes.settle(batch.map(\.value.settlement))) {
      switch answer {
      case .success(let settled):
        for text in settled.messageIDs where !entry.reported.contains(text) {
          if let id = MessageID(text) { reports.acknowledged(id.job, key.client) }
        }
        if !settled.isComplete { join(key, entry) }
      case .failure(let error):
        failure = error
        join(key, entry)
      }
    }
    guard let failure else { return }
    log.warning("acknowledgements not written", ["error": failure.message])
    try? await loop.sleep(for: InboxSettlements.retryDelay)
  }

  /// Sends what is there and waits for the answer, for a while.
  func flush(within limit: Duration) async {
    isFlushing = true
    defer { isFlushing = false }
    send()
    if isSending { await sent.wait(within: limit, on: loop) }
  }
}
