internal import Reactor
internal import Redis
internal import Schema

/// Ending the rows of clients that were silent for too long: those that wait for a message past its time to live, and all
/// that are open past the job's deadline.
///
/// `index:{deadlines}` holds each job by the time when rows of it may have to end. Every node looks there now and then
/// (`endDue`); a claim keeps two from doing the same. Whoever reads a job before that ends its rows first, or sees them
/// as ended.
extension JobLedger {
  /// What the row of a client says whose message was not acknowledged in its time.
  public static let expiredReason = "Its time to live ended."
  /// What a row says that was open at the job's deadline.
  static let deadlineReason = "The job's deadline passed."
  /// How long after the time to live rows may stay open, of a job that has no deadline of its own.
  public static let defaultGrace: Duration = .seconds(24 * 3600)
  /// How long a job that is due belongs to the node that has claimed it.
  static let claim: Duration = .seconds(30)
  /// Jobs that one look takes at most.
  static let jobsPerLook = 20

  /// When rows of a job may have to end first, ms since the epoch.
  static func firstEnd(of job: PushV1.Job, submittedAt: Int64) -> Int64 {
    min(submittedAt &+ JobDispatch.timeToLive(of: job), deadline(of: job, submittedAt: submittedAt))
  }

  /// When every row that is still open ends, ms since the epoch.
  static func deadline(of job: PushV1.Job, submittedAt: Int64) -> Int64 {
    if job.deadlineMs > 0 { return job.deadlineMs }
    return submittedAt &+ JobDispatch.timeToLive(of: job) &+ defaultGrace.wholeMilliseconds
  }

  func schedule(_ job: String, at time: Int64) -> Store.Request {
    .command(["ZADD", Key.deadlines, String(time), job])
  }

  /// Ends the rows that are due.
  ///
  /// - Returns: the job as it is then.
  public func summary(of job: String, at now: Int64) async throws(RoutingError) -> JobSummary {
    let summary = try await self.summary(of: job)
    let ending = summary.statesThatEnd(at: now)
    guard !ending.isEmpty else { return summary }
    let clients = try await allRows(of: job).filter { row in
      JobRowState(rawValue: UInt8(clamping: row.state.rawValue)).map { ending.contains($0) } ?? false
    }.map(\.clientID)
    let reason = summary.isPastDeadline(at: now) ? JobLedger.deadlineReason : JobLedger.expiredReason
    try await take([RowStep(job: job, clients: clients, to: .expired, RowFields(reason: reason))], now: now)
    return try await self.summary(of: job)
  }

  /// Looks for jobs that are due, and ends their rows.
  ///
  /// - Returns: how many were due: as many as one look takes, and there may be more.
  public func endDue(now: Int64) async throws(RoutingError) -> (jobs: Int, mayBeMore: Bool) {
    let due = try await store.one(
      .script(
        JobLedgerScripts.claimDue, keys: [Key.deadlines],
        [String(now), String(now &+ JobLedger.claim.wholeMilliseconds), String(JobLedger.jobsPerLook)])
    ).elements.map(\.text)
    for job in due { _ = try await store.one(try await end(job, now: now)) }
    return (due.count, due.count == JobLedger.jobsPerLook)
  }

  /// - Returns: what is to be done about the job in the index: it comes again, or it is out.
  private func end(_ job: String, now: Int64) async throws(RoutingError) -> Store.Request {
    let out = Store.Request.command(["ZREM", Key.deadlines, job])
    do throws(RoutingError) {
      return try await summary(of: job, at: now).nextEnd(after: now).map { schedule(job, at: $0) } ?? out
    } catch {
      // One that can't be read would come for ever.
      guard error.code == .notFound || error.code == .corrupt else { throw error }
      return out
    }
  }
}

extension JobSummary {
  /// When every row that is still open ends, ms since the epoch.
  var deadline: Int64 { JobLedger.deadline(of: job, submittedAt: submittedAt) }

  func isPastDeadline(at now: Int64) -> Bool { now >= deadline }

  /// The states of rows that are over by now, of those that there are.
  func statesThatEnd(at now: Int64) -> Set<JobRowState> {
    guard JobLedger.keepsRows(of: job), !state.isEnd else { return [] }
    var states: Set<JobRowState> = []
    if isPastDeadline(at: now) {
      states = Set(JobRowState.allCases.filter { !$0.isEnd(of: kind) })
    } else if now >= submittedAt &+ JobDispatch.timeToLive(of: job) {
      states = [.accepted, .routed, .written]
    }
    return states.filter { (counts[$0] ?? 0) > 0 }
  }

  /// The job with the counts that it has once the rows are ended that are over by now.
  func settled(at now: Int64) -> JobSummary {
    var settled = self
    for state in statesThatEnd(at: now) {
      settled.counts[.expired, default: 0] += settled.counts.removeValue(forKey: state) ?? 0
    }
    return settled
  }

  /// When rows that are open have to be looked at again, ms since the epoch; nil when none is.
  func nextEnd(after now: Int64) -> Int64? {
    guard JobLedger.keepsRows(of: job), !state.isEnd else { return nil }
    return [submittedAt &+ JobDispatch.timeToLive(of: job), deadline].filter { $0 > now }.min()
  }
}
