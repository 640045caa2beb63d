import GRPC
import Protobuf
import Reactor
import Schema
import Testing

@testable import Routing

@Suite(.timeLimit(.minutes(1))) struct DirectRouteTests {
  static func job(
    _ id: String, to clients: [String], _ qos: PushV1.QoS = .atLeastOnce
  ) -> PushV1.SubmitRequest {
    var request = DeliveryTests.job(id, to: clients, text: id)
    request.job?.qos = qos
    request.job?.route = .direct
    return request
  }

  @Test(arguments: [PushV1.QoS.atLeastOnce, .atMostOnce])
  func recordsTravelByCallsAndSkipKafka(qos: PushV1.QoS) async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      var clients: [TestClient] = []
      for number in 0..<20 { clients.append(try await cluster.client("c\(number)", at: number < 15 ? g2 : g1)) }
      let channel = try cluster.channel(to: g1)
      let jobs = PushV1.JobServiceClient(channel)
      let answer = try await jobs.submit(Self.job("j", to: clients.map(\.id), qos))
      #expect(answer.targetCount == 20 && answer.storedCount == 0)
      for client in clients {
        let message = try #require(try await client.next())
        #expect(message.messageID == "j/\(client.id)" && (message.seq > 0) == (qos == .atLeastOnce))
        try await client.send(.ack(PushV1.Acknowledgement(messageIDs: [message.messageID])))
      }
      try await cluster.until { try await DeliveryTests.status(channel, "j").state == .succeeded }
      #expect(g1.metric("fleetpush_direct_records_sent_total") == 15)
      #expect(g2.metric("fleetpush_direct_records_received_total") == 15)
      for gateway in [g1, g2] {
        #expect(gateway.metric(#"fleetpush_records_consumed_total{topic="client-push"}"#) == 0)
      }
    }
  }

  @Test func aJobForANodeThatDiesIsStoredAndDeliveredOnReturn() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let client = try await cluster.client("c", at: g1)
      // A node that is in the registry and answers no more: the record says so, nobody listens there.
      let registry = Registry(g1.redis)
      let epoch = try await registry.acquireNode(
        "dead", address: "127.0.0.1:1", partition: 0, lease: .seconds(60), startedAt: 1)
      try await DirectPushTests.leave(client, cluster, g1)
      _ = try await registry.register(
        SessionRegistration(
          client: "c", node: "dead", nodeEpoch: epoch, session: "s", lastSession: "", peer: "", tags: [:]))
      let channel = try cluster.channel(to: g1)
      let jobs = PushV1.JobServiceClient(channel)
      #expect(try await jobs.submit(Self.job("j", to: ["c"])).storedCount == 1)
      // Nothing keeps a best-effort one; the row waits for the publisher's retry.
      let error = await #expect(throws: Status.self) {
        _ = try await jobs.submit(Self.job("k", to: ["c"], .atMostOnce))
      }
      #expect(error?.code == .unavailable)
      #expect(try await DeliveryTests.status(channel, "k").targets[0].state == .accepted)
      let back = try await cluster.client("c", at: g1)
      #expect(try await back.next()?.messageID == "j/c")
      #expect(try await jobs.submit(Self.job("k", to: ["c"], .atMostOnce)).duplicate)
      #expect(try await back.next()?.messageID == "k/c")
    }
  }

  @Test func aNodeThatHasLostTheClientPassesTheRecordOn() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let client = try await cluster.client("c", at: g2)
      var record = PushRecord(
        target: .client("c"), messageID: "j/c",
        message: PushV1.ServerMessage(payload: .text(PushV1.TextMessage(content: "x")), messageID: "j/c").serialized())
      record.route = .direct
      // Looked up while the client was at g1.
      let records = InternalV1.RecordServiceClient(try cluster.channel(to: g1))
      let request = InternalV1.DeliverRequest(nodeID: "g1", records: [record.encoded()])
      _ = try await records.deliver(request)
      #expect(try await client.text() == "x")
      #expect(g1.metric("fleetpush_messages_missed_total") == 1)
      #expect(g2.metric("fleetpush_direct_records_received_total") == 1)
      for bad in [
        InternalV1.DeliverRequest(nodeID: "g9", records: request.records),
        InternalV1.DeliverRequest(nodeID: "g1", records: Array(repeating: request.records[0], count: 1001)),
      ] {
        let error = await #expect(throws: Status.self) { _ = try await records.deliver(bad) }
        #expect(error?.code == (bad.nodeID == "g9" ? .failedPrecondition : .invalidArgument))
      }
    }
  }

  @Test func routesAndPoliciesThatDoNotFitAreRefusedWithASentence() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let jobs = PushV1.JobServiceClient(try cluster.channel(to: g1))
      var toAll = Self.job("a", to: [])
      toAll.job?.targets?.all = true
      var dropsKept = DeliveryTests.job("b", to: ["c"], text: "x")
      dropsKept.job?.slowReader = .dropOldest
      var waitsWithout = DeliveryTests.job("d", to: ["c"], text: "x")
      waitsWithout.job?.qos = .atMostOnce
      waitsWithout.job?.slowReader = .wait
      var unknown = DeliveryTests.job("e", to: ["c"], text: "x")
      unknown.job?.slowReader = PushV1.SlowReader(rawValue: 9)
      var nowhere = DeliveryTests.job("f", to: ["c"], text: "x")
      nowhere.job?.route = PushV1.Route(rawValue: 9)
      for request in [toAll, dropsKept, waitsWithout, unknown, nowhere] {
        let error = await #expect(throws: Status.self) { _ = try await jobs.submit(request) }
        #expect(error?.code == .invalidArgument && error?.message.hasSuffix(".") == true)
      }
    }
  }
}
