import GRPC
import GatewayService
import Kafka
import Protobuf
import Reactor
import Redis
import Routing
import Schema
import Testing

@Suite(.timeLimit(.minutes(1))) struct FleetDeliveryTests {
  static func job(_ id: String, tags: [String: String] = [:], text: String? = nil) -> PushV1.SubmitRequest {
    PushV1.SubmitRequest(
      job: PushV1.Job(
        jobID: id, targets: PushV1.Targets(all: tags.isEmpty, tags: tags),
        payload: .text(PushV1.TextMessage(content: text ?? id)), qos: .atLeastOnce))
  }

  static func submit(
    _ channel: Channel, _ ids: [String], tags: [String: String] = [:]
  ) async throws -> [PushV1.SubmitResponse] {
    var answers: [PushV1.SubmitResponse] = []
    for id in ids { answers.append(try await PushV1.JobServiceClient(channel).submit(job(id, tags: tags))) }
    return answers
  }

  static func ids(_ client: TestClient, _ count: Int) async throws -> [String] {
    try await InboxDeliveryTests.texts(client, count).map(\.messageID)
  }

  /// A message to the log whose hint never comes.
  static func append(_ gateway: TestGateway, _ id: String) async throws {
    let nowhere = try KafkaProducer(KafkaConnection(bootstrap: "127.0.0.1:1"), loop: gateway.redis.loop)
    let registry = Registry(gateway.redis)
    let dispatch = JobDispatch(
      registry: registry, ledger: JobLedger(gateway.redis), publisher: Publisher(registry: registry, producer: nowhere))
    let submission = gateway.redis.loop.spawn { _ = try? await dispatch.submit(job(id).job ?? PushV1.Job()) }
    while try await gateway.redis.send("ZSCORE", "log:{fleet}:ids", .string(id)).isNull {
      try await gateway.redis.loop.sleep(for: .milliseconds(5))
    }
    await nowhere.close()
    await submission.value
  }

  @Test func whoIsAwayGetsItOnReturnInOrderAndOnce() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let here = try await cluster.client("here", at: g2)
      try await InboxDeliveryTests.leave(try await cluster.client("away", at: g1), cluster, g1)
      let channel = try cluster.channel(to: g1)
      let names = (0..<30).map { "j\($0)" }
      let answers = try await Self.submit(channel, names)
      #expect(answers.allSatisfy { $0.targetCount == 2 && $0.storedCount == 1 })
      #expect(try await Self.ids(here, 30) == names)
      let rows = try await DeliveryTests.status(channel, "j3").targets
      let row = try #require(rows.first { $0.clientID == "away" })
      #expect(row.state == .accepted && row.reason == "Stored: the client is away." && row.messageID == "j3")
      // Who comes for the first time gets what is published from then on, as its gateway knows it.
      try await cluster.until {
        g1.metric(#"fleetpush_records_consumed_total{topic="client-broadcast"}"#) >= 30
      }
      let new = try await cluster.client("new", at: g1)
      let back = try await cluster.client("away", at: g2)
      _ = try await Self.submit(channel, ["last"])
      let messages = try await InboxDeliveryTests.texts(back, 31)
      #expect(messages.map(\.messageID) == names + ["last"])
      #expect(messages.map(\.prevSeq) == [0] + messages.dropLast().map(\.seq))
      #expect(messages.allSatisfy { $0.source == "fleet" && !$0.inboxID.isEmpty && !$0.redelivered })
      #expect(try await new.text() == "last")
      try await back.acknowledge(messages[30])
      try await here.send(.ack(PushV1.Acknowledgement(messageIDs: names)))
      for name in ["j0", "j29"] {
        try await cluster.until { try await DeliveryTests.status(channel, name).state == .succeeded }
      }
      // Once is once, and who came later is no member.
      #expect(try await Self.submit(channel, ["j3"])[0].duplicate)
      #expect(try await DeliveryTests.status(channel, "j3").targets.count == 2)
      #expect(g2.metric("fleetpush_messages_written_total") == 62)
    }
  }

  @Test func whatWasNotAcknowledgedComesAgainElsewhere() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let first = try await cluster.client("c", at: g1)
      let channel = try cluster.channel(to: g2)
      _ = try await Self.submit(channel, ["a", "b", "c"])
      let messages = try await InboxDeliveryTests.texts(first, 3)
      try await first.acknowledge(messages[0])
      try await cluster.until { try await DeliveryTests.status(channel, "a").state == .succeeded }
      try await cluster.until { try await DeliveryTests.status(channel, "c").targets[0].state == .written }
      // What the client says of its place counts as acknowledged.
      let second = try await cluster.client("c", at: g2, positions: [TestClient.position(of: messages[1])])
      let again = try #require(try await second.next())
      #expect(again.messageID == "c" && again.redelivered && again.prevSeq == messages[1].seq)
      try await cluster.until { try await DeliveryTests.status(channel, "b").state == .succeeded }
      try await second.send(.ack(PushV1.Acknowledgement(messageIDs: ["c"])))
      try await cluster.until { try await DeliveryTests.status(channel, "c").state == .succeeded }
      let third = try await cluster.client("c", at: g1)
      _ = try await Self.submit(channel, ["d"])
      #expect(try await Self.ids(third, 1) == ["d"])
    }
  }

  @Test func tagsChooseAndMembershipIsJudgedAtPublication() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let eu = ["region": "eu"]
      let both = try await cluster.client("both", at: g1, tags: ["region": "eu", "model": "x"])
      let one = try await cluster.client("one", at: g2, tags: ["region": "eu", "model": "y"])
      try await InboxDeliveryTests.leave(try await cluster.client("moved", at: g2, tags: eu), cluster, g2)
      try await InboxDeliveryTests.leave(
        try await cluster.client("joined", at: g2, tags: ["region": "us"]), cluster, g2)
      let channel = try cluster.channel(to: g1)
      let narrow = try await Self.submit(channel, ["narrow"], tags: ["region": "eu", "model": "x"])[0]
      #expect(narrow.targetCount == 1 && narrow.storedCount == 0)
      let wide = try await Self.submit(channel, ["wide"], tags: eu)[0]
      #expect(wide.targetCount == 3 && wide.storedCount == 1)
      #expect(try await Self.ids(both, 2) == ["narrow", "wide"])
      #expect(try await Self.ids(one, 1) == ["wide"])
      // They come back with other tags: what was published before is for whom it was for then, also when they change again.
      for region in ["us", "asia"] {
        let moved = try await cluster.client("moved", at: g1, tags: ["region": region])
        #expect(try await Self.ids(moved, region == "us" ? 1 : 2) == (region == "us" ? ["wide"] : ["wide", "to-us"]))
        _ = try await Self.submit(channel, ["to-\(region)"], tags: ["region": region])
        #expect(try await Self.ids(moved, 1) == ["to-\(region)"])
        if region == "us" { try await InboxDeliveryTests.leave(moved, cluster, g1) }
      }
      let joined = try await cluster.client("joined", at: g1, tags: eu)
      _ = try await Self.submit(channel, ["later"], tags: eu)
      #expect(try await Self.ids(joined, 2) == ["to-us", "later"])
      // The clients can be listed by their tags.
      let list = try await PushV1.DirectoryServiceClient(channel).listClients(PushV1.ListClientsRequest(tags: eu))
      #expect(list.clients.map(\.clientID) == ["both", "joined", "one"])
      // Best effort reaches who is connected, without rows.
      var quick = Self.job("quick", tags: eu)
      quick.job?.qos = .atMostOnce
      _ = try await PushV1.JobServiceClient(channel).submit(quick)
      #expect(try await Self.ids(one, 2) == ["later", "quick"])
      try await cluster.until { try await DeliveryTests.status(channel, "quick").counts.first?.count == 3 }
      #expect(try await DeliveryTests.status(channel, "quick").targets.isEmpty)
    }
  }

  @Test func aLostHintIsMadeUpForByTheSweepAndByTheNextOne() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") { $0.refreshInterval = .milliseconds(300) }
      let g2 = try await cluster.gateway("g2")
      let swept = try await cluster.client("swept", at: g1)
      let told = try await cluster.client("told", at: g2)
      try await Self.append(g1, "lost")
      #expect(try await swept.text() == "lost")
      #expect(g1.metric("fleetpush_fleet_log_repairs_total") == 1)
      _ = try await Self.submit(try cluster.channel(to: g1), ["next"])
      #expect(try await Self.ids(told, 2) == ["lost", "next"])
      #expect(g2.metric("fleetpush_fleet_log_repairs_total") == 0)
    }
  }

  @Test func aBacklogThatIsLargerThanMemoryComesWhole() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") { $0.fleetTailEntries = 7 }
      let g2 = try await cluster.gateway("g2") { $0.fleetTailBytes = 500 }
      for id in ["a", "b"] {
        try await InboxDeliveryTests.leave(try await cluster.client(id, at: g1), cluster, g1)
      }
      let names = (0..<60).map { "j\($0)" }
      _ = try await Self.submit(try cluster.channel(to: g1), names)
      // One that starts now knows the newest part, too.
      let g3 = try await cluster.gateway("g3") { $0.fleetTailEntries = 7 }
      let a = try await cluster.client("a", at: g2)
      let b = try await cluster.client("b", at: g3)
      _ = try await Self.submit(try cluster.channel(to: g1), ["new"])
      #expect(try await Self.ids(a, 61) == names + ["new"])
      #expect(try await Self.ids(b, 61) == names + ["new"])
    }
  }

  @Test func aSlowReaderWaitsAndHoldsNobodyUp() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") {
        $0.maximumQueuedBytes = 64 << 10; $0.fleetTailEntries = 10
      }
      let slow = try await cluster.client("slow", at: g1)
      let quick = try await cluster.client("quick", at: g1)
      let channel = try cluster.channel(to: g1)
      let text = String(repeating: "x", count: 100_000)
      let names = (0..<40).map { "j\($0)" }
      for name in names {
        _ = try await PushV1.JobServiceClient(channel).submit(Self.job(name, text: text))
        #expect(try await quick.next()?.messageID == name)
      }
      #expect(try await Self.ids(slow, 40) == names)
      #expect(g1.metric("fleetpush_streams_overflowed_total") == 0)
    }
  }

  @Test func aClientThatDoesNotAcknowledgeHasWhatWasWritten() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      try await InboxDeliveryTests.leave(try await cluster.client("c", at: g1, acknowledges: false), cluster, g1)
      let channel = try cluster.channel(to: g1)
      _ = try await Self.submit(channel, ["a", "b"])
      let client = try await cluster.client("c", at: g1, acknowledges: false)
      #expect(try await Self.ids(client, 2) == ["a", "b"])
      try await cluster.until { try await DeliveryTests.status(channel, "b").state == .succeeded }
      try await InboxDeliveryTests.leave(client, cluster, g1)
      let again = try await cluster.client("c", at: g1, acknowledges: false)
      _ = try await Self.submit(channel, ["d"])
      #expect(try await Self.ids(again, 1) == ["d"])
    }
  }

  @Test func aGapIsToldAndItsRowsExpire() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") { $0.fleetTailEntries = 1 }
      try await InboxDeliveryTests.leave(try await cluster.client("c", at: g1), cluster, g1)
      let producer = try KafkaProducer(KafkaConnection(bootstrap: cluster.bootstrap), loop: cluster.loop)
      let registry = Registry(g1.redis)
      var limits = FleetLog.Limits()
      limits.entries = 3
      let dispatch = JobDispatch(
        registry: registry, ledger: JobLedger(g1.redis),
        publisher: Publisher(registry: registry, producer: producer, logLimits: limits))
      for name in ["a", "b", "c", "d", "e"] { _ = try await dispatch.submit(try #require(Self.job(name).job)) }
      let channel = try cluster.channel(to: g1)
      for name in ["a", "b"] {
        let row = try await DeliveryTests.status(channel, name).targets[0]
        #expect(row.state == .expired && row.reason.hasPrefix("The log had no more room"))
      }
      #expect(try await DeliveryTests.status(channel, "c").targets[0].state == .accepted)
      let client = try await cluster.client("c", at: g1)
      guard case .event(let event) = try await client.next()?.payload else {
        Issue.record("no event")
        return
      }
      #expect(event.type == "gap" && event.details.hasPrefix("Messages to tags or to all"))
      #expect(try await Self.ids(client, 3) == ["c", "d", "e"])
      #expect(g1.metric("fleetpush_fleet_log_gaps_total") == 1)
      await producer.close()
    }
  }

  @Test func whatIsCancelledIsNotDeliveredAnyMore() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      try await InboxDeliveryTests.leave(try await cluster.client("away", at: g1), cluster, g1)
      let here = try await cluster.client("here", at: g2)
      let channel = try cluster.channel(to: g1)
      let jobs = PushV1.JobServiceClient(channel)
      _ = try await Self.submit(channel, ["all", "kept"])
      for id in ["named", "named-kept"] {
        _ = try await jobs.submit(DeliveryTests.job(id, to: ["away", "here"], text: id))
      }
      let given = Set(try await Self.ids(here, 4))
      #expect(given == ["all", "kept", "named/here", "named-kept/here"])
      for id in ["all", "named"] {
        try await cluster.until {
          try await DeliveryTests.status(channel, id).targets.contains { $0.state == .written }
        }
        let status = try await jobs.cancel(PushV1.CancelJobRequest(jobID: id, reason: "enough"))
        let rows = Dictionary(uniqueKeysWithValues: status.targets.map { ($0.clientID, $0) })
        #expect(status.state == .cancelled && rows["here"]?.state == .written)
        #expect(rows["away"]?.state == .failed && rows["away"]?.reason == "The job was cancelled.")
      }
      // To submit it again sends nothing.
      #expect(try await Self.submit(channel, ["all"])[0].duplicate)
      // Two jobs to all and two cancellations: every gateway knows.
      for gateway in [g1, g2] {
        try await cluster.until {
          gateway.metric(#"fleetpush_records_consumed_total{topic="client-broadcast"}"#) >= 4
        }
      }
      // Neither the one that waited nor the one that was written and not acknowledged.
      for (id, gateway) in [("away", g2), ("here", g1), ("away", g1)] {
        let client = try await cluster.client(id, at: gateway)
        #expect(Set(try await Self.ids(client, 2)) == ["kept", "named-kept/\(id)"])
      }
    }
  }

  @Test func aFlushOfRedisUnderLiveSessionsIsSurvived() async throws {
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
      #expect(after.messageID == "b" && after.inboxID != before.inboxID && after.prevSeq == 0)
    }
  }

  @Test func targetsAreOfOneKind() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let jobs = PushV1.JobServiceClient(try cluster.channel(to: g1))
      let many = Dictionary(uniqueKeysWithValues: (0..<33).map { ("t\($0)", "") })
      for targets in [
        PushV1.Targets(), PushV1.Targets(clientIDs: ["c"], all: true), PushV1.Targets(all: true, tags: ["a": "b"]),
        PushV1.Targets(clientIDs: ["c"], tags: ["a": "b"]), PushV1.Targets(tags: ["": "b"]), PushV1.Targets(tags: many),
        PushV1.Targets(tags: ["a": String(repeating: "x", count: 257)]),
      ] {
        var request = Self.job("j")
        request.job?.targets = targets
        let error = await #expect(throws: Status.self) { _ = try await jobs.submit(request) }
        #expect(error?.code == .invalidArgument && error?.message.hasSuffix(".") == true, "\(targets)")
      }
    }
  }

  @Test func aHintThatComesBehindTheCancellationOfItsJobIsLate() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let client = try await cluster.client("c", at: g1)
      let channel = try cluster.channel(to: g1)
      _ = try await Self.submit(channel, ["first"])
      #expect(try await Self.ids(client, 1) == ["first"])
      let previous = try await FleetLog(Registry(g1.redis)).head()
      let producer = try KafkaProducer(KafkaConnection(bootstrap: cluster.bootstrap), loop: cluster.loop)
      let publisher = Publisher(registry: Registry(g1.redis), producer: producer)
      try await publisher.broadcast(PushRecord(target: .cancelled(job: "late")))
      let message = PushV1.ServerMessage(payload: .text(PushV1.TextMessage(content: "late")), messageID: "late")
      var hint = PushRecord(
        target: .all(tags: [:]), messageID: "late", message: message.serialized(), jobID: "late", isAtLeastOnce: true)
      hint.place = InboxPlace(inboxID: previous.logID, seq: previous.seq + 1, previous: previous.seq)
      try await publisher.broadcast(hint)
      _ = try await Self.submit(channel, ["next"])
      #expect(try await Self.ids(client, 1) == ["next"])
      await producer.close()
    }
  }
}
