import GRPC
import GatewayService
import Kafka
import Protobuf
import Reactor
import Redis
import Routing
import Schema
import Testing

@Suite(.timeLimit(.minutes(1))) struct InboxDeliveryTests {
  /// A client that was here and has gone.
  static func leave(_ client: TestClient, _ cluster: Cluster, _ gateway: TestGateway) async throws {
    client.channel.close()
    let registry = Registry(gateway.redis)
    try await cluster.until { try await registry.locate([client.id]) == [.offline] }
  }

  static func submit(
    _ channel: Channel, _ ids: [String], to client: String = "c", ttl: Int64 = 0
  ) async throws -> [PushV1.SubmitResponse] {
    var answers: [PushV1.SubmitResponse] = []
    for id in ids {
      var request = DeliveryTests.job(id, to: [client], text: id)
      request.job?.ttlMs = ttl
      answers.append(try await PushV1.JobServiceClient(channel).submit(request))
    }
    return answers
  }

  static func texts(_ client: TestClient, _ count: Int) async throws -> [PushV1.ServerMessage] {
    var messages: [PushV1.ServerMessage] = []
    while messages.count < count, let message = try await client.next() { messages.append(message) }
    return messages
  }

  /// A publisher that appends, and whose record then never comes.
  static func append(_ gateway: TestGateway, _ cluster: Cluster, _ id: String) async throws {
    // It looks the client up where no node is: the record goes nowhere.
    let registry = Registry(gateway.redis)
    let message = PushV1.ServerMessage(payload: .text(PushV1.TextMessage(content: id)), messageID: "\(id)/c", jobID: id)
    let producer = try KafkaProducer(KafkaConnection(bootstrap: cluster.bootstrap), loop: cluster.loop)
    let node = try await registry.locate(["c"])
    guard case .online(_, let holder) = node[0] else { return }
    let outcomes = try await Publisher(registry: registry, producer: producer).publish(
      [
        PushRecord(
          target: .client("c"), messageID: "\(id)/c", message: message.serialized(), jobID: id, isAtLeastOnce: true)
      ], unlessHeldBy: holder.id)
    #expect(outcomes == [.stored])
    await producer.close()
  }

  @Test func whatWaitsComesOnceInOrderAndBeforeWhatIsNew() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      try await Self.leave(try await cluster.client("c", at: g1), cluster, g1)
      let channel = try cluster.channel(to: g1)
      let names = (0..<300).map { "j\($0)" }
      #expect(try await Self.submit(channel, names).allSatisfy { $0.storedCount == 1 })
      let row = try await DeliveryTests.status(channel, "j7").targets[0]
      #expect(row.state == .accepted && row.reason == "Stored: the client is away.")
      let client = try await cluster.client("c", at: g2)
      _ = try await Self.submit(channel, ["new"])
      let messages = try await Self.texts(client, 301)
      #expect(messages.map(\.messageID) == (names + ["new"]).map { "\($0)/c" })
      #expect(messages.map(\.prevSeq) == [0] + messages.dropLast().map(\.seq))
      #expect(
        Set(messages.map(\.inboxID)).count == 1 && messages.allSatisfy { $0.source == "inbox" && !$0.redelivered })
      try await client.acknowledge(messages[300])
      for name in ["j0", "j299", "new"] {
        try await cluster.until { try await DeliveryTests.status(channel, name).state == .succeeded }
      }
      #expect(try await DeliveryTests.status(channel, "j7").targets[0].reason == "")
      #expect(try await g1.redis.send("EXISTS", "inbox:{c}:messages").asInteger == 0)
      #expect(g2.metric("fleetpush_messages_written_total") == 301)
    }
  }

  @Test func whatWasNotAcknowledgedComesAgainAndSaysSo() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let first = try await cluster.client("c", at: g1)
      let channel = try cluster.channel(to: g2)
      _ = try await Self.submit(channel, ["a", "b", "c"])
      let messages = try await Self.texts(first, 3)
      try await first.acknowledge(messages[0])
      try await cluster.until { try await DeliveryTests.status(channel, "a").state == .succeeded }
      try await cluster.until { try await DeliveryTests.status(channel, "c").targets[0].state == .written }
      // It comes back elsewhere; what it says of its place counts as acknowledged.
      let second = try await cluster.client("c", at: g2, positions: [TestClient.position(of: messages[1])])
      let again = try #require(try await second.next())
      #expect(again.messageID == "c/c" && again.redelivered && again.seq == messages[2].seq)
      #expect(again.prevSeq == messages[1].seq)
      try await cluster.until { try await DeliveryTests.status(channel, "b").state == .succeeded }
      // A position in another inbox is none.
      let stranger = PushV1.Position(source: "inbox", inboxID: "elsewhere", seq: .max >> 11)
      let third = try await cluster.client("c", at: g1, positions: [stranger])
      try await third.send(.ack(PushV1.Acknowledgement(position: stranger)))
      #expect(try await third.next()?.messageID == "c/c")
      #expect(try await DeliveryTests.status(channel, "c").targets[0].state == .written)
    }
  }

  /// A session that reads its inbox once more begins where it has written; that isn't what its client has acknowledged.
  @Test func whatWasWrittenBeforeASecondReadingIsNotAcknowledged() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") { $0.refreshInterval = .milliseconds(300) }
      let first = try await cluster.client("c", at: g1)
      _ = try await Self.submit(try cluster.channel(to: g1), ["a"])
      #expect(try await first.next()?.messageID == "a/c")
      try await Self.append(g1, cluster, "b")
      let second = try #require(try await first.next())
      #expect(second.messageID == "b/c" && g1.metric("fleetpush_inbox_repairs_total") == 1)
      // What that reading had to settle has gone out together with what it wrote.
      try await cluster.until { try await g1.redis.send("HGET", "inbox:{c}", "written").asInteger == second.seq }
      try await Self.leave(first, cluster, g1)
      let again = try await cluster.client("c", at: g1)
      #expect(try await Self.texts(again, 2).map(\.messageID) == ["a/c", "b/c"])
    }
  }

  /// The client has a message, and its acknowledgement never came: what it says of its place ends the row, before the inbox
  /// lets the message go.
  @Test func rowsEndBeforeTheInboxForgets() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let channel = try cluster.channel(to: g1)
      let first = try await cluster.client("c", at: g1)
      _ = try await Self.submit(channel, ["a", "b"])
      let messages = try await Self.texts(first, 2)
      // A ledger that takes no step for the moment: its keys are of another type.
      _ = try await g1.redis.send("RENAME", "job:{a}:row:c", "aside{a}")
      _ = try await g1.redis.send("SET", "job:{a}:row:c", "in the way")
      let second = try await cluster.client("c", at: g2, positions: [TestClient.position(of: messages[1])])
      try await cluster.loop.sleep(for: .milliseconds(500))
      #expect(try await g1.redis.send("HGET", "inbox:{c}", "count").asInteger == 2)
      _ = try await g1.redis.send("RENAME", "aside{a}", "job:{a}:row:c")
      try await cluster.until { try await g1.redis.send("HGET", "inbox:{c}", "count").asInteger == 0 }
      #expect(try await DeliveryTests.status(channel, "a").state == .succeeded)
      #expect(try await DeliveryTests.status(channel, "b").state == .succeeded)
      second.channel.close()
    }
  }

  @Test func aPokeThatNeverComesIsMadeUpFor() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") { $0.refreshInterval = .milliseconds(300) }
      let client = try await cluster.client("c", at: g1)
      try await Self.append(g1, cluster, "lost")
      #expect(try await client.text() == "lost")
      #expect(g1.metric("fleetpush_inbox_repairs_total") == 1)
      #expect(g1.metric(#"fleetpush_records_consumed_total{topic="client-push"}"#) == 0)
    }
  }

  @Test func aJumpIsReadFromTheInbox() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let client = try await cluster.client("c", at: g1)
      let channel = try cluster.channel(to: g1)
      _ = try await Self.submit(channel, ["a"])
      #expect(try await client.text() == "a")
      try await Self.append(g1, cluster, "lost")
      _ = try await Self.submit(channel, ["b"])
      #expect(try await Self.texts(client, 2).map(\.messageID) == ["lost/c", "b/c"])
      #expect(g1.metric("fleetpush_inbox_repairs_total") == 0)
    }
  }

  @Test func aClientThatMovesBetweenLookUpAndRecordMissesNothing() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      _ = try await cluster.client("c", at: g1)
      // Appended and looked up while it was at g1; the record comes when it is at g2, if at all.
      try await Self.append(g1, cluster, "moving")
      let moved = try await cluster.client("c", at: g2)
      #expect(try await moved.text() == "moving")
      #expect(g2.metric("fleetpush_messages_written_total") == 1)
    }
  }

  @Test func aFlushOfRedisUnderALiveSessionIsSurvived() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") {
        $0.refreshInterval = .milliseconds(300); $0.lease = .seconds(1)
      }
      let client = try await cluster.client("c", at: g1)
      let channel = try cluster.channel(to: g1)
      _ = try await Self.submit(channel, ["a"])
      let before = try #require(try await client.next())
      _ = try await g1.redis.send("FLUSHALL")
      let registry = Registry(g1.redis)
      try await cluster.until { if case .online = try await registry.locate(["c"])[0] { true } else { false } }
      _ = try await Self.submit(channel, ["b"])
      let after = try #require(try await client.next())
      #expect(after.messageID == "b/c" && after.inboxID != before.inboxID && after.prevSeq == 0)
      // An acknowledgement in the inbox that was lost clears nothing.
      try await client.send(
        .ack(
          PushV1.Acknowledgement(
            position: PushV1.Position(
              source: "inbox", inboxID: before.inboxID, seq: .max >> 11))))
      try await client.send(.heartbeat(PushV1.Heartbeat()))
      _ = try await Self.submit(channel, ["d"])
      _ = try await client.next()
      #expect(try await g1.redis.send("HLEN", "inbox:{c}:messages").asInteger == 2)
    }
  }

  @Test func aClientThatDoesNotAcknowledgeHasWhatWasWritten() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      try await Self.leave(try await cluster.client("c", at: g1, acknowledges: false), cluster, g1)
      let channel = try cluster.channel(to: g1)
      _ = try await Self.submit(channel, ["a", "b"])
      let client = try await cluster.client("c", at: g1, acknowledges: false)
      #expect(try await Self.texts(client, 2).map(\.messageID) == ["a/c", "b/c"])
      try await cluster.until { try await DeliveryTests.status(channel, "b").state == .succeeded }
      try await cluster.until { try await g1.redis.send("EXISTS", "inbox:{c}:messages").asInteger == 0 }
    }
  }

  @Test func aSlowReaderWaitsInItsInbox() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") { $0.maximumQueuedBytes = 64 << 10 }
      let client = try await cluster.client("c", at: g1)
      let channel = try cluster.channel(to: g1)
      let text = String(repeating: "x", count: 100_000)
      for number in 0..<40 {
        _ = try await PushV1.JobServiceClient(channel).submit(DeliveryTests.job("j\(number)", to: ["c"], text: text))
      }
      #expect(try await Self.texts(client, 40).map(\.messageID) == (0..<40).map { "j\($0)/c" })
      #expect(g1.metric("fleetpush_streams_overflowed_total") == 0)
    }
  }

  @Test func whatHasExpiredIsNotDeliveredAndItsRowEnds() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      try await Self.leave(try await cluster.client("c", at: g1), cluster, g1)
      let channel = try cluster.channel(to: g1)
      _ = try await Self.submit(channel, ["a"], ttl: 200)
      _ = try await Self.submit(channel, ["b"])
      try await cluster.until { try await DeliveryTests.status(channel, "a").state == .failed }
      let client = try await cluster.client("c", at: g1)
      #expect(try await client.next()?.messageID == "b/c")
      #expect(try await DeliveryTests.status(channel, "a").targets[0].state == .expired)
    }
  }

  @Test func aFullInboxRefusesThePublisher() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      try await Self.leave(try await cluster.client("c", at: g1), cluster, g1)
      let registry = Registry(g1.redis)
      let producer = try KafkaProducer(KafkaConnection(bootstrap: cluster.bootstrap), loop: cluster.loop)
      var limits = Inboxes.Limits()
      limits.messages = 1
      let dispatch = JobDispatch(
        registry: registry, ledger: JobLedger(g1.redis),
        publisher: Publisher(registry: registry, producer: producer, limits: limits))
      #expect(
        try await dispatch.submit(try #require(DeliveryTests.job("a", to: ["c"], text: "x").job)).storedCount == 1)
      let job = try #require(DeliveryTests.job("b", to: ["c"], text: "x").job)
      let error = await #expect(throws: RoutingError.self) { _ = try await dispatch.submit(job) }
      #expect(error?.code == .exhausted && error?.message.hasPrefix("The inbox of the client is full: ") == true)
      // When there is room, the same job is taken.
      let client = try await cluster.client("c", at: g1)
      try await client.acknowledge(try #require(try await client.next()))
      try await cluster.until { (try? await dispatch.submit(job)) != nil }
      #expect(try await client.next()?.messageID == "b/c")
      await producer.close()
    }
  }
}
