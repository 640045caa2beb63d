internal import Bytes
internal import Protobuf
internal import Reactor
public import Redis
public import Schema

/// What became of each job, for each of its clients, in Redis.
///
/// Belongs to its loop. States move by the table of `JobRowState` alone, which the scripts apply: reports may come late,
/// twice and from several nodes.
public final class JobLedger {
  /// Keys of a job live so long after its submission, and longer where its message or its deadline does. The list of jobs
  /// goes back so far.
  public static let lifetime: Duration = .seconds(7 * 24 * 3600)
  /// By how much they outlive the job's message and its deadline, at least.
  public static let afterlife: Duration = .seconds(24 * 3600)
  /// Rows that one script touches at most: it holds Redis for about a millisecond.
  static let rowsPerScript = 200
  /// Scripts over rows that one node has under way at once: they hold Redis for some ten milliseconds.
  static let scriptsAtOnce = 20

  let store: Store

  public init(_ redis: RedisClient) {
    store = Store(redis)
  }

  public struct Opened: Equatable, Sendable {
    /// The job stood already, with the same content.
    public var isDuplicate: Bool
    /// How many rows are new.
    public var added: Int
  }

  /// Opens a job, once, with rows in the state ACCEPTED; a client that has one keeps it, a cancelled job gets none. One
  /// round trip for what a script takes, a second one for more rows.
  ///
  /// - Parameters:
  ///   - clients: each once.
  ///   - now: ms since the epoch.
  /// - Throws: `.conflict` when its id stands with another content.
  public func open(
    _ job: PushV1.Job, notice: PushV1.FileNotice?, clients: [String] = [], now: Int64
  ) async throws(RoutingError) -> Opened {
    let kind: JobKind = notice == nil ? .message : .file
    var requests: [Store.Request] = [
      .command(["ZADD", Key.jobs, "NX", String(now), job.jobID]),
      .command(["ZREMRANGEBYSCORE", Key.jobs, "-inf", "(\(now - JobLedger.lifetime.wholeMilliseconds)"]),
    ]
    if JobLedger.keepsRows(of: job) {
      // Before the rows, so that none is there which nobody ends. A repeated submission schedules a look more, which finds
      // out when the next one is due.
      requests.append(schedule(job.jobID, at: JobLedger.firstEnd(of: job, submittedAt: now)))
    }
    let first = clients.prefix(JobLedger.rowsPerScript)
    let head: [RedisArgument] = [
      .bytes(job.serialized()), .bytes(notice?.serialized() ?? Bytes()), .string(kind.rawValue), .integer(now),
      .integer(JobLedger.lifetime(of: job, submittedAt: now)),
    ]
    requests.append(
      .script(JobLedgerScripts.open, keys: keys(job.jobID, first), head + first.map { .string($0) }))
    var answer: [RedisValue] = []
    for reply in await store.all(requests) { answer = try reply.get().elements }
    guard answer.count == 2 else { throw RoutingError(.corrupt, "Redis answered a new job with something else.") }
    guard answer[0].number != 2 else {
      throw RoutingError(.conflict, "A job with this id stands already, with another content.")
    }
    var opened = Opened(isDuplicate: answer[0].number == 1, added: Int(answer[1].number))
    if clients.count > first.count {
      opened.added += try await addRows(job.jobID, Array(clients.dropFirst(first.count)), now: now)
    }
    return opened
  }

  /// ms. A deadline that is further away than that of any message counts as that.
  static func lifetime(of job: PushV1.Job, submittedAt: Int64) -> Int64 {
    let longest = JobDispatch.maximumTimeToLive + defaultGrace
    let untilDeadline = deadline(of: job, submittedAt: submittedAt) &- submittedAt
    let end = max(JobDispatch.timeToLive(of: job), min(untilDeadline, longest.wholeMilliseconds))
    return max(lifetime.wholeMilliseconds, end + afterlife.wholeMilliseconds)
  }

  /// Adds rows in the state ACCEPTED; a client that has one keeps it.
  ///
  /// - Returns: how many are new.
  @discardableResult
  public func addRows(_ job: String, _ clients: [String], now: Int64) async throws(RoutingError) -> Int {
    let requests = slices(of: clients).map { slice in
      Store.Request.script(
        JobLedgerScripts.addRows, keys: keys(job, slice), [.integer(now)] + slice.map { .string($0) })
    }
    var added = 0
    for reply in await store.all(requests, atOnce: JobLedger.scriptsAtOnce) { added += Int(try reply.get().number) }
    return added
  }

  /// Takes rows through their steps, in order, in one pipeline.
  ///
  /// - Returns: for each step how many of its rows took it; the others were further already, or are not there.
  @discardableResult
  public func take(_ steps: [RowStep], now: Int64) async throws(RoutingError) -> [Int] {
    var requests: [Store.Request] = []
    var owners: [Int] = []
    for (index, step) in steps.enumerated() {
      let fields = step.fields.words
      let head =
        [
          String(step.state.rawValue), step.state.predecessors(of: .message), step.state.predecessors(of: .file),
          String(now), String(fields.count / 2),
        ] + fields
      for slice in slices(of: step.clients) {
        let arguments = (head + slice).map { RedisArgument.string($0) }
        requests.append(.script(JobLedgerScripts.step, keys: keys(step.job, slice), arguments))
        owners.append(index)
      }
    }
    var counts = Array(repeating: 0, count: steps.count)
    let replies = await store.all(requests, atOnce: JobLedger.scriptsAtOnce)
    for (owner, reply) in zip(owners, replies) { counts[owner] += Int(try reply.get().number) }
    return counts
  }

  /// Adds to a state's count in a job that keeps no rows.
  public func count(_ job: String, _ state: JobRowState, by amount: Int, now: Int64) async throws(RoutingError) {
    _ = try await store.one(
      .script(
        JobLedgerScripts.count, keys: [Key.job(job)], [String(state.rawValue), String(amount), String(now)]))
  }

  /// Marks a job as cancelled; its rows stay as they are.
  ///
  /// - Returns: whether it wasn't before.
  /// - Throws: `.notFound`.
  public func cancel(_ job: String, reason: String, now: Int64) async throws(RoutingError) -> Bool {
    let reply = try await store.one(
      .script(JobLedgerScripts.cancel, keys: [Key.job(job)], [reason, String(now)]))
    guard reply.number >= 0 else { throw RoutingError(.notFound, "There is no job of this id.") }
    return reply.number == 1
  }

  private func slices(of clients: [String]) -> [ArraySlice<String>] {
    stride(from: 0, to: clients.count, by: JobLedger.rowsPerScript).map {
      clients[$0..<min($0 + JobLedger.rowsPerScript, clients.count)]
    }
  }

  private func keys(_ job: String, _ clients: ArraySlice<String>) -> [RedisArgument] {
    [.string(Key.job(job)), .string(Key.rows(of: job))] + clients.map { .string(Key.row(of: job, $0)) }
  }
}
