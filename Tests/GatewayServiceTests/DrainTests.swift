import GRPC
import GatewayService
import Reactor
import Schema
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(1))) struct DrainTests {
  /// The go-away that ends a stream.
  static func farewell(_ client: TestClient) async throws -> PushV1.GoAway {
    guard case .goAway(let farewell) = try await client.next()?.payload else {
      throw Status(.internal, "no go_away")
    }
    let error = await #expect(throws: Status.self) { _ = try await client.next() }
    #expect(error?.code == .unavailable && error?.retryAfter != nil)
    return farewell
  }

  @Test func aDrainSendsClientsToTheOthersAndEnds() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let g3 = try await cluster.gateway("g3")
      var clients: [TestClient] = []
      for number in 0..<20 { clients.append(try await cluster.client("c\(number)", at: g1)) }
      var hasEnded = false
      g1.gateway.onEvent = { if case .drained = $0 { hasEnded = true } }
      // Through a gateway that isn't meant.
      let service = PushV1.NodeServiceClient(try cluster.channel(to: g3))
      let progress = try await service.drain(
        PushV1.DrainRequest(nodeID: "g1", clientsPerSecond: 100, deadlineMs: 20_000))
      var last = PushV1.DrainProgress()
      while let next = try await progress.next() { last = next }
      #expect(last.ended && !last.deadlinePassed && last.clientsTold == 20 && last.clientsLeft == 0)
      #expect(last.nodeID == "g1" && last.elapsedMs >= 150)
      var goals: [String: Int] = [:]
      for client in clients {
        let farewell = try await Self.farewell(client)
        #expect(!farewell.replaced && (50...250).contains(farewell.reconnectAfterMs) && farewell.retryAfterMs > 0)
        goals[farewell.gateway, default: 0] += 1
      }
      #expect(goals == [g2.address: 10, g3.address: 10])
      // It still lives, says so, and takes nobody.
      let directory = PushV1.DirectoryServiceClient(try cluster.channel(to: g2))
      let nodes = try await directory.listNodes(.init()).nodes
      #expect(nodes.map(\.nodeID) == ["g1", "g2", "g3"] && nodes.map(\.draining) == [true, false, false])
      let refused = try await SessionsOnStreamsTests.end(
        cluster, g1, [.register(PushV1.RegisterRequest(clientID: "late"))])
      guard case .goAway(let farewell) = refused.answers.first?.payload else {
        Issue.record("no go_away")
        return
      }
      #expect(refused.status.code == .unavailable && [g2.address, g3.address].contains(farewell.gateway))
      let health = GRPCHealthV1.HealthClient(try cluster.channel(to: g1))
      #expect(try await health.check(.init()).status == .notServing)
      #expect(g1.metric("fleetpush_clients_drained_total") == 20)
      #expect(hasEnded)
    }
  }

  @Test func aDrainingNodeDeliversToWhoIsStillThere() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let clients = [try await cluster.client("a", at: g1), try await cluster.client("b", at: g1)]
      let service = PushV1.NodeServiceClient(try cluster.channel(to: g1))
      // The first goes at once, the second after ten seconds.
      let progress = try await service.drain(PushV1.DrainRequest(clientsPerSecond: 0.1, deadlineMs: 60_000))
      try await cluster.until { g1.metric("fleetpush_clients") == 1 }
      let pushes = PushV1.PushServiceClient(try cluster.channel(to: g2))
      var delivered: [String] = []
      for client in clients {
        if try await pushes.pushToClient(.init(clientID: client.id, message: "x")).success {
          delivered.append(client.id)
        }
      }
      #expect(delivered.count == 1)
      let stayed = try #require(clients.first { $0.id == delivered.first })
      #expect(try await stayed.text() == "x")
      // Another call says to hurry.
      let hurry = try await service.drain(PushV1.DrainRequest(nodeID: "g1", clientsPerSecond: 1000))
      while let next = try await hurry.next() { #expect(!next.ended || next.clientsLeft == 0) }
      #expect(try await Self.farewell(stayed).gateway == g2.address)
      while try await progress.next() != nil {}
    }
  }

  @Test func atTheDeadlineTheRestIsToldAtOnce() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      var clients: [TestClient] = []
      for number in 0..<5 { clients.append(try await cluster.client("c\(number)", at: g1)) }
      let service = PushV1.NodeServiceClient(try cluster.channel(to: g1))
      let progress = try await service.drain(PushV1.DrainRequest(clientsPerSecond: 0.01, deadlineMs: 300))
      var last = PushV1.DrainProgress()
      while let next = try await progress.next() { last = next }
      #expect(last.ended && last.deadlinePassed && last.clientsTold == 1 && last.clientsLeft == 4)
      await g1.stop()
      // There is no other gateway to name.
      for client in clients { #expect(try await Self.farewell(client).gateway.isEmpty) }
    }
  }

  @Test func badDrainsAreRefused() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g")
      let service = PushV1.NodeServiceClient(try cluster.channel(to: gateway))
      let cases: [(PushV1.DrainRequest, StatusCode)] = [
        (.init(nodeID: "other"), .notFound), (.init(nodeID: "a/b"), .invalidArgument),
        (.init(clientsPerSecond: -1), .invalidArgument), (.init(clientsPerSecond: .nan), .invalidArgument),
        (.init(clientsPerSecond: .infinity), .invalidArgument), (.init(deadlineMs: -1), .invalidArgument),
        (.init(nodeID: "other", hops: 1), .failedPrecondition),
      ]
      for (request, code) in cases {
        let error = await #expect(throws: Status.self) { _ = try await service.drain(request).next() }
        #expect(error?.code == code)
      }
      _ = try await cluster.client("c", at: gateway)
    }
  }

  @Test func moreThanTheRateIsToldWhenToComeBack() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g") {
        $0.admission.rate = Rate(perSecond: 10)
        $0.admission.burst = 2
      }
      let held = [try await cluster.client("a", at: gateway), try await cluster.client("b", at: gateway)]
      let refused = try await SessionsOnStreamsTests.end(
        cluster, gateway, [.register(PushV1.RegisterRequest(clientID: "c"))])
      guard case .goAway(let farewell) = refused.answers.first?.payload else {
        Issue.record("no go_away")
        return
      }
      #expect(refused.status.code == .unavailable)
      #expect(refused.status.retryAfter == .milliseconds(farewell.reconnectAfterMs))
      #expect(farewell.gateway == gateway.address && (250...350).contains(farewell.reconnectAfterMs))
      #expect(gateway.metric("fleetpush_registrations_refused_total{reason=\"rate\"}") == 1)
      #expect(gateway.metric("fleetpush_registrations_admitted_total") == 2)
      try await cluster.loop.sleep(for: .milliseconds(farewell.reconnectAfterMs))
      _ = try await cluster.client("c", at: gateway)
      withExtendedLifetime(held) {}
    }
  }
}
