import Bytes
import Reactor
import Redis
import Schema
import Testing

@testable import Routing

@Suite(.timeLimit(.minutes(1))) struct FleetLogTests {
  static func record(_ job: String, size: Int = 10, expiresAt: Int64 = 0, tags: [String: String] = [:]) -> PushRecord {
    PushRecord(
      target: .all(tags: tags), messageID: job, message: Bytes(Array(repeating: 120, count: size)), jobID: job,
      isAtLeastOnce: true, expiresAt: expiresAt)
  }

  static func place(_ log: FleetLog, _ record: PushRecord) async throws -> InboxPlace {
    guard case .kept(let place, _) = try await log.append(record) else { throw RoutingError(.corrupt, "not kept") }
    return place
  }

  static func jobs(_ page: FleetLog.Page) -> [String] { page.entries.map(\.record.jobID) }

  static func cursor(
    _ registry: Registry, log: String = "", head: Int64 = 0, tags: [String: String] = [:]
  ) async throws -> FleetPosition {
    var registration = RegistryTests.registration("c", on: "a", 1, tags: tags)
    (registration.logID, registration.logHead) = (log, head)
    return try await registry.register(registration).cursor
  }

  static func settle(_ registry: Registry, _ log: String, acked: Int64 = 0, written: Int64 = 0) async throws {
    var settlement = Settlement(client: "c", source: .fleet, inboxID: log)
    (settlement.acknowledged, settlement.written) = (acked, written)
    _ = try await Inboxes(registry).settle([settlement])[0].get()
  }

  @Test func whatIsAppendedIsReadInOrderAndOnce() async throws {
    try await withRedis { _, redis in
      let log = FleetLog(Registry(redis))
      #expect(try await log.head() == FleetLog.Head(logID: "", seq: 0, trimmed: 0, withdrawn: 0))
      #expect(try await log.read(after: 0).isComplete)
      var places: [InboxPlace] = []
      for number in 0..<5 {
        places.append(try await Self.place(log, Self.record("j\(number)", tags: ["n": "\(number)"])))
      }
      #expect(places.map(\.previous) == [0] + places.dropLast().map(\.seq))
      #expect(Set(places.map(\.inboxID)).count == 1)
      // A publisher's retry appends nothing.
      let again = try await Self.place(log, Self.record("j2"))
      #expect(again.seq == places[2].seq && again.inboxID == places[2].inboxID)
      #expect(try await log.knows("j2"))
      #expect(try await !log.knows("none"))
      let page = try await log.read(after: 0)
      #expect(Self.jobs(page) == ["j0", "j1", "j2", "j3", "j4"] && page.isComplete && page.end == places[4].seq)
      #expect(page.entries[3].record == Self.record("j3", tags: ["n": "3"]))
      let part = try await log.read(after: places[0].seq, entries: 2)
      #expect(Self.jobs(part) == ["j1", "j2"] && !part.isComplete && part.end == places[2].seq)
    }
  }

  @Test func theOldestGoWhenThereIsNoRoomAndAreNamed() async throws {
    try await withRedis { _, redis in
      var limits = FleetLog.Limits()
      limits.entries = 3
      let log = FleetLog(Registry(redis), limits: limits)
      var places: [InboxPlace] = []
      for number in 0..<3 { places.append(try await Self.place(log, Self.record("j\(number)"))) }
      guard case .kept(_, let trimmed) = try await log.append(Self.record("j3")) else {
        Issue.record("not kept")
        return
      }
      #expect(trimmed == ["j0"])
      #expect(try await Self.jobs(log.read(after: 0)) == ["j1", "j2", "j3"])
      #expect(try await log.head().trimmed == places[0].seq)
      // What was removed is not taken in again.
      #expect(try await log.append(Self.record("j0")) == .removed)
      // A large one makes room for itself by as many as it takes.
      limits.bytes = 1930
      guard
        case .kept(_, let more) = try await FleetLog(Registry(redis), limits: limits).append(
          Self.record("big", size: 1900))
      else {
        Issue.record("not kept")
        return
      }
      #expect(more == ["j1", "j2", "j3"])
      let fields = try await redis.send("HMGET", "log:{fleet}", "count", "bytes").asArray?.map { $0.asInteger ?? 0 }
      #expect(fields?[0] == 1 && (fields?[1] ?? 0) > 1900)
      #expect(try await redis.send("HLEN", "log:{fleet}:entries").asInteger == 1)
    }
  }

  @Test func whatIsWithdrawnIsGoneAndStaysKnown() async throws {
    try await withRedis { _, redis in
      let log = FleetLog(Registry(redis))
      for name in ["a", "b", "c"] { _ = try await Self.place(log, Self.record(name)) }
      #expect(try await log.withdraw("b"))
      for name in ["b", "none"] { #expect(try await !log.withdraw(name)) }
      #expect(try await Self.jobs(log.read(after: 0)) == ["a", "c"])
      #expect(try await log.append(Self.record("b")) == .removed)
      #expect(try await log.head().withdrawn == 1)
    }
  }

  @Test func entriesExpire() async throws {
    try await withRedis { loop, redis in
      let log = FleetLog(Registry(redis))
      let soon = EventLoop.wallClockMilliseconds() + 150
      #expect(try await log.append(Self.record("over", expiresAt: 1)) == .expired)
      _ = try await Self.place(log, Self.record("short", expiresAt: soon))
      let last = try await Self.place(log, Self.record("long"))
      while EventLoop.wallClockMilliseconds() <= soon + 20 { try await loop.sleep(for: .milliseconds(20)) }
      let page = try await log.read(after: 0)
      #expect(Self.jobs(page) == ["long"] && page.end == last.seq)
      let keys = try await redis.send("KEYS", "log:{fleet}*").asArray ?? []
      for key in keys { #expect(try await redis.send("PTTL", .string(key.asString ?? "")).asInteger ?? -1 > 0) }
    }
  }

  @Test func theNewestPartIsFound() async throws {
    try await withRedis { _, redis in
      let log = FleetLog(Registry(redis))
      #expect(try await log.findTail(entries: 10, bytes: 1000).head.logID == "")
      var places: [InboxPlace] = []
      for number in 0..<250 { places.append(try await Self.place(log, Self.record("j\(number)", size: 100))) }
      #expect(try await log.findTail(entries: 1000, bytes: 1 << 20).start == 0)
      #expect(try await log.findTail(entries: 120, bytes: 1 << 20).start == places[129].seq)
      let (head, start) = try await log.findTail(entries: 1000, bytes: 1000)
      #expect(start > places[230].seq && start < places[249].seq && head.seq == places[249].seq)
      #expect(try await log.read(after: start).entries.count == places.count { $0.seq > start })
    }
  }

  @Test func aCursorBeginsAtTheHeadAndMovesForwardOnly() async throws {
    try await withRedis { _, redis in
      let registry = Registry(redis)
      let start = FleetPosition(logID: "x", acknowledged: 100, written: 100, judged: 100)
      #expect(try await Self.cursor(registry, log: "x", head: 100) == start)
      // A node that knows more, or less, moves nobody.
      #expect(try await Self.cursor(registry, log: "x", head: 900) == start)
      try await Self.settle(registry, "x", acked: 150, written: 170)
      try await Self.settle(registry, "x", acked: 120, written: 110)
      try await Self.settle(registry, "older", acked: 90, written: 90)
      #expect(
        try await Self.cursor(registry, log: "x", head: 900)
          == FleetPosition(logID: "x", acknowledged: 150, written: 170, judged: 100))
      // A new life of the log goes on with higher numbers.
      try await Self.settle(registry, "y", acked: 500, written: 510)
      #expect(
        try await Self.cursor(registry, log: "y", head: 900)
          == FleetPosition(logID: "y", acknowledged: 500, written: 510, judged: 100))
      #expect(try await redis.send("PTTL", "cursor:{c}").asInteger ?? 0 > 0)
    }
  }

  @Test func otherTagsAreNotedWithTheHeadOfThatMoment() async throws {
    try await withRedis { _, redis in
      let registry = Registry(redis)
      _ = try await Self.cursor(registry, log: "x", head: 1, tags: ["a": "1", "b": "2"])
      #expect(try await Self.cursor(registry, log: "x", head: 50, tags: ["b": "2", "a": "1"]).judged == 1)
      #expect(try await Self.cursor(registry, log: "x", head: 60, tags: ["a": "1"]).judged == 60)
      #expect(try await Self.cursor(registry, log: "x", head: 70, tags: ["a": "2"]).judged == 70)
      #expect(try await Self.cursor(registry, log: "x", head: 80, tags: ["a": "2"]).judged == 70)
      #expect(try await Self.cursor(registry, log: "x", head: 90, tags: ["a": "2", "c": "1"]).judged == 90)
      // Nobody knows what the client was whose record is gone.
      _ = try await redis.send("DEL", "client:{c}")
      #expect(try await Self.cursor(registry, log: "x", head: 95, tags: ["a": "2", "c": "1"]).judged == 95)
    }
  }

  @Test func aJobThatAdmitsGivesARowToWhoReports() async throws {
    try await withRedis { _, redis in
      let ledger = JobLedger(redis)
      for id in ["closed", "open"] {
        _ = try await ledger.open(JobLedgerTests.job(id), notice: nil, now: 1)
        try await ledger.addRows(id, ["a"], now: 1)
      }
      try await ledger.admitMembers(to: "open")
      let steps = ["closed", "open"].map { RowStep(job: $0, clients: ["a", "late"], to: .acknowledged) }
      #expect(try await ledger.take(steps + steps, now: 2) == [1, 2, 0, 0])
      #expect(try await ledger.summary(of: "open").counts[.acknowledged] == 2)
      #expect(try await ledger.summary(of: "open").state == .succeeded)
      #expect(try await JobLedgerTests.rows(ledger, "open")["late"]?.state == .acknowledged)
      #expect(try await ledger.haveRows(["closed", "open", "none"], of: "late") == [false, true, false])
      #expect(try await redis.send("PTTL", "job:{open}:row:late").asInteger ?? 0 > 0)
    }
  }

  @Test func aWithdrawnMessageLeavesItsInbox() async throws {
    try await InboxesTests.scene { _, redis, inboxes, _ in
      for name in ["a", "b", "c"] { _ = try await InboxesTests.place(inboxes, InboxesTests.record(name)) }
      try await inboxes.withdraw([("c", "b/c"), ("c", "none/c"), ("stranger", "b/stranger")])
      #expect(try await inboxes.read("c", after: []).messages.map(\.messageID) == ["a/c", "c/c"])
      #expect(try await InboxesTests.append(inboxes, InboxesTests.record("b")) == .acknowledged)
      #expect(try await redis.send("HGET", "inbox:{c}", "count").asInteger == 2)
    }
  }

  /// A node takes a hint whose predecessor is the newest entry that it knows: a wrong one would have it pass over others.
  @Test func aRepetitionNamesTheEntryBefore() async throws {
    try await withRedis { _, redis in
      let log = FleetLog(Registry(redis))
      var places: [InboxPlace] = []
      for number in 0..<3 { places.append(try await Self.place(log, Self.record("j\(number)"))) }
      for number in 0..<3 { #expect(try await Self.place(log, Self.record("j\(number)")) == places[number]) }
    }
  }
}
