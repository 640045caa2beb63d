import Redis
import Schema
import Testing

@testable import Routing

@Suite(.timeLimit(.minutes(1))) struct JobLedgerTests {
  static func job(_ id: String, text: String = "hello") -> PushV1.Job {
    PushV1.Job(
      jobID: id, targets: PushV1.Targets(clientIDs: ["a", "b"]), payload: .text(PushV1.TextMessage(content: text)))
  }

  static func rows(_ ledger: JobLedger, _ job: String) async throws -> [String: PushV1.JobTarget] {
    Dictionary(uniqueKeysWithValues: try await ledger.allRows(of: job).map { ($0.clientID, $0) })
  }

  @Test func aJobIsOpenedOnce() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      #expect(
        try await ledger.open(Self.job("j"), notice: nil, now: 100) == JobLedger.Opened(isDuplicate: false, added: 0))
      #expect(
        try await ledger.open(Self.job("j"), notice: nil, now: 200) == JobLedger.Opened(isDuplicate: true, added: 0))
      await #expect(throws: RoutingError.self) {
        _ = try await ledger.open(Self.job("j", text: "other"), notice: nil, now: 300)
      }
      let summary = try await ledger.summary(of: "j")
      #expect(summary.job == Self.job("j") && summary.kind == .message && summary.submittedAt == 100)
      #expect(summary.notice == nil && !summary.isCancelled)
      let error = await #expect(throws: RoutingError.self) { _ = try await ledger.summary(of: "none") }
      #expect(error?.code == .notFound)
    }
  }

  @Test func rowsTakeTheStepsOfTheTableAndNoOthers() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      _ = try await ledger.open(Self.job("j"), notice: nil, now: 100)
      try await ledger.addRows("j", ["a", "b"], now: 100)
      try await ledger.addRows("j", ["a", "b"], now: 101)
      #expect(try await ledger.summary(of: "j").counts[.accepted] == 2)

      // Written comes before routed, as it may.
      let taken = try await ledger.take(
        [
          RowStep(job: "j", clients: ["a"], to: .written, RowFields(gateway: "g1")),
          RowStep(job: "j", clients: ["a", "b", "stranger"], to: .routed),
          RowStep(job: "j", clients: ["a"], to: .acknowledged, RowFields(gateway: "g1")),
          RowStep(job: "j", clients: ["a"], to: .failed, RowFields(reason: "late")),
          RowStep(job: "j", clients: ["b"], to: .verified),
          RowStep(job: "none", clients: ["a"], to: .written),
        ], now: 200)
      #expect(taken == [1, 1, 1, 0, 0, 0])
      let rows = try await Self.rows(ledger, "j")
      #expect(rows["a"]?.state == .acknowledged && rows["a"]?.gateway == "g1" && rows["a"]?.updatedAtMs == 200)
      #expect(rows["b"]?.state == .routed && rows["b"]?.reason == "" && rows.count == 2)
      var summary = try await ledger.summary(of: "j")
      #expect(summary.state == .running && summary.updatedAt == 200)

      try await ledger.take([RowStep(job: "j", clients: ["b"], to: .failed, RowFields(reason: "offline"))], now: 300)
      summary = try await ledger.summary(of: "j")
      #expect(summary.state == .failed && summary.counts.filter { $0.value > 0 } == [.acknowledged: 1, .failed: 1])
      try await ledger.take([RowStep(job: "j", clients: ["b"], to: .acknowledged)], now: 400)
      #expect(try await ledger.summary(of: "j").state == .succeeded)
    }
  }

  @Test func aFilesRowKeepsItsFigures() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      var job = Self.job("j")
      job.payload = .fileID("f")
      let notice = PushV1.FileNotice(fileName: "a.bin", fileSize: 200, fileID: "f", md5: "00")
      _ = try await ledger.open(job, notice: notice, now: 1)
      #expect(try await ledger.summary(of: "j").notice == notice)
      try await ledger.addRows("j", ["a"], now: 1)
      func download(_ percent: Int32) -> RowStep {
        RowStep(
          job: "j", clients: ["a"], to: .downloading,
          RowFields(percent: percent, bytesDone: Int64(percent) * 2, size: 200))
      }
      #expect(try await ledger.take([download(10), download(50)], now: 2) == [1, 1])
      #expect(try await ledger.summary(of: "j").counts[.downloading] == 1)
      let end = RowFields(
        gateway: "g2", percent: 100, bytesDone: 200, size: 200, md5: "ab", path: "/x/a.bin", duration: 1500)
      #expect(
        try await ledger.take([RowStep(job: "j", clients: ["a"], to: .verified, end), download(70)], now: 3) == [1, 0])
      let row = try await Self.rows(ledger, "j")["a"]
      #expect(row?.state == .verified && row?.percent == 100 && row?.md5 == "ab" && row?.path == "/x/a.bin")
      #expect(row?.durationMs == 1500 && row?.size == 200 && row?.bytesDone == 200 && row?.gateway == "g2")
      #expect(try await ledger.summary(of: "j").state == .succeeded)
    }
  }

  @Test func changedRowsComeAfterTheOrdinal() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      let clients = (0..<1234).map { "c\($0)" }
      _ = try await ledger.open(Self.job("j"), notice: nil, now: 1)
      try await ledger.addRows("j", clients, now: 1)
      #expect(try await Set(ledger.allRows(of: "j").map(\.clientID)) == Set(clients))
      let last = try await ledger.summary(of: "j").ordinal
      #expect(try await ledger.rows(of: "j", after: last).rows.isEmpty)
      try await ledger.take([RowStep(job: "j", clients: ["c7", "c500"], to: .routed)], now: 2)
      let changed = try await ledger.rows(of: "j", after: last)
      #expect(changed.rows.map(\.clientID) == ["c7", "c500"] && changed.isComplete && changed.last == last + 2)
      #expect(try await ledger.summary(of: "j").counts[.accepted] == 1232)
    }
  }

  @Test func recentJobsComeNewestFirst() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      for number in 0..<25 {
        _ = try await ledger.open(Self.job("j\(number)"), notice: nil, now: 1_800_000_000_000 + Int64(number))
      }
      let first = try await ledger.recent(limit: 10, at: 0)
      #expect(first.jobs.map(\.job.jobID) == (15..<25).reversed().map { "j\($0)" })
      let rest = try await ledger.recent(skip: first.next ?? 0, limit: 100, at: 0)
      #expect(rest.jobs.count == 15 && rest.next == nil)
      try await ledger.addRows("j3", ["a"], now: 1)
      #expect(try await ledger.recent(runningOnly: true, at: 0).jobs.map(\.job.jobID) == ["j3"])
      #expect(try await ledger.cancel("j3", reason: "enough", now: 2))
      #expect(try await !ledger.cancel("j3", reason: "again", now: 3))
      let cancelled = try await ledger.summary(of: "j3")
      #expect(cancelled.state == .cancelled && cancelled.reason == "enough")
    }
  }

  @Test func aJobIsOpenedTogetherWithItsRows() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      // More than one script takes.
      let clients = (0..<450).map { "c\($0)" }
      var opened = try await ledger.open(Self.job("j"), notice: nil, clients: clients, now: 1)
      #expect(opened == JobLedger.Opened(isDuplicate: false, added: 450))
      #expect(try await Set(ledger.allRows(of: "j").map(\.clientID)) == Set(clients))
      #expect(try await ledger.summary(of: "j").counts == [.accepted: 450])
      // A repeated submission adds what is missing and leaves what is there.
      try await ledger.take([RowStep(job: "j", clients: ["c7"], to: .routed)], now: 2)
      opened = try await ledger.open(Self.job("j"), notice: nil, clients: ["c7", "d"], now: 3)
      #expect(opened == JobLedger.Opened(isDuplicate: true, added: 1))
      #expect(try await Self.rows(ledger, "j")["c7"]?.state == .routed)
      // Another content gets no rows, nor does a job that is cancelled.
      await #expect(throws: RoutingError.self) {
        _ = try await ledger.open(Self.job("j", text: "other"), notice: nil, clients: ["e"], now: 4)
      }
      #expect(try await ledger.cancel("j", reason: "", now: 5))
      opened = try await ledger.open(Self.job("j"), notice: nil, clients: ["f"], now: 6)
      #expect(opened == JobLedger.Opened(isDuplicate: true, added: 0))
      #expect(try await ledger.allRows(of: "j").count == 451)
    }
  }

  /// ms.
  static let day: Int64 = 24 * 3_600_000

  @Test(arguments: [
    (30 * JobLedgerTests.day, Int64(0), 31 * JobLedgerTests.day),
    (JobLedgerTests.day, 1 + 40 * JobLedgerTests.day, 41 * JobLedgerTests.day),
    (Int64.max, Int64.max, 366 * JobLedgerTests.day),
  ])
  func theKeysOfAJobOutliveItsMessage(ttl: Int64, deadline: Int64, least: Int64) async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      var job = Self.job("j")
      (job.ttlMs, job.deadlineMs) = (ttl, deadline)
      _ = try await ledger.open(job, notice: nil, clients: ["a"], now: 1)
      try await ledger.addRows("j", ["b"], now: 1)
      try await ledger.admitMembers(to: "j")
      let steps = [
        RowStep(job: "j", clients: ["a", "admitted"], to: .written), RowStep(job: "j", clients: ["b"], to: .failed),
      ]
      #expect(try await ledger.take(steps, now: 2) == [2, 1])
      let keys = try await redis.send("KEYS", "job:{j}*").asArray ?? []
      #expect(keys.count == 5)
      for key in keys {
        let left = try await redis.send("PTTL", .string(key.asString ?? "")).asInteger ?? 0
        #expect(left > least - 60_000 && left <= least + 2 * Self.day, "\(key)")
      }
    }
  }

  @Test func everyKeyOfAJobExpires() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      _ = try await ledger.open(Self.job("j"), notice: nil, now: 1)
      try await ledger.addRows("j", ["a", "b"], now: 1)
      try await ledger.take([RowStep(job: "j", clients: ["a"], to: .written)], now: 2)
      for key in try await redis.send("KEYS", "job:{j}*").asArray ?? [] {
        let left = try await redis.send("PTTL", .string(key.asString ?? "")).asInteger ?? 0
        #expect(left > 6 * 24 * 3_600_000, "\(key)")
      }
    }
  }
}

