internal import Reactor
internal import Routing
internal import Schema
internal import Telemetry

/// What clients and deliveries tell about jobs, on its way into the ledger.
///
/// Belongs to the node's loop. What comes within a short while goes out as one pipeline, rows of one job with the same step
/// together; while it is under way, the next one gathers. Percentages are kept back for a while, and only the last one
/// goes out. So is what was written to clients that acknowledge: an acknowledgement that comes meanwhile takes its place,
/// and the row takes one step instead of two.
final class LedgerReports {
  /// Rows that wait for Redis at most; past that new reports are dropped and counted. What a report says is seen again
  /// when the client repeats it.
  static let maximumPending = 200_000
  /// How long a step waits for others to share its pipeline. With many nodes each has few of them at a time, and a
  /// pipeline for each would make every message dearer than with one node.
  static let gatherInterval: Duration = .milliseconds(50)
  /// How long a percentage waits for a newer one.
  static let progressInterval: Duration = .milliseconds(250)
  /// How long the word that a message was written waits for its acknowledgement, at least; at most twice that.
  static let writtenInterval: Duration = .milliseconds(250)
  /// Before a pipeline that failed is sent again.
  static let retryDelay: Duration = .seconds(1)
  /// Texts of clients are cut to this many characters.
  static let maximumTextLength = 1024

  private struct Key: Hashable {
    let job: String
    let state: JobRowState
    let fields: RowFields
  }

  private struct Row: Hashable {
    let job: String
    let client: String
  }

  private let ledger: JobLedger
  private let loop: EventLoop
  private let nodeID: String
  private let metrics: GatewayMetrics
  private let log: Logger
  private var order: [Key] = []
  private var clients: [Key: [String]] = [:]
  private var pending = 0
  private var counts: [String: Int] = [:]
  private var progress: [Row: RowFields] = [:]
  private var progressTimer: LoopTimer?
  /// Rows whose message was written and isn't acknowledged so far: since the last tick of the timer, and before it.
  private var written: Set<Row> = []
  private var writtenBefore: Set<Row> = []
  private var writtenTimer: LoopTimer?
  private var gatherTimer: LoopTimer?
  private var isSending = false
  private var isFlushing = false
  private let sent = Wakeup()
  /// Steps that were reported in all, and how many of the first of them stand in the ledger.
  private var reported = 0
  private var recorded = 0
  private let recordedMore = Wakeup()

  init(ledger: JobLedger, loop: EventLoop, nodeID: String, metrics: GatewayMetrics, log: Logger) {
    self.ledger = ledger
    self.loop = loop
    self.nodeID = nodeID
    self.metrics = metrics
    self.log = log
  }

  // MARK: In

  /// A row takes a step.
  func step(_ job: String, _ client: String, to state: JobRowState, _ fields: RowFields = RowFields()) {
    guard pending < LedgerReports.maximumPending else { return metrics.droppedReports.increment() }
    let key = Key(job: job, state: state, fields: fields)
    if clients[key] == nil { order.append(key) }
    clients[key, default: []].append(client)
    pending += 1
    reported += 1
    sendLater()
  }

  /// A message was written to a client's stream.
  func written(_ job: String, _ client: String, acknowledges: Bool) {
    // One that doesn't acknowledge counts as having what was written to it.
    guard acknowledges else { return acknowledged(job, client) }
    guard pending + written.count + writtenBefore.count < LedgerReports.maximumPending else {
      return metrics.droppedReports.increment()
    }
    written.insert(Row(job: job, client: client))
    if writtenTimer == nil { startWrittenTimer() }
  }

  private func startWrittenTimer() {
    writtenTimer = loop.schedule(after: LedgerReports.writtenInterval) { [weak self] in
      guard let self else { return }
      writtenTimer = nil
      flush(&writtenBefore)
      swap(&written, &writtenBefore)
      if !writtenBefore.isEmpty { startWrittenTimer() }
    }
  }

  private func flush(_ rows: inout Set<Row>) {
    let steps = rows
    rows = []
    for row in steps { step(row.job, row.client, to: .written, RowFields(reason: "", gateway: nodeID)) }
  }

  /// A message of a job without rows was written to some clients.
  func written(_ job: String, count: Int) {
    counts[job, default: 0] += count
    sendLater()
  }

