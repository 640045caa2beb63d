import Bytes
import Reactor
import Redis
import Testing

@testable import Routing

@Suite(.timeLimit(.minutes(1))) struct PresenceTests {
  static func record(_ epoch: Int64, node: String = "a", nodeEpoch: Int64 = 1) -> ClientRecord {
    ClientRecord(
      id: "c", node: node, nodeEpoch: nodeEpoch, session: "s", epoch: epoch, tags: [:], peer: "", connectedAt: 0,
      lastActive: 0)
  }

  /// What was told before, with the record that it came from: session 5, vouched for in the node's epoch 2.
  enum Before: CaseIterable {
    case nothing, online, offline

    func table() -> PresenceTable {
      var table = PresenceTable()
      switch self {
      case .nothing: break
      case .online: _ = table.saw(record(5, nodeEpoch: 2), isHeld: true)
      case .offline: _ = table.saw(record(5, node: ""), isHeld: false)
      }
      return table
    }
  }

  struct Row: Sendable {
    var record: ClientRecord
    var isHeld: Bool
    var nothing: PresenceChange?
    var online: PresenceChange?
    var offline: PresenceChange?
  }

  static let rows = [
    Row(record: record(6), isHeld: true, nothing: .online, online: .replaced, offline: .online),
    Row(record: record(6), isHeld: false, nothing: .offline, online: .offline, offline: nil),
    Row(record: record(6, node: ""), isHeld: false, nothing: .offline, online: .offline, offline: nil),
    // The same session: vouched for anew, and at its end.
    Row(record: record(5, nodeEpoch: 3), isHeld: true, nothing: .online, online: nil, offline: nil),
    Row(record: record(5, node: ""), isHeld: false, nothing: .offline, online: .offline, offline: nil),
    // Older: an earlier session, and what the node vouched for before.
    Row(record: record(4, nodeEpoch: 9), isHeld: true, nothing: .online, online: nil, offline: nil),
    Row(record: record(5, nodeEpoch: 1), isHeld: false, nothing: .offline, online: nil, offline: nil),
  ]

  @Test(arguments: rows) func recordsAreToldByWhatWasToldBefore(_ row: Row) {
    for (before, expected) in [(Before.nothing, row.nothing), (.online, row.online), (.offline, row.offline)] {
      var table = before.table()
      #expect(table.saw(row.record, isHeld: row.isHeld) == expected, "\(before)")
    }
  }

  @Test func aLeaseThatEndsAndComesBackIsTold() {
    var table = Before.online.table()
    #expect(table.clients(of: "a") == ["c"] && table.clients(of: "b").isEmpty)
    #expect(table.settle("c") { _ in true } == nil)
    #expect(table.settle("c") { _ in false } == .offline)
    #expect(table.settle("c") { _ in false } == nil)
    #expect(table.saw(Self.record(5, nodeEpoch: 3), isHeld: true) == .online)
  }

  @Test func whoseRecordIsGoneIsForgotten() {
    var table = Before.online.table()
    table.beginReading()
    #expect(table.saw(Self.record(5, nodeEpoch: 2), isHeld: true) == nil)
    #expect(table.endReading().isEmpty && table.count == 1)
    table.beginReading()
    #expect(table.endReading().map(\.id) == ["c"] && table.count == 0)
    table = Before.offline.table()
    table.beginReading()
    #expect(table.endReading().isEmpty && table.count == 0)
  }

  @Test func whatIsHeardOfANodeCountsMoreThanAnOlderList() {
    var nodes = LivingNodes()
    #expect(nodes.read(["a": 1], askedAt: 10) == ["a"])
    #expect(
      nodes.hold(Self.record(5)) && !nodes.hold(Self.record(5, nodeEpoch: 2)) && !nodes.hold(Self.record(5, node: "")))
    #expect(nodes.vouched("a", epoch: 1, now: 20) == false)
    // The list was asked for before it was heard.
    #expect(nodes.read([:], askedAt: 15) == [] && nodes.hold(Self.record(5)))
    #expect(nodes.read([:], askedAt: 25) == ["a"] && !nodes.hold(Self.record(5)))
    #expect(nodes.vouched("a", epoch: 2, now: 30) == true)
    #expect(nodes.vouched("a", epoch: 1, now: 31) == false)
    #expect(nodes.read(["a": 1], askedAt: 30) == [] && nodes.hold(Self.record(5, nodeEpoch: 2)))
    #expect(nodes.read(["a": 3], askedAt: 40) == ["a"])
  }

  @Test(arguments: ["", "x", "1:c1:", "1:c9:short", ":", "0:", "3:a/b", "9999999999:c", "-1:c", "1:c4:node"])
  func messagesOfOthersAreNone(_ text: String) {
    #expect(Registry.record(told: Bytes(text)) == nil)
  }

  /// Every change of a record is told by the call that makes it, with the record as it is then.
  @Test func changesAreToldAsTheyAreMade() async throws {
    try await withRedis { loop, redis in
      let registry = Registry(redis)
      let subscriber = RedisSubscriber(loop: loop, address: redis.address)
      defer { subscriber.close() }
      let (subscribed, arrival) = (Wakeup(), Wakeup())
      var told: [ClientRecord] = []
      subscriber.onSubscribed = { _ in subscribed.fire() }
      subscriber.onMessage = { _, message in
        if let record = Registry.record(told: message) { told.append(record) }
        arrival.fire()
      }
      subscriber.subscribe(Registry.presenceChannel)
      await subscribed.wait()
      func next() async -> ClientRecord {
        while told.isEmpty { await arrival.wait() }
        return told.removeFirst()
      }

      let registered = try await registry.register(
        RegistryTests.registration("c1", on: "a", 7, session: "s", tags: ["k:1": "v\n2:"]))
      var record = await next()
      #expect(record.id == "c1" && record.node == "a" && record.nodeEpoch == 7 && record.epoch == registered.epoch)
      #expect(record.tags == ["k:1": "v\n2:"] && record.session == "s" && record.connectedAt > 0)
      let session = [Registry.Refresh(client: "c1", epoch: registered.epoch, lastActive: 1)]
      // What changes nothing for a watcher isn't told.
      _ = await registry.refresh(session, nodeEpoch: 7)
      _ = await registry.refresh([Registry.Refresh(client: "c1", epoch: 1, lastActive: 1)], nodeEpoch: 9)
      _ = await registry.refresh(session, nodeEpoch: 8)
      record = await next()
      #expect(record.node == "a" && record.nodeEpoch == 8)
      _ = await registry.release([Registry.Refresh(client: "c1", epoch: 1, lastActive: 1)])
      _ = await registry.release(session)
      record = await next()
      #expect(record.node.isEmpty && record.epoch == registered.epoch && told.isEmpty)
    }
  }

  @Test func aKnownClientIsRegisteredInOneCall() async throws {
    try await withRedis { _, redis in
      let registry = Registry(redis)
      func calls(_ command: String) async throws -> Int {
        let text = try await redis.send("INFO", "commandstats").asString ?? ""
        let line = text.split(whereSeparator: \.isNewline).first { $0.hasPrefix("cmdstat_\(command):calls=") }
        return Int(line?.split(separator: "=")[1].prefix { $0.isNumber } ?? "0") ?? -1
      }
      _ = try await registry.register(RegistryTests.registration("c", on: "a", 1))
      #expect(try await calls("zadd") == 1)
      // The note in the record comes behind the entry in the list.
      while try await redis.send("HGET", "client:{c}", "listed").isNull {}
      _ = try await registry.register(RegistryTests.registration("c", on: "b", 1))
      _ = try await registry.register(RegistryTests.registration("c", on: "a", 1))
      #expect(try await calls("zadd") == 1)
      #expect(try await registry.clients(after: "", limit: 10).items.map(\.record.id) == ["c"])
      // A record that was lost is a new one.
      _ = try await redis.send("DEL", "client:{c}")
      #expect(try await registry.clients(after: "", limit: 10).items.isEmpty)
      _ = try await registry.register(RegistryTests.registration("c", on: "a", 1))
      #expect(try await registry.clients(after: "", limit: 10).items.count == 1)
    }
  }
}