@Suite(.timeLimit(.minutes(1))) struct SilentRowsTests {
  @Test func silentRowsExpireWithTheTimeToLive() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      var job = JobLedgerTests.job("j")
      job.ttlMs = 1000
      _ = try await ledger.open(job, notice: nil, now: 5000)
      try await ledger.addRows("j", ["a", "b", "c"], now: 5000)
      try await ledger.take(
        [
          RowStep(job: "j", clients: ["a"], to: .acknowledged), RowStep(job: "j", clients: ["b"], to: .written),
          RowStep(job: "j", clients: ["c"], to: .accepted, RowFields(reason: "Stored.")),
        ], now: 5001)
      #expect(try await JobLedgerTests.rows(ledger, "j")["c"]?.reason == "Stored.")
      #expect(try await ledger.summary(of: "j", at: 5999).state == .running)
      #expect(try await ledger.summary(of: "j", at: 6000).state == .failed)
      let rows = try await JobLedgerTests.rows(ledger, "j")
      #expect(rows["a"]?.state == .acknowledged && rows["b"]?.state == .expired && rows["c"]?.state == .expired)
      #expect(rows["c"]?.reason == JobLedger.expiredReason)
      // Who comes late has it all the same.
      try await ledger.take([RowStep(job: "j", clients: ["b", "c"], to: .acknowledged)], now: 7000)
      #expect(try await ledger.summary(of: "j", at: 7000).state == .succeeded)
    }
  }

  @Test func pastTheDeadlineEveryOpenRowEnds() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      var job = JobLedgerTests.job("j")
      job.payload = .fileID("f")
      (job.ttlMs, job.deadlineMs) = (100, 9000)
      _ = try await ledger.open(job, notice: PushV1.FileNotice(fileID: "f"), now: 5000)
      try await ledger.addRows("j", ["a", "b"], now: 5000)
      try await ledger.take([RowStep(job: "j", clients: ["a"], to: .downloading, RowFields(percent: 5))], now: 5001)
      // One that fetches the file has had its message in time.
      #expect(
        try await ledger.summary(of: "j", at: 6000).counts.filter { $0.value > 0 } == [.downloading: 1, .expired: 1])
      #expect(try await ledger.summary(of: "j", at: 9000).state == .failed)
      #expect(try await JobLedgerTests.rows(ledger, "j")["a"]?.reason == "The job's deadline passed.")
    }
  }
}