  func acknowledged(_ client: String, _ acknowledgement: PushV1.Acknowledgement) {
    for text in acknowledgement.messageIDs.prefix(GatewayLimits.acknowledgedIDs) {
      // Those to tags and to all are looked up among what the session was given.
      guard let id = MessageID(text), id.client == client else { continue }
      acknowledged(id.job, client)
    }
  }

  func acknowledged(_ job: String, _ client: String) {
    if writtenTimer != nil {
      let row = Row(job: job, client: client)
      if written.remove(row) == nil { writtenBefore.remove(row) }
    }
    // What the row said before of waiting, or of failing, is over.
    step(job, client, to: .acknowledged, RowFields(reason: "", gateway: nodeID))
  }

  func fileStatus(_ client: String, _ status: PushV1.FileStatus) {
    guard Name.isValid(status.jobID) else { return }
    let row = Row(job: status.jobID, client: client)
    var fields = RowFields(gateway: nodeID, bytesDone: max(0, status.bytesDone), size: max(0, status.fileSize))
    switch status.state {
    case .downloading:
      fields.percent = percent(status)
      progress[row] = fields
      if progressTimer == nil {
        progressTimer = loop.schedule(after: LedgerReports.progressInterval) { [weak self] in self?.flushProgress() }
      }
    case .verified:
      progress[row] = nil
      fields.percent = 100
      fields.md5 = cut(status.md5)
      fields.path = cut(status.path)
      fields.duration = max(0, status.durationMs)
      step(row.job, client, to: .verified, fields)
    case .failed:
      progress[row] = nil
      fields.reason = status.error.isEmpty ? "The client gave up." : cut(status.error)
      if !status.md5.isEmpty { fields.md5 = cut(status.md5) }
      step(row.job, client, to: .failed, fields)
    case .unspecified, .unrecognized: break
    }
  }

  private func percent(_ status: PushV1.FileStatus) -> Int32 {
    guard status.fileSize > 0 else { return 100 }
    return Int32(Double(min(max(0, status.bytesDone), status.fileSize)) / Double(status.fileSize) * 100)
  }

  private func cut(_ text: String) -> String { String(text.prefix(LedgerReports.maximumTextLength)) }

  private func flushProgress() {
    progressTimer?.cancel()
    progressTimer = nil
    for (row, fields) in progress { step(row.job, row.client, to: .downloading, fields) }
    progress = [:]
  }

  // MARK: Out

  private func sendLater() {
    guard gatherTimer == nil, !isSending else { return }
    gatherTimer = loop.schedule(after: LedgerReports.gatherInterval) { [weak self] in self?.send() }
  }

  private func send() {
    gatherTimer?.cancel()
    gatherTimer = nil
    guard !isSending, pending > 0 || !counts.isEmpty else { return }
    isSending = true
    loop.spawn { [self] in
      await sendBatch()
      isSending = false
      if pending > 0 || !counts.isEmpty { isFlushing ? send() : sendLater() } else { sent.fire() }
    }
  }

  private func sendBatch() async {
    let steps = order.map { RowStep(job: $0.job, clients: clients[$0] ?? [], to: $0.state, $0.fields) }
    let counts = self.counts
    // A batch takes all that waits, and one that failed waits again: so once this one stands, everything before it does.
    let reached = reported
    (order, clients, pending, self.counts) = ([], [:], 0, [:])
    do throws(RoutingError) {
      try await ledger.take(steps, now: EventLoop.wallClockMilliseconds())
      recorded = reached
      recordedMore.fire()
      for (job, count) in counts {
        try await ledger.count(job, .written, by: count, now: EventLoop.wallClockMilliseconds())
      }
    } catch {
      log.warning("job reports not written", ["error": error.message, "steps": steps.count])
      // Steps can be repeated; counts can't, so what was counted in a job without rows may be lost here.
      for step in steps { for client in step.clients { self.step(step.job, client, to: step.state, step.fields) } }
      try? await loop.sleep(for: LedgerReports.retryDelay)
    }
  }

  /// Waits until every step that was reported by now stands in the ledger. For one story at a time.
  func record() async {
    let goal = reported
    while recorded < goal { await recordedMore.wait() }
  }

  /// Sends what is there, percentages too, and waits for the answer, for a while.
  func flush(within limit: Duration) async {
    isFlushing = true
    defer { isFlushing = false }
    flushProgress()
    writtenTimer?.cancel()
    writtenTimer = nil
    flush(&writtenBefore)
    flush(&written)
    send()
    if isSending { await sent.wait(within: limit, on: loop) }
  }
}
