internal import Reactor
internal import Schema

/// Jobs to tags and to all, and the end of jobs that are cancelled.
extension JobDispatch {
  /// What the row of a client says whose message the log had no more room for.
  static let trimmedReason = "The log had no more room for the message before the client had it."
  static let cancelledReason = "The job was cancelled."

  // MARK: To members

  /// Sends a message to whoever has the job's tags. Best effort is one record that every node reads. What is kept goes into
  /// the log, when a row stands for every member; members are those who are known, connected or away.
  func sendToMembers(
    _ job: PushV1.Job, _ message: PushV1.ServerMessage, isDuplicate: Bool
  ) async throws(RoutingError) -> Sent {
    let tags = job.targets?.tags ?? [:]
    var record = JobDispatch.record(job, message, .all(tags: tags), MessageID(job: job.jobID, client: nil))
    guard JobLedger.keepsRows(of: job) else {
      try await publisher.broadcast(record)
      guard tags.isEmpty else { return Sent(targets: 0, stored: 0) }
      return Sent(targets: Int(try await registry.nodes().items.reduce(0) { $0 + $1.clientCount }), stored: 0)
    }
    record.isAtLeastOnce = true
    // Who has come since the message was put into the log is no member of a job that is submitted again.
    if isDuplicate, try await publisher.hasLogged(record.messageID) {
      _ = try await publisher.publishToLog(record)
      let counts = try await ledger.summary(of: job.jobID).counts
      return Sent(targets: counts.values.reduce(0, +), stored: counts[.accepted] ?? 0)
    }
    try await ledger.admitMembers(to: job.jobID)
    let members = try await addMembers(job.jobID, tags)
    let logged = try await publisher.publishToLog(record)
    let now = EventLoop.wallClockMilliseconds()
    if logged.isKept {
      let stored = RowFields(reason: JobDispatch.storedReason)
      try await ledger.take(
        [
          RowStep(job: job.jobID, clients: members.online, to: .routed),
          RowStep(job: job.jobID, clients: members.away, to: .accepted, stored),
        ], now: now)
    } else {
      let over = RowFields(reason: JobLedger.expiredReason)
      try await ledger.take(
        [RowStep(job: job.jobID, clients: members.online + members.away, to: .expired, over)], now: now)
    }
    await endTrimmed(logged.trimmed)
    return Sent(
      targets: members.online.count + members.away.count, stored: logged.isKept ? members.away.count : 0)
  }

  /// Finds the clients that have the tags and adds a row for each.
  private func addMembers(
    _ job: String, _ tags: [String: String]
  ) async throws(RoutingError) -> (online: [String], away: [String]) {
    var members: (online: [String], away: [String]) = ([], [])
    var after: String? = ""
    while let start = after {
      let page = try await registry.clients(after: start, limit: Registry.maximumPage, tags: tags)
      try await ledger.addRows(job, page.items.map(\.record.id), now: EventLoop.wallClockMilliseconds())
      for client in page.items {
        if client.isOnline { members.online.append(client.record.id) } else { members.away.append(client.record.id) }
      }
      after = page.next
    }
    return members
  }

  /// Ends the rows of clients that can't be given their message any more. It is tried once: rows that it doesn't reach
  /// end with their time to live.
  private func endTrimmed(_ messages: [String]) async {
    for case let id? in messages.map({ MessageID($0) }) {
      guard let rows = try? await waitingRows(of: id.job), !rows.isEmpty else { continue }
      let reason = RowFields(reason: JobDispatch.trimmedReason)
      _ = try? await ledger.take(
        [RowStep(job: id.job, clients: rows.map(\.clientID), to: .expired, reason)],
        now: EventLoop.wallClockMilliseconds())
    }
  }

  // MARK: Cancelling

  /// Ends a job: what waits is taken out, and its rows fail. What was written to a client stays as it is, and isn't written
  /// again.
  ///
  /// - Throws: `.notFound`; `.unavailable`: cancel again.
  public func cancel(_ jobID: String, reason: String) async throws(RoutingError) {
    _ = try await ledger.cancel(jobID, reason: reason, now: EventLoop.wallClockMilliseconds())
    try await withdraw(try await ledger.summary(of: jobID).job)
  }

  /// - Parameter clients: who may have the message waiting whatever their rows say.
  func withdraw(_ job: PushV1.Job, sentTo clients: [String] = []) async throws(RoutingError) {
    let rows = try await waitingRows(of: job.jobID)
    let isForMembers = job.targets?.isForMembers == true
    let isKept = JobLedger.keepsRows(of: job) && job.qos == .atLeastOnce
    let holders = Set(rows.map(\.clientID)).union(clients)
    try await publisher.withdraw(job.jobID, from: isForMembers || !isKept ? [] : Array(holders))
    let open = rows.filter { $0.state != .written }.map(\.clientID)
    try await ledger.take(
      [RowStep(job: job.jobID, clients: open, to: .failed, RowFields(reason: JobDispatch.cancelledReason))],
      now: EventLoop.wallClockMilliseconds())
  }

  /// The rows of clients that haven't acknowledged their message.
  private func waitingRows(of job: String) async throws(RoutingError) -> [PushV1.JobTarget] {
    let counts = try await ledger.summary(of: job).counts
    let isAnyWaiting = [.accepted, .routed, .written].contains { (counts[$0] ?? 0) > 0 }
    guard isAnyWaiting else { return [] }
    return try await ledger.allRows(of: job).filter { [.accepted, .routed, .written].contains($0.state) }
  }
}
