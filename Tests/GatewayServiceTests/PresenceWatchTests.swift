import GRPC
import GatewayService
import Reactor
import Redis
import Schema
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(1))) struct PresenceWatchTests {
  typealias Events = ResponseStream<PushV1.ClientEvent>

  /// A watch at a gateway, behind its snapshot.
  static func watch(
    _ cluster: Cluster, _ gateway: TestGateway, _ request: PushV1.WatchClientsRequest = .init()
  ) async throws -> (events: Events, snapshot: [String]) {
    let events = try await PushV1.DirectoryServiceClient(try cluster.channel(to: gateway)).watchClients(request)
    var snapshot: [String] = []
    while let event = try await events.next(), !event.snapshotEnd {
      #expect(event.snapshot)
      snapshot.append(text(event))
    }
    return (events, snapshot)
  }

  static func text(_ event: PushV1.ClientEvent) -> String {
    let client = event.client ?? PushV1.ClientInfo()
    #expect(client.online == (event.event?.type != "offline") && event.atMs > 0)
    return "\(client.clientID) \(event.event?.type ?? "")\(client.nodeID.isEmpty ? "" : " \(client.nodeID)")"
  }

  static func next(_ events: Events) async throws -> String { try await events.next().map(text) ?? "end" }

  @Test func aWatcherSeesTheStateAndThenEveryChange() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let here = try await cluster.client("here", at: g1)
      let away = try await cluster.client("away", at: g1)
      away.call.cancel()
      try await cluster.until { g1.metric("fleetpush_clients") == 1 }
      // From either gateway.
      for gateway in [g1, g2] {
        let (events, snapshot) = try await Self.watch(cluster, gateway)
        #expect(snapshot == ["away offline", "here online g1"])
        #expect(gateway.metric("fleetpush_presence_watches") == 1)
        let client = try await cluster.client("c", at: g2)
        #expect(try await Self.next(events) == "c online g2")
        let again = try await cluster.client("c", at: g1)
        #expect(try await Self.next(events) == "c replaced g1")
        try await SessionsOnStreamsTests.expectReplaced(client)
        again.call.cancel()
        #expect(try await Self.next(events) == "c offline")
        events.cancel()
        try await cluster.until { gateway.metric("fleetpush_presence_watches") == 0 }
        // For the next round nothing is left of it.
        _ = try await gateway.redis.send("DEL", "client:{c}")
      }
      withExtendedLifetime(here) {}
    }
  }

  @Test func aWatcherSeesWhomItAskedFor() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g")
      func client(_ id: String, _ site: String) async throws -> TestClient {
        let channel = try cluster.channel(to: gateway)
        let call = try await channel.bidirectional(PushV1.PushService.connect)
        let register = PushV1.RegisterRequest(clientID: id, tags: ["site": site, "model": "m"])
        try await call.send(PushV1.ClientMessage(payload: .register(register)))
        guard case .registered(let registered) = try await call.next()?.payload else { throw Status(.internal, "no") }
        return TestClient(id: id, call: call, channel: channel, registered: registered)
      }
      var held = [try await client("a", "x"), try await client("b", "y")]
      let (ofTag, first) = try await Self.watch(cluster, gateway, .init(tags: ["site": "x", "model": "m"]))
      let (ofID, second) = try await Self.watch(cluster, gateway, .init(clientIDs: ["b", "unknown"]))
      #expect(first == ["a online g"] && second == ["b online g"])
      held.append(try await client("c", "x"))
      #expect(try await Self.next(ofTag) == "c online g")
      // One that leaves the tag is told once more, as what it is.
      held.append(try await client("a", "z"))
      #expect(try await Self.next(ofTag) == "a replaced g")
      held.append(try await client("a", "z"))
      held.append(try await client("c", "x"))
      #expect(try await Self.next(ofTag) == "c replaced g")
      held.append(try await client("unknown", "z"))
      #expect(try await Self.next(ofID) == "unknown online g")
      withExtendedLifetime(held) {}
    }
  }

  @Test func theClientsOfADeadNodeAreToldAndComeBack() async throws {
    try await withCluster { cluster in
      // It renews its lease every 3.3 s; until then nobody but the watch misses it.
      let g1 = try await cluster.gateway("g1") { $0.lease = .seconds(10) }
      let g2 = try await cluster.gateway("g2")
      let client = try await cluster.client("c", at: g1)
      let (events, snapshot) = try await Self.watch(cluster, g2)
      #expect(snapshot == ["c online g1"])
      _ = try await g2.redis.send("DEL", "node:{g1}")
      #expect(try await Self.next(events) == "c offline g1")
      // It finds its lease gone, and vouches for its session in a new epoch.
      #expect(try await Self.next(events) == "c online g1")
      g1.cutOff()
      _ = try await g2.redis.send("DEL", "node:{g1}")
      #expect(try await Self.next(events) == "c offline g1")
      withExtendedLifetime(client) {}
    }
  }

  @Test func afterALostSubscriptionNoStateIsMissed() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g")
      let first = try await cluster.client("first", at: gateway)
      let (events, _) = try await Self.watch(cluster, gateway)
      // Messages are lost with the subscription: what changes then is written past the channel.
      _ = try await gateway.redis.send("CLIENT", "KILL", "TYPE", "pubsub")
      _ = try await gateway.redis.send("HSET", "client:{first}", "node", "")
      #expect(try await Self.next(events) == "first offline")
      let second = try await cluster.client("second", at: gateway)
      #expect(try await Self.next(events) == "second online g")
      withExtendedLifetime((first, second)) {}
    }
  }

  @Test func tooManyWatchesAndBadRequestsAreRefused() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g")
      let service = PushV1.DirectoryServiceClient(try cluster.channel(to: gateway))
      for request in [
        PushV1.WatchClientsRequest(clientIDs: ["a/b"]), PushV1.WatchClientsRequest(tags: ["": "x"]),
        PushV1.WatchClientsRequest(clientIDs: (0...1000).map { "c\($0)" }),
      ] {
        let error = await #expect(throws: Status.self) { _ = try await service.watchClients(request).next() }
        #expect(error?.code == .invalidArgument)
      }
      var held: [Events] = []
      for _ in 0..<64 { held.append(try await Self.watch(cluster, gateway).events) }
      let error = await #expect(throws: Status.self) { _ = try await service.watchClients(.init()).next() }
      #expect(error?.code == .resourceExhausted)
      withExtendedLifetime(held) {}
    }
  }

  @Test func aWatcherThatReadsTooSlowlyIsToldSoAndEnded() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g")
      let (events, _) = try await Self.watch(cluster, gateway)
      // One client that is replaced all the time; the padding uses the credit of the watcher up, who doesn't read.
      let padding = String(repeating: "x", count: 1000)
      for batch in 0..<15 {
        let commands = (1...1000).map { number -> [RedisArgument] in
          let fields = ["c", "node", "n", "node_epoch", "1", "epoch", "\(batch * 1000 + number)", "tag:p", padding]
          return ["PUBLISH", "presence", .string(fields.map { "\($0.utf8.count):\($0)" }.joined())]
        }
        _ = try await gateway.redis.pipeline(commands)
      }
      var told = 0
      let error = await #expect(throws: Status.self) { while try await events.next() != nil { told += 1 } }
      #expect(error?.code == .resourceExhausted && error?.retryAfter != nil)
      #expect(told > 100 && told < 5000)
      // Beginning again is all that it takes.
      #expect(try await Self.watch(cluster, gateway).snapshot.isEmpty)
    }
  }

  @Test func aWatchEndsWithItsNode() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g")
      let (events, _) = try await Self.watch(cluster, gateway)
      await gateway.stop()
      let error = await #expect(throws: Status.self) { _ = try await events.next() }
      #expect(error?.code == .unavailable)
    }
  }
}
