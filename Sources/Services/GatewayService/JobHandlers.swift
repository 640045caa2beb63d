internal import FileStore
internal import GRPC
internal import Reactor
internal import Routing
internal import Schema

/// `JobService`: jobs in, and what became of them out. Belongs to the node's loop.
final class JobHandlers: PushV1.JobServiceHandler {
  /// How often a watched job is looked at.
  static let watchInterval: Duration = .milliseconds(200)
  /// How long after the submission the counts of a job without rows are waited for.
  static let countingTime: Duration = .seconds(1)

  private let dispatch: JobDispatch
  private let ledger: JobLedger
  private let store: StoreDirectory
  private let loop: EventLoop

  init(dispatch: JobDispatch, ledger: JobLedger, store: StoreDirectory, loop: EventLoop) {
    self.dispatch = dispatch
    self.ledger = ledger
    self.store = store
    self.loop = loop
  }

  func submit(_ request: PushV1.SubmitRequest, _ context: ServerContext) async throws -> PushV1.SubmitResponse {
    guard let job = request.job else { throw Status(.invalidArgument, "The request holds no job.") }
    var notice: PushV1.FileNotice?
    if case .fileID(let id) = job.payload { notice = try await self.notice(of: id) }
    return try await translated { () async throws(RoutingError) in try await dispatch.submit(job, notice: notice) }
  }

  private func notice(of id: String) async throws -> PushV1.FileNotice {
    let store = self.store
    do {
      let sidecar = try await BlockingPool.shared.run { try store.sidecar(of: try FileID(id)) }
      return PushV1.FileNotice(
        fileName: sidecar.name, fileSize: sidecar.size, fileID: id, md5: sidecar.md5, sha256: sidecar.sha256 ?? "")
    } catch let error as FileStoreError {
      switch error.code {
      case .invalid: throw Status(.invalidArgument, error.message)
      case .notFound: throw Status(.notFound, "There is no published file of this id.")
      default: throw Status(.unavailable, error.message)
      }
    }
  }

  func get(_ request: PushV1.GetJobRequest, _ context: ServerContext) async throws -> PushV1.JobStatus {
    let after = try JobHandlers.number(request.pageToken)
    guard request.pageSize >= 0 else { throw Status(.invalidArgument, "The page size is negative.") }
    return try await translated { () async throws(RoutingError) in
      try Name.validate(request.jobID, as: "job id")
      let summary = try await ledger.summary(of: request.jobID, at: EventLoop.wallClockMilliseconds())
      let limit = request.pageSize == 0 ? JobLedger.maximumRows : Int(request.pageSize)
      let rows = try await ledger.rows(of: request.jobID, after: after, limit: limit)
      var status = JobHandlers.status(summary, rows.rows)
      status.complete = after == 0 && rows.isComplete
      status.nextPageToken = rows.isComplete ? "" : String(rows.last)
      return status
    }
  }

  func list(_ request: PushV1.ListJobsRequest, _ context: ServerContext) async throws -> PushV1.ListJobsResponse {
    let skip = Int(try JobHandlers.number(request.pageToken))
    guard request.pageSize >= 0 else { throw Status(.invalidArgument, "The page size is negative.") }
    return try await translated { () async throws(RoutingError) in
      let limit = request.pageSize == 0 ? JobLedger.maximumJobs : Int(request.pageSize)
      let page = try await ledger.recent(
        skip: skip, limit: limit, runningOnly: request.runningOnly, at: EventLoop.wallClockMilliseconds())
      let jobs = page.jobs.map { summary in
        var status = JobHandlers.status(summary, [])
        // A hundred jobs with ten thousand ids each would be no list.
        status.job?.targets?.clientIDs = []
        return status
      }
      return PushV1.ListJobsResponse(jobs: jobs, nextPageToken: page.next.map { String($0) } ?? "")
    }
  }

