internal import Bytes
internal import Protobuf
internal import Reactor
public import Schema

/// Takes a job in: opens it in the ledger, finds its clients, and sends each its message.
///
/// Belongs to its loop. Every step can be repeated: to submit a job again is to go on where the first attempt stopped.
public final class JobDispatch {
  /// Clients that a job can name at most.
  public static let maximumTargets = 10_000
  /// The content of a text, and the details of an event, in bytes at most.
  public static let maximumContentBytes = 256 * 1024
  /// How long a message is worth delivering when its job doesn't say.
  public static let defaultTimeToLive: Duration = .seconds(24 * 3600)
  /// A longer one counts as this.
  public static let maximumTimeToLive: Duration = .seconds(365 * 24 * 3600)

  let registry: Registry
  let ledger: JobLedger
  let publisher: Publisher

  public init(registry: Registry, ledger: JobLedger, publisher: Publisher) {
    self.registry = registry
    self.ledger = ledger
    self.publisher = publisher
  }

  /// Opens a job and routes its messages. When this returns, each client's row says what was done about it.
  ///
  /// - Parameter notice: what to tell of the job's file; nil for a text or an event. The payload of a job whose file has
  ///   just been uploaded may be empty: it is set from the notice.
  /// - Throws: `.invalid`, `.conflict`, `.unavailable`: submit again with the same id.
  public func submit(
    _ job: PushV1.Job, notice: PushV1.FileNotice? = nil
  ) async throws(RoutingError) -> PushV1.SubmitResponse {
    var job = job
    if job.jobID.isEmpty { job.jobID = Name.random() }
    if let notice { job.payload = .fileID(notice.fileID) }
    try JobDispatch.validate(job, notice)
    var now = EventLoop.wallClockMilliseconds()
    var seen: Set<String> = []
    let clients = (job.targets?.clientIDs ?? []).filter { seen.insert($0).inserted }
    // The job and its rows stand, in one round trip, before anything is sent. Where its clients are comes along with that.
    let ahead = publisher.lookAhead(clients, isKept: job.qos == .atLeastOnce)
    let opened = try await ledger.open(job, notice: notice, clients: clients, now: now)
    var answer = PushV1.SubmitResponse(jobID: job.jobID, duplicate: opened.isDuplicate)
    if opened.isDuplicate {
      let summary = try await ledger.summary(of: job.jobID)
      now = summary.submittedAt
      answer.targetCount = Int64(summary.counts.values.reduce(0, +))
      guard !summary.isCancelled else { return answer }
    }
    let message = JobDispatch.message(of: job, notice, submittedAt: now)
    let sent =
      job.targets?.isForMembers == true
      ? try await sendToMembers(job, message, isDuplicate: opened.isDuplicate)
      : try await send(job, message, to: clients, areNew: opened.added == clients.count, ahead)
    (answer.targetCount, answer.storedCount) = (Int64(sent.targets), Int64(sent.stored))
    // A cancellation marks the job first: it has found what was sent before it, or the mark is seen here. Then the rows may
    // have failed before their messages were sent, so those are taken out wherever they went.
    if try await ledger.isCancelled(job.jobID) { try await withdraw(job, sentTo: clients) }
    return answer
  }

  /// Whom a job was sent to.
  struct Sent {
    var targets: Int
    /// How many of them are away.
    var stored: Int
  }

  // MARK: To named clients

