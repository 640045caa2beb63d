import Reactor
import Redis
import Routing
import Testing

@Suite(.timeLimit(.minutes(1))) struct RegistryTests {
  static func registration(
    _ client: String, on node: String, _ nodeEpoch: Int64, session: String = Name.random(), last: String = "",
    tags: [String: String] = [:]
  ) -> SessionRegistration {
    SessionRegistration(
      client: client, node: node, nodeEpoch: nodeEpoch, session: session, lastSession: last, peer: "10.0.0.1:5",
      tags: tags)
  }

  static func acquire(
    _ registry: Registry, _ node: String, partition: Int32 = 0, lease: Duration = .seconds(10)
  ) async throws -> Int64 {
    try await registry.acquireNode(
      node, address: "\(node):7000", partition: partition, lease: lease, startedAt: 1)
  }

  @Test func aClientIsWhereItRegisteredLast() async throws {
    try await withRedis { _, redis in
      let registry = Registry(redis)
      #expect(try await registry.locate(["c"]) == [.unknown])
      let a = try await Self.acquire(registry, "a", partition: 3)
      let b = try await Self.acquire(registry, "b")
      let first = try await registry.register(Self.registration("c", on: "a", a, session: "s1", tags: ["site": "x"]))
      #expect(first.previousNode == "" && first.previousEpoch == 0 && !first.resumed)
      guard case .online(let record, let node) = try await registry.locate(["c"])[0] else {
        Issue.record("not online")
        return
      }
      #expect(record.tags == ["site": "x"] && record.session == "s1" && record.epoch == first.epoch)
      #expect(record.peer == "10.0.0.1:5" && record.connectedAt > 0)
      #expect(node.partition == 3 && node.address == "a:7000" && node.leaseLeft > 0)

      let second = try await registry.register(Self.registration("c", on: "b", b, session: "s2", last: "s1"))
      #expect(second.epoch > first.epoch && second.previousNode == "a" && second.resumed)
      #expect(second.previousEpoch == first.epoch)
      guard case .online(let moved, let holder) = try await registry.locate(["c"])[0] else {
        Issue.record("not online")
        return
      }
      #expect(holder.id == "b" && moved.tags.isEmpty)
    }
  }

  @Test func aStaleOwnerCanNeitherRefreshNorRemove() async throws {
    try await withRedis { _, redis in
      let registry = Registry(redis)
      let a = try await Self.acquire(registry, "a")
      let old = try await registry.register(Self.registration("c", on: "a", a))
      let new = try await registry.register(Self.registration("c", on: "a", a))
      func session(_ epoch: Int64) -> [Registry.Refresh] {
        [Registry.Refresh(client: "c", epoch: epoch, lastActive: 7)]
      }
      #expect(try await registry.refresh(session(old.epoch), nodeEpoch: a)[0].get().ownership == .lost)
      #expect(try await registry.release(session(old.epoch))[0].get() == .lost)
      guard case .online(let record, _) = try await registry.locate(["c"])[0] else {
        Issue.record("the newer session was touched")
        return
      }
      #expect(record.epoch == new.epoch && record.lastActive != 7)

      #expect(try await registry.refresh(session(new.epoch), nodeEpoch: a)[0].get().ownership == .held)
      #expect(try await registry.release(session(new.epoch))[0].get() == .held)
      #expect(try await registry.locate(["c"]) == [.offline])
      let later = try await registry.register(Self.registration("c", on: "a", a))
      #expect(later.epoch > new.epoch)
    }
  }

  @Test func anEpochGrowsAlsoWhenRedisLostTheRecord() async throws {
    try await withRedis { _, redis in
      let registry = Registry(redis)
      let first = try await registry.register(Self.registration("c", on: "a", 1))
      let node = try await Self.acquire(registry, "a")
      _ = try await redis.send("FLUSHALL")
      let session = Registry.Refresh(client: "c", epoch: first.epoch, lastActive: 1)
      #expect(try await registry.refresh([session], nodeEpoch: node)[0].get().ownership == .absent)
      #expect(try await registry.register(Self.registration("c", on: "a", 1)).epoch > first.epoch)
      #expect(try await Self.acquire(registry, "a") > node)
    }
  }

  @Test func aClientIsOfflineWhenItsNodesLeaseEnds() async throws {
    try await withRedis { loop, redis in
      let registry = Registry(redis)
      let epoch = try await Self.acquire(registry, "a", lease: .milliseconds(200))
      _ = try await registry.register(Self.registration("c", on: "a", epoch))
      guard case .online = try await registry.locate(["c"])[0] else {
        Issue.record("not online")
        return
      }
      while try await registry.locate(["c"]) != [.offline] { try await loop.sleep(for: .milliseconds(20)) }
      func renew(_ epoch: Int64) async throws -> Ownership {
        try await registry.renewNode(
          "a", epoch: epoch, topic: "t", partition: 0, partitions: 1, lease: .seconds(10), clients: 1)
      }
      #expect(try await renew(epoch) == .absent)
      // In its new epoch the node vouches for its sessions one by one.
      let next = try await Self.acquire(registry, "a")
      #expect(try await registry.locate(["c"]) == [.offline])
      #expect(try await renew(epoch) == .lost)
      #expect(try await renew(next) == .held)
    }
  }

  @Test func partitionsAreFreeFirstThenTheLeastShared() async throws {
    try await withRedis { loop, redis in
      let registry = Registry(redis)
      func lease(_ node: String, _ time: Duration = .seconds(10)) async throws -> Int32 {
        try await registry.leasePartition(node: node, topic: "t", partitions: 3, lease: time)
      }
      #expect(try await lease("a") == 0)
      #expect(try await lease("b") == 1)
      #expect(try await lease("a") == 0)
      #expect(try await lease("c", .milliseconds(100)) == 2)
      try await loop.sleep(for: .milliseconds(150))
      #expect(try await lease("d") == 2)
      #expect(try await lease("e") == 0)
      #expect(try await lease("f") == 1)
      #expect(try await lease("g") == 2)
      #expect(try await lease("h") == 0)
      let node = try await Self.acquire(registry, "g", partition: 2)
      try await registry.releaseNode("g", epoch: node, topic: "t", partition: 2)
      #expect(try await lease("i") == 2)
      #expect(try await registry.nodes().items.isEmpty)
    }
  }

  @Test func clientsAndNodesAreListedInPages() async throws {
    try await withRedis { _, redis in
      let registry = Registry(redis)
      let epoch = try await Self.acquire(registry, "a")
      for number in 10..<35 {
        let client = "c\(number)"
        let answer = try await registry.register(Self.registration(client, on: "a", epoch))
        if number % 5 == 0 {
          _ = await registry.release([Registry.Refresh(client: client, epoch: answer.epoch, lastActive: 1)])
        }
      }
      var seen: [String] = []
      var online = 0
      var after: String? = ""
      while let start = after {
        let page = try await registry.clients(after: start, limit: 10)
        #expect(page.items.count <= 10)
        seen += page.items.map(\.record.id)
        online += page.items.filter(\.isOnline).count
        after = page.next
      }
      #expect(seen == (10..<35).map { "c\($0)" })
      #expect(online == 20)
      #expect(try await registry.clients(after: "", limit: 1000, onlineOnly: true).items.count == 20)
      // An id whose record is gone leaves the list.
      _ = try await redis.send("DEL", "client:{c11}")
      #expect(try await registry.clients(after: "", limit: 1000).items.count == 24)
      #expect(try await registry.nodes().items.map(\.id) == ["a"])
    }
  }

  /// The list is read all the time while clients register, each time with scripts that Redis doesn't know yet.
  @Test func readingTheListLosesNobodyWhoRegisters() async throws {
    try await withRedis { loop, redis in
      let other = RedisClient(loop: loop, address: redis.address)
      defer { other.close() }
      try await other.connect()
      let (registry, reader) = (Registry(redis), Registry(other))
      let epoch = try await Self.acquire(registry, "a")
      var isRegistering = true
      let reading = loop.spawn {
        while isRegistering { _ = try? await reader.clients(after: "", limit: 1000) }
      }
      let clients = (100..<200).map { "c\($0)" }
      for client in clients {
        _ = try await redis.send("SCRIPT", "FLUSH")
        _ = try await registry.register(Self.registration(client, on: "a", epoch))
      }
      isRegistering = false
      await reading.value
      #expect(try await reader.clients(after: "", limit: 1000).items.map(\.record.id) == clients)
    }
  }

  @Test func aRecordThatIsRestoredTakesNothingFromASessionThatHasComeMeanwhile() async throws {
    try await withRedis { _, redis in
      let registry = Registry(redis)
      let (a, b) = (try await Self.acquire(registry, "a"), try await Self.acquire(registry, "b"))
      var older = Self.registration("c", on: "a", a, session: "s1")
      _ = try await registry.register(older)
      older.isRestored = true
      _ = try await redis.send("FLUSHALL")
      _ = (try await Self.acquire(registry, "a"), try await Self.acquire(registry, "b"))
      #expect(try await registry.register(older).newerStream == 0)
      // The answer was lost, and it is said again.
      #expect(try await registry.register(older).newerStream == 0)
      let newer = try await registry.register(Self.registration("c", on: "b", b, session: "s2"))
      #expect(try await registry.register(older).newerStream > 0)
      #expect(try await redis.send("HGET", "client:{c}", "epoch").asString == String(newer.epoch))
    }
  }
}