@Suite(.timeLimit(.minutes(1))) struct DeadlinesTests {
  static func open(_ ledger: JobLedger, _ id: String, ttl: Int64, deadline: Int64 = 0) async throws {
    var job = JobLedgerTests.job(id)
    (job.ttlMs, job.deadlineMs) = (ttl, deadline)
    _ = try await ledger.open(job, notice: nil, now: 5000)
    try await ledger.addRows(id, ["a", "b"], now: 5000)
  }

  @Test func rowsEndWhenNobodyReadsTheJob() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      try await Self.open(ledger, "soon", ttl: 1000)
      try await Self.open(ledger, "later", ttl: 100_000, deadline: 9000)
      try await ledger.take([RowStep(job: "soon", clients: ["a"], to: .acknowledged)], now: 5001)
      #expect(try await ledger.endDue(now: 5999).jobs == 0)
      #expect(try await ledger.endDue(now: 6000).jobs == 1)
      let counts = try await ledger.summary(of: "soon").counts.filter { $0.value > 0 }
      #expect(counts == [.acknowledged: 1, .expired: 1])
      #expect(try await ledger.summary(of: "later").state == .running)
      #expect(try await ledger.endDue(now: 9000).jobs == 1)
      #expect(try await ledger.summary(of: "later").state == .failed)
      #expect(try await redis.send("ZCARD", "index:{deadlines}").asInteger == 0)
    }
  }

  @Test func aClaimKeepsOthersOutUntilItEnds() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      try await Self.open(ledger, "j", ttl: 1000)
      let claimed = try await ledger.store.one(
        .script(JobLedgerScripts.claimDue, keys: ["index:{deadlines}"], ["6000", "36000", "20"]))
      #expect(claimed.elements.map(\.text) == ["j"])
      #expect(try await ledger.endDue(now: 35_999).jobs == 0)
      // The node that had claimed it has died.
      #expect(try await ledger.endDue(now: 36_000).jobs == 1)
      #expect(try await ledger.summary(of: "j").state == .failed)
    }
  }

  @Test func aDownloadUnderWayComesAgainAtTheDeadline() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      var job = JobLedgerTests.job("j")
      job.payload = .fileID("f")
      job.ttlMs = 1000
      _ = try await ledger.open(job, notice: PushV1.FileNotice(fileID: "f"), now: 5000)
      try await ledger.addRows("j", ["a"], now: 5000)
      try await ledger.take([RowStep(job: "j", clients: ["a"], to: .downloading)], now: 5001)
      #expect(try await ledger.endDue(now: 6000).jobs == 1)
      #expect(try await ledger.summary(of: "j").state == .running)
      // It has no deadline of its own: a day after the time to live.
      let deadline: Int64 = 6000 + 86_400_000
      #expect(try await ledger.endDue(now: deadline - 1).jobs == 0)
      #expect(try await ledger.endDue(now: deadline).jobs == 1)
      #expect(try await ledger.summary(of: "j").counts.filter { $0.value > 0 } == [.expired: 1])
    }
  }

  @Test func aListShowsRowsThatAreOverAsExpired() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      // The list forgets what is older than a week.
      let now: Int64 = 1_800_000_000_000
      var job = JobLedgerTests.job("j")
      job.ttlMs = 1000
      _ = try await ledger.open(job, notice: nil, now: now)
      try await ledger.addRows("j", ["a", "b"], now: now)
      #expect(try await ledger.recent(runningOnly: true, at: now + 999).jobs.map(\.job.jobID) == ["j"])
      #expect(try await ledger.recent(runningOnly: true, at: now + 1000).jobs.isEmpty)
      let listed = try await ledger.recent(at: now + 1000).jobs
      #expect(listed.map(\.state) == [.failed] && listed[0].counts.filter { $0.value > 0 } == [.expired: 2])
      // Nothing was written for that.
      #expect(try await ledger.summary(of: "j").state == .running)
    }
  }

  @Test func aDeadlineThatIsOverIsNoneAnyMore() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      for number in 0..<45 { try await Self.open(ledger, "j\(number)", ttl: 1000) }
      // A job whose keys are gone leaves the index as well.
      _ = try await redis.send("DEL", "job:{j7}")
      var looks = 0
      while try await ledger.endDue(now: 6000).mayBeMore { looks += 1 }
      #expect(looks == 2)
      #expect(try await redis.send("ZCARD", "index:{deadlines}").asInteger == 0)
    }
  }
}
