import GRPC
import GatewayService
import Reactor
import Redis
import Schema
import Testing

@Suite(.timeLimit(.minutes(1))) struct SessionsOnStreamsTests {
  /// The status that ends a stream whose first messages these are, and what came before it.
  static func end(
    _ cluster: Cluster, _ gateway: TestGateway, _ messages: [PushV1.ClientMessage.Payload]
  ) async throws -> (status: Status, answers: [PushV1.ServerMessage]) {
    let call = try await cluster.channel(to: gateway).bidirectional(PushV1.PushService.connect)
    var answers: [PushV1.ServerMessage] = []
    do {
      for message in messages { try await call.send(PushV1.ClientMessage(payload: message)) }
      while let answer = try await call.next() { answers.append(answer) }
      return (.ok, answers)
    } catch let status as Status {
      return (status, answers)
    }
  }

  @Test func badFirstMessagesEndTheStreamWithASentence() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g")
      let cases: [(PushV1.ClientMessage.Payload, StatusCode)] = [
        (.register(PushV1.RegisterRequest(clientID: "")), .invalidArgument),
        (.register(PushV1.RegisterRequest(clientID: "a/b")), .invalidArgument),
        (.reconnect(PushV1.ReconnectRequest(clientID: "")), .invalidArgument),
        (.heartbeat(PushV1.Heartbeat(clientID: "c")), .invalidArgument),
      ]
      for (message, code) in cases {
        let (status, answers) = try await Self.end(cluster, gateway, [message])
        #expect(status.code == code && !status.message.isEmpty && answers.isEmpty)
      }
      let register = PushV1.ClientMessage.Payload.register(PushV1.RegisterRequest(clientID: "c"))
      let (status, _) = try await Self.end(cluster, gateway, [register, register])
      #expect(status.code == .failedPrecondition && !status.message.isEmpty)
      // It goes on serving.
      _ = try await cluster.client("c", at: gateway)
    }
  }

  @Test func heartbeatsAreAnswered() async throws {
    try await withCluster { cluster in
      let client = try await cluster.client("c", at: try await cluster.gateway("g"))
      try await client.send(.heartbeat(PushV1.Heartbeat(clientID: "c", timestamp: 42)))
      guard case .heartbeat(let answer) = try await client.call.next()?.payload else {
        Issue.record("no answer")
        return
      }
      #expect(answer.timestamp == 42 && answer.serverTimeMs > 1_700_000_000_000)
    }
  }

  @Test func aSilentStreamIsClosed() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g") { $0.silenceLimit = .milliseconds(300) }
      let client = try await cluster.client("c", at: gateway)
      let error = await #expect(throws: Status.self) { _ = try await client.next() }
      #expect(error?.code == .deadlineExceeded)
      #expect(gateway.metric("fleetpush_streams_silent_total") == 1)
      try await cluster.until { gateway.metric("fleetpush_streams") == 0 }
    }
  }

  static func expectReplaced(_ client: TestClient) async throws {
    guard case .goAway(let farewell) = try await client.next()?.payload else {
      Issue.record("no go_away")
      return
    }
    #expect(farewell.replaced && !farewell.reason.isEmpty)
    let error = await #expect(throws: Status.self) { _ = try await client.next() }
    #expect(error?.code == .aborted)
  }

  @Test func aNewerStreamOnTheSameNodeReplacesTheOlder() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g")
      let old = try await cluster.client("c", at: gateway)
      let new = try await cluster.client("c", at: gateway, lastSession: old.registered.sessionID)
      #expect(new.registered.resumed && new.registered.sessionID != old.registered.sessionID)
      try await Self.expectReplaced(old)
      let service = PushV1.PushServiceClient(try cluster.channel(to: gateway))
      #expect(try await service.pushToClient(PushV1.PushRequest(clientID: "c", message: "x")).success)
      #expect(try await new.text() == "x")
      #expect(gateway.metric("fleetpush_clients") == 1)
    }
  }

  @Test func aNewerStreamOnAnotherNodeReplacesTheOlderByAHint() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let old = try await cluster.client("c", at: g1)
      let new = try await cluster.client("c", at: g2)
      try await Self.expectReplaced(old)
      // The end of the older stream has left the newer record alone.
      let directory = PushV1.DirectoryServiceClient(try cluster.channel(to: g1))
      let listed = try await directory.listClients(PushV1.ListClientsRequest()).clients
      #expect(listed.map(\.nodeID) == ["g2"] && listed[0].online)
      #expect(listed[0].sessionID == new.registered.sessionID)
    }
  }

  @Test func aTakeoverIsNoticedWithoutTheHint() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g") { $0.refreshInterval = .milliseconds(200) }
      let old = try await cluster.client("c", at: gateway)
      // Another owner, of whom the node hears nothing.
      _ = try await gateway.redis.send("HSET", "client:{c}", "epoch", "9000000000000", "node", "other")
      try await Self.expectReplaced(old)
      #expect(try await gateway.redis.send("HGET", "client:{c}", "node").asString == "other")
    }
  }

  @Test func aRecordThatRedisLostIsWrittenAnew() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g") {
        $0.refreshInterval = .milliseconds(200)
        $0.lease = .milliseconds(600)
      }
      let client = try await cluster.client("c", at: gateway)
      _ = try await gateway.redis.send("FLUSHALL")
      let directory = PushV1.DirectoryServiceClient(try cluster.channel(to: gateway))
      try await cluster.until {
        try await directory.listClients(PushV1.ListClientsRequest(onlineOnly: true)).clients.map(\.clientID) == ["c"]
      }
      let service = PushV1.PushServiceClient(try cluster.channel(to: gateway))
      #expect(try await service.pushToClient(PushV1.PushRequest(clientID: "c", message: "x")).success)
      #expect(try await client.text() == "x")
    }
  }

  @Test func theClientsOfANodeThatIsGoneAreOfflineWhenItsLeaseEnds() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") { $0.lease = .milliseconds(500) }
      let g2 = try await cluster.gateway("g2")
      let client = try await cluster.client("c", at: g1)
      defer { withExtendedLifetime(client) {} }
      let channel = try cluster.channel(to: g2)
      let directory = PushV1.DirectoryServiceClient(channel)
      #expect(try await directory.listClients(PushV1.ListClientsRequest()).clients[0].online)
      #expect(try await directory.listNodes(PushV1.ListNodesRequest()).nodes.map(\.nodeID) == ["g1", "g2"])
      g1.cutOff()
      try await cluster.until { try await !directory.listClients(PushV1.ListClientsRequest()).clients[0].online }
      #expect(try await directory.listNodes(PushV1.ListNodesRequest()).nodes.map(\.nodeID) == ["g2"])
      _ = try await PushV1.JobServiceClient(channel).submit(DeliveryTests.job("j", to: ["c"], text: "x"))
      #expect(try await DeliveryTests.status(channel, "j").targets[0].reason == "Stored: the client is away.")
    }
  }

  @Test func aNodeThatEndsTellsItsClientsAndLeaves() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let client = try await cluster.client("c", at: g1)
      await g1.stop()
      guard case .goAway(let farewell) = try await client.next()?.payload else {
        Issue.record("no go_away")
        return
      }
      #expect(!farewell.replaced && farewell.retryAfterMs > 0)
      let error = await #expect(throws: Status.self) { _ = try await client.next() }
      #expect(error?.code == .unavailable)
      let directory = PushV1.DirectoryServiceClient(try cluster.channel(to: g2))
      #expect(try await directory.listNodes(PushV1.ListNodesRequest()).nodes.map(\.nodeID) == ["g2"])
      #expect(try await directory.listClients(PushV1.ListClientsRequest()).clients.map(\.online) == [false])
    }
  }

  @Test func aClientThatDoesNotReadIsRefusedItsMessagesAndNobodyElse() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g") { $0.maximumQueuedBytes = 64 << 10 }
      // Its stream's credit is used up, since nobody asks for its messages.
      let slow = try await cluster.client("slow", at: gateway)
      defer { withExtendedLifetime(slow) {} }
      let quick = try await cluster.client("quick", at: gateway)
      let service = PushV1.PushServiceClient(try cluster.channel(to: gateway))
      let text = String(repeating: "x", count: 32 << 10)
      try await cluster.until {
        try await !service.pushToClient(PushV1.PushRequest(clientID: "slow", message: text)).success
      }
      #expect(gateway.metric("fleetpush_streams_overflowed_total") == 0 && gateway.metric("fleetpush_clients") == 2)
      #expect(try await service.pushToClient(PushV1.PushRequest(clientID: "quick", message: "x")).success)
      #expect(try await quick.text() == "x")
    }
  }

  /// A release that Redis did not take is said again: nobody else would ever say that the client is away.
  @Test func aClientThatLeavesWhileRedisHangsIsAwayAfterwards() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g") { $0.lease = .seconds(60) }
      let client = try await cluster.client("c", at: gateway)
      let other = RedisClient(loop: cluster.loop, address: cluster.redisAddress)
      defer { other.close() }
      // Longer than a command may take.
      _ = try await other.send("CLIENT", "PAUSE", "3000", "ALL")
      client.call.finishSending()
      try await cluster.until { gateway.metric("fleetpush_clients") == 0 }
      try await cluster.until { (try? await other.send("HGET", "client:{c}", "node").asString) == "" }
    }
  }
}
