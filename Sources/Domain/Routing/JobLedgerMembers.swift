internal import Redis

/// Rows of jobs to tags and to all.
extension JobLedger {
  /// Lets a client that reports about a job, and has no row in it, get one: it registered while the members were listed.
  func admitMembers(to job: String) async throws(RoutingError) {
    _ = try await store.one(.command(["HSET", Key.job(job), "admits", "1"]))
  }

  func isCancelled(_ job: String) async throws(RoutingError) -> Bool {
    try await store.one(.command(["HEXISTS", Key.job(job), "cancelled"])).number == 1
  }

  /// Whether a client has a row in each of some jobs, in order: whether it was a member of them.
  public func haveRows(_ jobs: [String], of client: String) async throws(RoutingError) -> [Bool] {
    var answers: [Bool] = []
    for reply in await store.all(jobs.map { .command(["EXISTS", Key.row(of: $0, client)]) }) {
      answers.append(try reply.get().number == 1)
    }
    return answers
  }
}
