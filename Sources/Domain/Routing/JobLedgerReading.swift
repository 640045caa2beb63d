internal import Redis
public import Schema

/// Reading the ledger.
extension JobLedger {
  /// Rows of one page at most.
  public static let maximumRows = 1000
  /// Jobs of one page at most.
  public static let maximumJobs = 100

  /// - Throws: `.notFound`.
  public func summary(of job: String) async throws(RoutingError) -> JobSummary {
    let fields = try await store.one(.command(["HGETALL", Key.job(job)])).pairs
    guard let summary = try JobSummary(fields) else { throw RoutingError(.notFound, "There is no job of this id.") }
    return summary
  }

  /// What is different whenever a job or a row of it has changed; cheap to read.
  ///
  /// - Throws: `.notFound`.
  public func stamp(of job: String) async throws(RoutingError) -> JobStamp {
    let fields =
      ["submitted_at", "ordinal", "updated_at", "cancelled"] + JobRowState.allCases.map { "s\($0.rawValue)" }
    let values = try await store.one(.command(["HMGET", Key.job(job)] + fields)).elements.map(\.text)
    guard values.first?.isEmpty == false else { throw RoutingError(.notFound, "There is no job of this id.") }
    return JobStamp(values: values)
  }

  public struct Rows: Sendable {
    public var rows: [PushV1.JobTarget]
    /// The ordinal of the last one: where to go on.
    public var last: Int64
    /// Nothing has changed after `last` so far.
    public var isComplete: Bool
  }

  /// Rows in the order of their last change. A row that changes while pages are read comes again, none is missed; so
  /// going on from `last` is also how changes are watched.
  ///
  /// - Parameter after: the ordinal to go on after; 0 for all.
  public func rows(
    of job: String, after: Int64 = 0, limit: Int = maximumRows
  ) async throws(RoutingError) -> Rows {
    let limit = min(max(1, limit), JobLedger.maximumRows)
    let changed = try await store.one(
      .command([
        "ZRANGE", Key.rows(of: job), "(\(after)", "+inf", "BYSCORE", "LIMIT", "0", String(limit), "WITHSCORES",
      ])
    ).pairs
    let replies = await store.all(changed.map { .command(["HGETALL", Key.row(of: job, $0.name)]) })
    var rows: [PushV1.JobTarget] = []
    for (client, reply) in zip(changed, replies) {
      if let row = PushV1.JobTarget(client: client.name, try reply.get().pairs) { rows.append(row) }
    }
    return Rows(rows: rows, last: changed.last?.value.number ?? after, isComplete: changed.count < limit)
  }

  /// Every row of a job.
  public func allRows(of job: String) async throws(RoutingError) -> [PushV1.JobTarget] {
    var rows: [PushV1.JobTarget] = []
    var page = try await self.rows(of: job)
    rows += page.rows
    while !page.isComplete {
      page = try await self.rows(of: job, after: page.last)
      rows += page.rows
    }
    return rows
  }

  public struct Jobs: Sendable {
    public var jobs: [JobSummary]
    /// How many were looked through so far: where to go on; nil on the last page.
    public var next: Int?
  }

  /// Jobs, the newest first.
  ///
  /// - Parameters:
  ///   - skip: `next` of the page before; 0 for the first page. A job that is submitted meanwhile moves the rest by one
  ///     place: the last one of a page may come again on the next.
  ///   - now: ms since the epoch; rows that are over by then count as ended.
  public func recent(
    skip: Int = 0, limit: Int = maximumJobs, runningOnly: Bool = false, at now: Int64
  ) async throws(RoutingError) -> Jobs {
    let limit = min(max(1, limit), JobLedger.maximumJobs)
    // What a caller says may be any number.
    let skip = min(max(0, skip), Int.max - limit)
    let ids = try await store.one(
      .command(["ZRANGE", Key.jobs, String(skip), String(skip + limit - 1), "REV"])
    ).elements.map(\.text)
    var jobs: [JobSummary] = []
    for reply in await store.all(ids.map { .command(["HGETALL", Key.job($0)]) }) {
      guard let summary = try JobSummary(try reply.get().pairs)?.settled(at: now) else { continue }
      if !runningOnly || !summary.state.isEnd { jobs.append(summary) }
    }
    return Jobs(jobs: jobs, next: ids.count == limit ? skip + limit : nil)
  }
}

/// A job's counters at some moment: to be compared, not read.
public struct JobStamp: Equatable, Sendable {
  fileprivate var values: [String]
}
