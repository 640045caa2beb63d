import Bytes
import Reactor
import Redis
import Testing

@testable import Routing

@Suite(.timeLimit(.minutes(1))) struct InboxesTests {
  static func record(_ job: String, _ text: String = "", client: String = "c", expiresAt: Int64 = 0) -> PushRecord {
    PushRecord(
      target: .client(client), messageID: "\(job)/\(client)", message: Bytes(text.isEmpty ? job : text), jobID: job,
      isAtLeastOnce: true, expiresAt: expiresAt)
  }

  /// Runs a story with the inboxes of a Redis that knows the client `c`, which is on no node.
  static func scene(
    _ limits: Inboxes.Limits = Inboxes.Limits(),
    _ body: @escaping @Sendable (EventLoop, RedisClient, Inboxes, Registry) async throws -> Void
  ) async throws {
    try await withRedis { loop, redis in
      let registry = Registry(redis)
      _ = try await registry.register(RegistryTests.registration("c", on: "a", 1))
      try await body(loop, redis, Inboxes(registry, limits: limits), registry)
    }
  }

  static func append(_ inboxes: Inboxes, _ record: PushRecord) async throws -> Inboxes.Appended {
    try await inboxes.append([record])[0].get()
  }

  static func place(_ inboxes: Inboxes, _ record: PushRecord) async throws -> InboxPlace {
    guard case .kept(let place, _, _) = try await append(inboxes, record) else {
      throw RoutingError(.corrupt, "not kept")
    }
    return place
  }

  static func settle(
    _ inboxes: Inboxes, _ inboxID: String, acked: Int64 = 0, written: Int64 = 0, ids: [String] = []
  ) async throws -> Settled {
    var settlement = Settlement(client: "c", inboxID: inboxID)
    (settlement.acknowledged, settlement.written, settlement.messageIDs) = (acked, written, ids)
    return try await inboxes.settle([settlement])[0].get()
  }

  @Test func whatIsAppendedIsReadInOrderAndTheClientIsLookedUp() async throws {
    try await Self.scene { _, _, inboxes, registry in
      #expect(try await inboxes.read("c", after: []).inboxID == "")
      var places: [InboxPlace] = []
      for number in 0..<5 { places.append(try await Self.place(inboxes, Self.record("j\(number)"))) }
      #expect(places.map(\.previous) == [0] + places.dropLast().map(\.seq))
      #expect(zip(places, places.dropFirst()).allSatisfy { $0.seq < $1.seq && $0.inboxID == $1.inboxID })
      #expect(
        try await Self.append(inboxes, Self.record("j9"))
          == .kept(
            InboxPlace(
              inboxID: places[0].inboxID, seq: try await inboxes.read("c", after: []).head, previous: places[4].seq),
            node: "a", nodeEpoch: 1))
      let page = try await inboxes.read("c", after: [])
      #expect(page.messages.map(\.messageID) == ["j0/c", "j1/c", "j2/c", "j3/c", "j4/c", "j9/c"])
      #expect(page.messages.map(\.message)[1] == Bytes("j1") && page.isComplete && page.position == 0)
      // From a position on, in pages.
      let from = InboxPosition(inboxID: places[0].inboxID, seq: places[1].seq)
      let part = try await inboxes.read("c", after: [InboxPosition(inboxID: "other", seq: .max), from], messages: 2)
      #expect(part.messages.map(\.messageID) == ["j2/c", "j3/c"] && !part.isComplete && part.position == from.seq)
      #expect(try await Self.append(inboxes, Self.record("j", client: "stranger")) == .unknown)
      #expect(try await inboxes.read("stranger", after: []).inboxID == "")
      _ = registry
    }
  }

  @Test func aLongInboxIsReadInPages() async throws {
    try await Self.scene { _, _, inboxes, _ in
      let records = (0..<730).map { Self.record("j\($0)", String(repeating: "x", count: $0 % 10 == 0 ? 20_000 : 10)) }
      for answer in await inboxes.append(records) { _ = try answer.get() }
      var seen: [String] = []
      var position = InboxPosition(inboxID: "", seq: 0)
      while true {
        let page = try await inboxes.read("c", after: [position])
        #expect(page.messages.count <= Inboxes.pageMessages)
        #expect(page.messages.reduce(0) { $0 + $1.message.count } <= Inboxes.pageBytes)
        seen += page.messages.map(\.messageID)
        guard !page.isComplete, let last = page.messages.last else { break }
        position = InboxPosition(inboxID: page.inboxID, seq: last.seq)
      }
      #expect(seen == records.map(\.messageID))
    }
  }

  @Test func publishingTwiceIsPublishingOnce() async throws {
    try await Self.scene { _, _, inboxes, _ in
      _ = try await Self.place(inboxes, Self.record("before"))
      let first = try await Self.place(inboxes, Self.record("j"))
      _ = try await Self.place(inboxes, Self.record("k"))
      #expect(try await Self.place(inboxes, Self.record("j", "other bytes")) == first)
      #expect(try await inboxes.read("c", after: []).messages.count == 3)
      _ = try await Self.settle(inboxes, first.inboxID, acked: first.seq)
      #expect(try await Self.append(inboxes, Self.record("j")) == .acknowledged)
      #expect(try await inboxes.read("c", after: []).messages.map(\.messageID) == ["k/c"])
    }
  }

  @Test func acknowledgementsAreCumulativeAndOfOneInbox() async throws {
    try await Self.scene { _, redis, inboxes, _ in
      var places: [InboxPlace] = []
      for number in 0..<6 { places.append(try await Self.place(inboxes, Self.record("j\(number)"))) }
      let id = places[0].inboxID
      #expect(try await Self.settle(inboxes, "another", acked: .max).messageIDs == [])
      #expect(try await inboxes.read("c", after: []).messages.count == 6)
      #expect(try await Self.settle(inboxes, id, acked: places[2].seq, written: places[3].seq).messageIDs.count == 3)
      #expect(try await Self.settle(inboxes, id, acked: places[1].seq, written: places[1].seq).messageIDs == [])
      #expect(try await Self.settle(inboxes, "", ids: ["j4/c", "none/c"]).messageIDs == [])
      let page = try await inboxes.read("c", after: [])
      #expect(page.messages.map(\.messageID) == ["j3/c", "j5/c"] && page.written == places[3].seq)
      #expect(try await Self.settle(inboxes, id, acked: .max >> 11).messageIDs == ["j3/c", "j5/c"])
      let fields = try await redis.send("HMGET", "inbox:{c}", "count", "bytes").asArray?.map(\.asInteger)
      #expect(fields == [0, 0])
      // What comes next is after all of that.
      #expect(try await Self.place(inboxes, Self.record("k")).previous == places[5].seq)
    }
  }

  @Test func aLargeAcknowledgementIsTakenInPieces() async throws {
    try await Self.scene { _, redis, inboxes, _ in
      let records = (0..<2500).map { Self.record("j\($0)") }
      for answer in await inboxes.append(records) { _ = try answer.get() }
      let page = try await inboxes.read("c", after: [])
      var dropped = 0
      var rounds = 0
      while true {
        let settled = try await Self.settle(inboxes, page.inboxID, acked: page.head)
        dropped += settled.messageIDs.count
        rounds += 1
        if settled.isComplete { break }
      }
      #expect(dropped == 2500 && rounds == 3)
      #expect(try await redis.send("ZCARD", "inbox:{c}:ids").asInteger == Int64(InboxScripts.rememberedIDs))
      #expect(try await redis.send("EXISTS", "inbox:{c}:messages").asInteger == 0)
    }
  }

  @Test func aFullInboxRefuses() async throws {
    var limits = Inboxes.Limits()
    (limits.messages, limits.bytes) = (3, 100)
    try await Self.scene(limits) { _, _, inboxes, _ in
      let place = try await Self.place(inboxes, Self.record("j0"))
      #expect(
        try await Self.append(inboxes, Self.record("big", String(repeating: "x", count: 99)))
          == .full(
            "The inbox of the client is full: 1 messages with 2 bytes wait in it, of at most 3 with 100."))
      for number in 1..<3 { _ = try await Self.place(inboxes, Self.record("j\(number)")) }
      guard case .full = try await Self.append(inboxes, Self.record("j3")) else {
        Issue.record("taken in")
        return
      }
      // A retry of what is in it is none, and room is made by acknowledging.
      #expect(try await Self.place(inboxes, Self.record("j0")) == place)
      _ = try await Self.settle(inboxes, place.inboxID, acked: place.seq)
      _ = try await Self.place(inboxes, Self.record("j3"))
    }
  }

  @Test func messagesExpireAndLeaveHolesThatPreviousProves() async throws {
    try await Self.scene { loop, _, inboxes, _ in
      let soon = EventLoop.wallClockMilliseconds() + 200
      #expect(try await Self.append(inboxes, Self.record("gone", expiresAt: 1)) == .expired)
      let first = try await Self.place(inboxes, Self.record("j0"))
      for number in 1..<4 { _ = try await Self.place(inboxes, Self.record("j\(number)", expiresAt: soon)) }
      while EventLoop.wallClockMilliseconds() <= soon + 20 { try await loop.sleep(for: .milliseconds(20)) }
      let page = try await inboxes.read("c", after: [])
      #expect(page.messages.map(\.messageID) == ["j0/c"] && page.isComplete && page.head > first.seq)
      #expect(try await Self.place(inboxes, Self.record("j4")).previous == first.seq)
    }
  }

  @Test func aClientThatIsFurtherThanItsInboxMakesANewOne() async throws {
    try await Self.scene { _, _, inboxes, _ in
      let place = try await Self.place(inboxes, Self.record("j0"))
      let ahead = InboxPosition(inboxID: place.inboxID, seq: place.seq + 1)
      let page = try await inboxes.read("c", after: [ahead])
      #expect(page.inboxID != place.inboxID && page.position == 0 && page.messages.map(\.messageID) == ["j0/c"])
      _ = try await Self.settle(inboxes, place.inboxID, acked: .max >> 11)
      #expect(try await inboxes.read("c", after: []).messages.count == 1)
    }
  }

  @Test func noNumberIsGivenTwiceAlsoWhenRedisLostTheNewest() async throws {
    try await Self.scene { _, redis, inboxes, _ in
      let first = try await Self.place(inboxes, Self.record("j0"))
      let dump = try await redis.send("HGETALL", "inbox:{c}").asArray ?? []
      let lost = try await Self.place(inboxes, Self.record("j1"))
      // Redis comes back with what it had written down before.
      _ = try await redis.send("DEL", "inbox:{c}")
      for index in stride(from: 0, to: dump.count, by: 2) {
        _ = try await redis.send(
          "HSET", "inbox:{c}", .bytes(dump[index].asBytes ?? Bytes()), .bytes(dump[index + 1].asBytes ?? Bytes()))
      }
      _ = try await redis.send("ZREM", "inbox:{c}:ids", "j1/c")
      let next = try await Self.place(inboxes, Self.record("j2"))
      #expect(next.inboxID == first.inboxID && next.previous == first.seq && next.seq > lost.seq)
    }
  }

  @Test func aFlushMakesANewInbox() async throws {
    try await Self.scene { _, redis, inboxes, registry in
      let old = try await Self.place(inboxes, Self.record("j0"))
      _ = try await redis.send("FLUSHALL")
      #expect(try await Self.append(inboxes, Self.record("j1")) == .unknown)
      _ = try await registry.register(RegistryTests.registration("c", on: "a", 1))
      let new = try await Self.place(inboxes, Self.record("j1"))
      #expect(new.inboxID != old.inboxID && new.previous == 0)
      #expect(try await Self.settle(inboxes, old.inboxID, acked: .max >> 11).messageIDs == [])
      #expect(try await inboxes.read("c", after: []).messages.count == 1)
    }
  }

  @Test func everyKeyOfAnInboxExpires() async throws {
    try await Self.scene { _, redis, inboxes, _ in
      let month: Int64 = 30 * 24 * 3_600_000
      _ = try await Self.place(inboxes, Self.record("j0", expiresAt: EventLoop.wallClockMilliseconds() + month))
      let place = try await Self.place(
        inboxes, Self.record("j1", expiresAt: EventLoop.wallClockMilliseconds() + 60_000))
      _ = try await Self.settle(inboxes, place.inboxID, written: place.seq)
      _ = try await inboxes.read("c", after: [])
      let keys = try await redis.send("KEYS", "inbox:{c}*").asArray ?? []
      #expect(keys.count == 4)
      for key in keys {
        let left = try await redis.send("PTTL", .string(key.asString ?? "")).asInteger ?? 0
        #expect(left > month - 60_000 && left <= month, "\(key)")
      }
    }
  }

  @Test func aRefreshSeesTheHeadOfTheInbox() async throws {
    try await Self.scene { _, _, inboxes, registry in
      let answer = try await registry.register(RegistryTests.registration("c", on: "a", 1))
      let session = Registry.Refresh(client: "c", epoch: answer.epoch, lastActive: 1)
      #expect(
        try await registry.refresh([session], nodeEpoch: 1)[0].get()
          == Registry.Refreshed(ownership: .held, inbox: InboxPosition(inboxID: "", seq: 0)))
      let place = try await Self.place(inboxes, Self.record("j0"))
      #expect(
        try await registry.refresh([session], nodeEpoch: 1)[0].get().inbox
          == InboxPosition(inboxID: place.inboxID, seq: place.seq))
    }
  }

  @Test func idsOfMessagesThatAreAcknowledgedOneByOneAreForgotten() async throws {
    try await Self.scene { _, redis, inboxes, _ in
      let first = try await Self.place(inboxes, Self.record("first"))
      for number in 0..<300 {
        _ = try await Self.place(inboxes, Self.record("j\(number)"))
        _ = try await Self.settle(inboxes, "", ids: ["j\(number)/c"])
      }
      // What waits holds back what is behind it, and nothing is lost.
      #expect(try await inboxes.read("c", after: []).messages.map(\.seq) == [first.seq])
      _ = try await Self.settle(inboxes, "", ids: ["first/c"])
      let left = try await redis.send("ZCARD", "inbox:{c}:ids").asInteger ?? 0
      #expect(left <= Int64(InboxScripts.rememberedIDs))
      #expect(try await Self.append(inboxes, Self.record("j299")) == .acknowledged)
      let next = try await Self.place(inboxes, Self.record("next"))
      let page = try await inboxes.read("c", after: [InboxPosition(inboxID: first.inboxID, seq: first.seq)])
      #expect(page.messages.map(\.seq) == [next.seq])
    }
  }
}