  /// - Parameter areNew: whether the rows of all clients are.
  private func send(
    _ job: PushV1.Job, _ message: PushV1.ServerMessage, to clients: [String], areNew: Bool,
    _ ahead: Publisher.LookAhead?
  ) async throws(RoutingError) -> Sent {
    var waiting = clients
    if !areNew {
      // A repeated submission finds rows that are further already: those have been sent.
      waiting = try await ledger.allRows(of: job.jobID).filter { $0.state == .accepted }.map(\.clientID)
    }
    let records = waiting.map { client in
      JobDispatch.record(job, message, .client(client), MessageID(job: job.jobID, client: client))
    }
    let outcomes = try await publisher.publish(records, ahead: ahead)
    // Where all inboxes are full nothing was taken, and the publisher is to come again; otherwise these rows have failed.
    var refusal: String?
    if clients.count == waiting.count { refusal = JobDispatch.refusal(outcomes) }
    if let refusal { throw RoutingError(.exhausted, refusal) }
    try await ledger.take(
      JobDispatch.steps(job.jobID, waiting, outcomes), now: EventLoop.wallClockMilliseconds())
    // Their rows stay ACCEPTED, so that the publisher's retry sends what is missing and nothing else.
    for case .failed(let reason) in outcomes { throw RoutingError(.unavailable, reason) }
    return Sent(targets: clients.count, stored: outcomes.count { $0 == .stored })
  }

  /// Why nothing of a job could be kept; nil when something was.
  private static func refusal(_ outcomes: [Publisher.Outcome]) -> String? {
    var last: String?
    for outcome in outcomes {
      guard case .full(let reason) = outcome else { return nil }
      last = reason
    }
    return last
  }

  /// The steps that rows take by what the publisher did, one for each kind of outcome. A client whose record Kafka did
  /// not take has taken none.
  static func steps(_ job: String, _ clients: [String], _ outcomes: [Publisher.Outcome]) -> [RowStep] {
    struct Kind: Hashable {
      var state: JobRowState
      var reason: String?
    }
    var groups: [Kind: [String]] = [:]
    func add(_ client: String, _ state: JobRowState, _ reason: String? = nil) {
      groups[Kind(state: state, reason: reason), default: []].append(client)
    }
    for (client, outcome) in zip(clients, outcomes) {
      switch outcome {
      case .routed: add(client, .routed)
      case .stored: add(client, .accepted, JobDispatch.storedReason)
      case .acknowledged: add(client, .acknowledged)
      case .full(let reason): add(client, .failed, reason)
      case .expired: add(client, .expired, JobLedger.expiredReason)
      case .unknown: add(client, .failed, "No client of this id is known.")
      case .offline: add(client, .failed, "The client is offline.")
      case .failed: break
      }
    }
    return groups.sorted { ($0.key.state.rawValue, $0.key.reason ?? "") < ($1.key.state.rawValue, $1.key.reason ?? "") }
      .map { RowStep(job: job, clients: $0.value, to: $0.key.state, RowFields(reason: $0.key.reason)) }
  }

  /// What the row of a client says that is away.
  static let storedReason = "Stored: the client is away."

  // MARK: Messages

  /// ms.
  static func timeToLive(of job: PushV1.Job) -> Int64 {
    job.ttlMs > 0 ? min(job.ttlMs, maximumTimeToLive.wholeMilliseconds) : defaultTimeToLive.wholeMilliseconds
  }

  static func message(
    of job: PushV1.Job, _ notice: PushV1.FileNotice?, submittedAt: Int64
  ) -> PushV1.ServerMessage {
    var message = PushV1.ServerMessage(jobID: job.jobID, expiresAtMs: submittedAt &+ timeToLive(of: job))
    switch job.payload {
    case .text(let text): message.payload = .text(text)
    case .event(let event): message.payload = .event(event)
    case .fileID, nil: message.payload = notice.map { .fileNotice($0) }
    }
    return message
  }

  static func record(
    _ job: PushV1.Job, _ message: PushV1.ServerMessage, _ target: PushRecord.Target, _ id: MessageID
  ) -> PushRecord {
    var message = message
    message.messageID = id.description
    var record = PushRecord(
      target: target, messageID: message.messageID, message: message.serialized(), jobID: job.jobID,
      isAtLeastOnce: job.qos == .atLeastOnce, expiresAt: message.expiresAtMs)
    record.slowReader = SlowReader(rawValue: job.slowReader.rawValue) ?? .byDefault
    record.route = job.route == .direct ? .direct : .kafka
    return record
  }
}
