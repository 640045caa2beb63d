import GRPC
import GatewayService
import Kafka
import Protobuf
import Reactor
import Redis
import Routing
import Safeguards
import Schema
import TestSupport
import Testing

/// Races and deaths, each played with the mechanism that keeps the promise, and without it: then it has to be broken, or
/// the test would show nothing.
@Suite(.timeLimit(.minutes(1))) struct RaceTests {
  /// How long a message may take that a mechanism has to bring: those under test act within half a second.
  static let patience = Duration.seconds(5)
  /// How long the others are waited for that nothing brings.
  static let hopeless = Duration.seconds(2)

  /// The text that comes next; nil when none has come in time.
  static func nextText(_ client: TestClient, _ cluster: Cluster, _ isKept: Bool) async throws -> String? {
    let arrived = Arrived()
    let timer = cluster.loop.schedule(after: isKept ? patience : hopeless) { arrived.fire(nil) }
    defer { timer.cancel() }
    cluster.loop.spawn { arrived.fire(try? await client.text()) }
    return await arrived.text()
  }

  final class Arrived {
    private var isOver = false
    private var text: String?
    private let wakeup = Wakeup()

    func fire(_ text: String?) {
      guard !isOver else { return }
      (isOver, self.text) = (true, text)
      wakeup.fire()
    }

    func text() async -> String? {
      while !isOver { await wakeup.wait() }
      return text
    }
  }

  static func node(_ gateway: TestGateway) async throws -> NodeRecord {
    try #require(try await Registry(gateway.redis).nodes(named: [gateway.name])[gateway.name])
  }

  static func epoch(of client: String, _ gateway: TestGateway) async throws -> Int64 {
    guard case .online(let record, _) = try await Registry(gateway.redis).locate([client])[0] else { return 0 }
    return record.epoch
  }

  // MARK: Takeover

  /// The client has moved; what the older node still has to say of it comes after that.
  @Test(arguments: [Safeguards.all, .all.subtracting(.fencing)])
  func whatAnOlderNodeSaysLateOfItsClientDoesNotTouchTheNewerSession(_ safeguards: Safeguards) async throws {
    let isKept = safeguards == .all
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") { $0.safeguards = safeguards }
      let g2 = try await cluster.gateway("g2") { $0.safeguards = safeguards }
      _ = try await cluster.client("c", at: g1)
      let late = Registry.Refresh(client: "c", epoch: try await Self.epoch(of: "c", g1), lastActive: 1)
      let moved = try await cluster.client("c", at: g2)
      let older = Registry(g1.redis, safeguards: safeguards)
      let answer = try await older.refresh([late], nodeEpoch: 1)[0].get()
      #expect((answer.ownership == .lost) == isKept)
      #expect((try await older.release([late])[0].get() == .lost) == isKept)
      let location = try await Registry(g2.redis).locate(["c"])[0]
      #expect((location != .offline) == isKept)
      let sent = try await InboxDeliveryTests.submit(try cluster.channel(to: g2), ["j"])
      #expect(sent[0].storedCount == (isKept ? 0 : 1))
      #expect(try await Self.nextText(moved, cluster, isKept) == (isKept ? "j" : nil))
    }
  }

  /// A node that hung reads the hello of a stream that its client has given up: the client is elsewhere by then.
  @Test(arguments: [Safeguards.all, .all.subtracting(.fencing)])
  func aHelloThatIsReadLateTakesNothingOver(_ safeguards: Safeguards) async throws {
    let isKept = safeguards == .all
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") { $0.safeguards = safeguards }
      let g2 = try await cluster.gateway("g2") { $0.safeguards = safeguards }
      let client = try await cluster.client("c", at: g2, stream: 1001)
      let late = try await cluster.channel(to: g1).bidirectional(PushV1.PushService.connect)
      let hello = PushV1.RegisterRequest(clientID: "c", acknowledges: true, streamNumber: 1000)
      try await late.send(PushV1.ClientMessage(payload: .register(hello)))
      let answer = try await late.next()?.payload
      if isKept {
        guard case .goAway(let farewell)? = answer else {
          throw Status(.internal, "answered: \(String(describing: answer))")
        }
        #expect(farewell.newerStream == 1001 && !farewell.replaced)
        await #expect(throws: Status.self) { _ = try await late.next() }
        _ = try await InboxDeliveryTests.submit(try cluster.channel(to: g1), ["j"])
        #expect(try await Self.nextText(client, cluster, true) == "j")
        // The same stream as before is no later one, and a later one comes in.
        _ = try await cluster.client("c", at: g1, stream: 1002)
      } else {
        guard case .goAway(let farewell)? = try await client.call.next()?.payload else {
          throw Status(.internal, "the session was not ended")
        }
        #expect(farewell.replaced)
      }
    }
  }

  // MARK: Between look-up and delivery

  /// A best-effort record is on its way to the node that its client has just left.
  @Test(arguments: [Safeguards.all, .all.subtracting(.rerouting)])
  func aRecordThatMissesItsClientFollowsIt(_ safeguards: Safeguards) async throws {
    let isKept = safeguards == .all
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") { $0.safeguards = safeguards }
      let g2 = try await cluster.gateway("g2") { $0.safeguards = safeguards }
      _ = try await cluster.client("c", at: g1)
      let lookedUp = try await Self.node(g1)
      let moved = try await cluster.client("c", at: g2)
      let message = PushV1.ServerMessage(payload: .text(PushV1.TextMessage(content: "late")), messageID: "m")
      let record = PushRecord(target: .client("c"), messageID: "m", message: message.serialized())
      let producer = try KafkaProducer(KafkaConnection(bootstrap: cluster.bootstrap), loop: cluster.loop)
      Publisher(registry: Registry(g1.redis), producer: producer).produce(record, to: lookedUp) { #expect($0 == nil) }
      #expect(try await Self.nextText(moved, cluster, isKept) == (isKept ? "late" : nil))
      #expect(g1.metric("fleetpush_messages_missed_total") == 1)
      await producer.close()
    }
  }

  /// The node dies after the publisher has looked it up, and before it has read the record.
  @Test(arguments: [Safeguards.all, .all.subtracting(.replay)])
  func whatADeadNodeWasToDeliverComesFromTheInbox(_ safeguards: Safeguards) async throws {
    let isKept = safeguards == .all
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") {
        $0.safeguards = safeguards
        $0.lease = .milliseconds(500)
      }
      let g2 = try await cluster.gateway("g2") { $0.safeguards = safeguards }
      let client = try await cluster.client("c", at: g1)
      try await InboxDeliveryTests.append(g1, cluster, "orphan")
      g1.cutOff()
      client.channel.close()
      // Nobody has said that the client is away: that its node's lease has ended says it.
      try await cluster.until { try await Registry(g2.redis).locate(["c"])[0] == .offline }
      let returned = try await cluster.client("c", at: g2)
      #expect(try await Self.nextText(returned, cluster, isKept) == (isKept ? "orphan" : nil))
    }
  }

  // MARK: Redis and leases

  @Test(arguments: [Safeguards.all, .all.subtracting(.restoring)])
  func aLiveSessionSurvivesAFlushOfRedis(_ safeguards: Safeguards) async throws {
    let isKept = safeguards == .all
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") {
        $0.safeguards = safeguards
        $0.lease = .milliseconds(500)
        $0.refreshInterval = .milliseconds(300)
      }
      let client = try await cluster.client("c", at: g1)
      _ = try await g1.redis.send("FLUSHALL")
      let registry = Registry(g1.redis)
      // The node itself comes back in any case.
      try await cluster.until { try await registry.nodes(named: ["g1"])["g1"] != nil }
      if isKept {
        try await cluster.until { if case .online = try await registry.locate(["c"])[0] { true } else { false } }
      }
      let channel = try cluster.channel(to: g1)
      _ = try await InboxDeliveryTests.submit(channel, ["j"])
      #expect(try await Self.nextText(client, cluster, isKept) == (isKept ? "j" : nil))
      if !isKept { #expect(try await registry.locate(["c"]) == [.unknown]) }
    }
  }

  /// A gateway that was stopped wakes up, its client is still attached, and messages were stored while it counted as dead.
  @Test(arguments: [Safeguards.all, .all.subtracting(.verification)])
  func aNodeThatWakesAfterItsLeaseLooksAtItsInboxes(_ safeguards: Safeguards) async throws {
    let isKept = safeguards == .all
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") {
        $0.safeguards = safeguards
        $0.lease = .seconds(1)
      }
      let g2 = try await cluster.gateway("g2") { $0.safeguards = safeguards }
      let client = try await cluster.client("c", at: g1)
      // What is left of a lease when its node has slept.
      _ = try await g2.redis.send("DEL", "node:{g1}")
      let sent = try await InboxDeliveryTests.submit(try cluster.channel(to: g2), ["j"])
      #expect(sent[0].storedCount == 1)
      #expect(try await Self.nextText(client, cluster, isKept) == (isKept ? "j" : nil))
      #expect(g1.metric("fleetpush_lease_lapses_total") == 1)
      if isKept {
        try await cluster.until {
          if case .online(_, let node) = try await Registry(g2.redis).locate(["c"])[0] {
            node.id == "g1"
          } else {
            false
          }
        }
      }
    }
  }

  /// It wakes up, and its client has gone elsewhere: the stream that it still holds is over.
  @Test(arguments: [Safeguards.all, .all.subtracting(.verification)])
  func aNodeThatWakesAfterItsLeaseEndsSessionsThatAreElsewhere(_ safeguards: Safeguards) async throws {
    let isKept = safeguards == .all
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") {
        $0.safeguards = safeguards
        $0.lease = .seconds(1)
      }
      let client = try await cluster.client("c", at: g1)
      // Another node has the client by now, and its word to this one was lost.
      let registry = Registry(g1.redis)
      let elsewhere = SessionRegistration(
        client: "c", node: "g2", nodeEpoch: 1, session: "s2", lastSession: "", peer: "", tags: [:])
      let newer = try await registry.register(elsewhere)
      _ = try await g1.redis.send("DEL", "node:{g1}")
      let arrived = Arrived()
      let timer = cluster.loop.schedule(after: isKept ? Self.patience : Self.hopeless) { arrived.fire(nil) }
      cluster.loop.spawn {
        if case .goAway(let farewell) = try? await client.next()?.payload, farewell.replaced { arrived.fire("told") }
      }
      #expect(await arrived.text() == (isKept ? "told" : nil))
      timer.cancel()
      let record = try await g1.redis.send("HGET", "client:{c}", "epoch")
      #expect(record.asString == String(newer.epoch))
    }
  }

  @Test(arguments: [Safeguards.all, .all.subtracting(.sweep)])
  func aPokeThatNeverComesIsMadeUpForByTheSweep(_ safeguards: Safeguards) async throws {
    let isKept = safeguards == .all
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") {
        $0.safeguards = safeguards
        $0.refreshInterval = .milliseconds(300)
      }
      let client = try await cluster.client("c", at: g1)
      try await InboxDeliveryTests.append(g1, cluster, "lost")
      #expect(try await Self.nextText(client, cluster, isKept) == (isKept ? "lost" : nil))
      #expect(g1.metric("fleetpush_inbox_repairs_total") == (isKept ? 1 : 0))
    }
  }
}