  /// Every row, then the rows that have changed, then the end. A look asks Redis for a few numbers; the job itself, which
  /// may name ten thousand clients, is read where they have changed.
  func watch(
    _ request: PushV1.WatchJobRequest, _ responses: ResponseWriter<PushV1.JobStatus>, _ context: ServerContext
  ) async throws {
    try await translated { () throws(RoutingError) in try Name.validate(request.jobID, as: "job id") }
    var last: Int64 = 0
    var seen: JobStamp?
    var isCounting = false
    while true {
      let now = EventLoop.wallClockMilliseconds()
      let stamp = try await translated { () async throws(RoutingError) in try await ledger.stamp(of: request.jobID) }
      if stamp != seen || isCounting {
        let summary = try await translated { () async throws(RoutingError) in
          try await ledger.summary(of: request.jobID, at: now)
        }
        if stamp != seen { last = try await writeChanges(summary, after: last, isFirst: seen == nil, responses) }
        seen = stamp
        isCounting = JobHandlers.isCounting(summary, at: now)
        if summary.state.isEnd, last >= summary.ordinal, !isCounting { return }
      }
      try await loop.sleep(for: JobHandlers.watchInterval)
    }
  }

  /// A job without rows is over when it stands in Kafka; what the nodes count comes a moment later.
  private static func isCounting(_ summary: JobSummary, at now: Int64) -> Bool {
    guard !JobLedger.keepsRows(of: summary.job), !summary.isCancelled else { return false }
    return now < summary.submittedAt &+ countingTime.wholeMilliseconds
  }

  /// - Returns: the ordinal of the last row that was written.
  private func writeChanges(
    _ summary: JobSummary, after: Int64, isFirst: Bool, _ responses: ResponseWriter<PushV1.JobStatus>
  ) async throws -> Int64 {
    var last = after
    while true {
      let rows = try await translated { () async throws(RoutingError) in
        try await ledger.rows(of: summary.job.jobID, after: last)
      }
      var status = JobHandlers.status(summary, rows.rows)
      status.complete = isFirst && last == 0 && rows.isComplete
      // Ten thousand ids with each change would be more than the change.
      if !isFirst || last > 0 { status.job?.targets?.clientIDs = [] }
      try await responses.write(status)
      last = rows.last
      if rows.isComplete { return last }
    }
  }

  func cancel(_ request: PushV1.CancelJobRequest, _ context: ServerContext) async throws -> PushV1.JobStatus {
    try await translated { () async throws(RoutingError) in
      try Name.validate(request.jobID, as: "job id")
      let reason = String(request.reason.prefix(LedgerReports.maximumTextLength))
      try await dispatch.cancel(request.jobID, reason: reason)
      let rows = try await ledger.rows(of: request.jobID)
      return JobHandlers.status(try await ledger.summary(of: request.jobID), rows.rows)
    }
  }

  // MARK: Shapes

  static func status(_ summary: JobSummary, _ rows: [PushV1.JobTarget]) -> PushV1.JobStatus {
    let isForMembers = summary.job.targets?.isForMembers == true
    let named = rows.map { row in
      var row = row
      row.messageID = MessageID(job: summary.job.jobID, client: isForMembers ? nil : row.clientID).description
      return row
    }
    let counts = summary.counts.filter { $0.value > 0 }.sorted { $0.key.rawValue < $1.key.rawValue }.map {
      PushV1.StateCount(state: PushV1.JobTarget.State(rawValue: Int32($0.key.rawValue)), count: Int64($0.value))
    }
    return PushV1.JobStatus(
      job: summary.job, state: PushV1.JobStatus.State(rawValue: Int32(summary.state.rawValue)), targets: named,
      counts: counts, submittedAtMs: summary.submittedAt, updatedAtMs: summary.updatedAt, reason: summary.reason)
  }

  /// A page token of ours is a number.
  private static func number(_ token: String) throws(Status) -> Int64 {
    guard let number = token.isEmpty ? 0 : Int64(token), number >= 0 else {
      throw Status(.invalidArgument, "The page token is none of ours.")
    }
    return number
  }
}

/// Runs a story of the domain and turns its errors into statuses.
func translated<T>(_ body: () async throws(RoutingError) -> T) async throws(Status) -> T {
  do throws(RoutingError) {
    return try await body()
  } catch {
    throw Status(error)
  }
}

extension Status {
  init(_ error: RoutingError) {
    switch error.code {
    case .invalid: self.init(.invalidArgument, error.message)
    case .notFound: self.init(.notFound, error.message)
    case .conflict: self.init(.failedPrecondition, error.message)
    case .exhausted: self.init(.resourceExhausted, error.message, retryAfter: .seconds(1))
    case .unavailable: self.init(.unavailable, error.message, retryAfter: .seconds(1))
    case .corrupt: self.init(.dataLoss, error.message)
    }
  }
}
