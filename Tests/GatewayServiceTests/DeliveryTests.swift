import GRPC
import Reactor
import Redis
import Schema
import Testing

@Suite(.timeLimit(.minutes(1))) struct DeliveryTests {
  static func job(_ id: String, to clients: [String], text: String) -> PushV1.SubmitRequest {
    PushV1.SubmitRequest(
      job: PushV1.Job(
        jobID: id, targets: PushV1.Targets(clientIDs: clients), payload: .text(PushV1.TextMessage(content: text)),
        qos: .atLeastOnce))
  }

  static func status(_ channel: Channel, _ job: String) async throws -> PushV1.JobStatus {
    try await PushV1.JobServiceClient(channel).get(PushV1.GetJobRequest(jobID: job))
  }

  @Test func aTextFromOneGatewayReachesAClientOnAnotherThroughKafka() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let client = try await cluster.client("c", at: g2)
      #expect(client.registered.nodeID == "g2" && !client.registered.sessionID.isEmpty)
      #expect(client.registered.heartbeatIntervalMs == 10_000)
      let channel = try cluster.channel(to: g1)
      let jobs = PushV1.JobServiceClient(channel)
      let answer = try await jobs.submit(Self.job("j", to: ["c", "stranger"], text: "hello"))
      #expect(answer == PushV1.SubmitResponse(jobID: "j", duplicate: false, targetCount: 2))
      let message = try #require(try await client.next())
      #expect(message.payload == .text(PushV1.TextMessage(content: "hello")))
      #expect(message.messageID == "j/c" && message.jobID == "j")
      try await client.send(.ack(PushV1.Acknowledgement(messageIDs: [message.messageID])))
      try await cluster.until { try await Self.status(channel, "j").state == .failed }
      let status = try await Self.status(channel, "j")
      let rows = Dictionary(uniqueKeysWithValues: status.targets.map { ($0.clientID, $0) })
      #expect(rows["c"]?.state == .acknowledged && rows["c"]?.gateway == "g2" && rows["c"]?.messageID == "j/c")
      #expect(rows["stranger"]?.state == .failed && rows["stranger"]?.reason == "No client of this id is known.")
      #expect(status.complete)
      // Only the gateway whose partition it was has read it.
      #expect(g1.metric(#"fleetpush_records_consumed_total{topic="client-push"}"#) == 0)
      #expect(g2.metric(#"fleetpush_records_kept_total{topic="client-push"}"#) == 1)
      // Once is once.
      #expect(try await jobs.submit(Self.job("j", to: ["c", "stranger"], text: "hello")).duplicate)
      let error = await #expect(throws: Status.self) {
        _ = try await jobs.submit(Self.job("j", to: ["c"], text: "other"))
      }
      #expect(error?.code == .failedPrecondition)
      #expect(g2.metric("fleetpush_messages_written_total") == 1)
    }
  }

  @Test func gatewaysOnOnePartitionKeepTheirOwnRecords() async throws {
    try await withCluster(partitions: 1) { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let one = try await cluster.client("one", at: g1)
      let two = try await cluster.client("two", at: g2)
      let jobs = PushV1.JobServiceClient(try cluster.channel(to: g1))
      for number in 0..<5 {
        _ = try await jobs.submit(Self.job("j\(number)", to: number < 3 ? ["one"] : ["two"], text: "\(number)"))
      }
      for number in 0..<3 { #expect(try await one.text() == "\(number)") }
      for number in 3..<5 { #expect(try await two.text() == "\(number)") }
      func counts(_ gateway: TestGateway) -> [Int] {
        ["consumed", "kept", "filtered"].map {
          gateway.metric("fleetpush_records_\($0)_total{topic=\"client-push\"}")
        }
      }
      try await cluster.until { counts(g1)[0] == 5 && counts(g2)[0] == 5 }
      #expect(counts(g1) == [5, 3, 2])
      #expect(counts(g2) == [5, 2, 3])
    }
  }

  @Test func aMessageToAllReachesEveryClientOfEveryGateway() async throws {
    try await withCluster { cluster in
      let gateways = [try await cluster.gateway("g1"), try await cluster.gateway("g2")]
      var clients: [TestClient] = []
      for number in 0..<10 {
        clients.append(try await cluster.client("c\(number)", at: gateways[number % 2], acknowledges: number > 0))
      }
      let channel = try cluster.channel(to: gateways[0])
      let jobs = PushV1.JobServiceClient(channel)
      var job = Self.job("j", to: [], text: "everyone")
      job.job?.targets?.all = true
      #expect(try await jobs.submit(job).targetCount == 10)
      for client in clients {
        let message = try #require(try await client.next())
        #expect(message.payload == .text(PushV1.TextMessage(content: "everyone")) && message.messageID == "j")
        try await client.send(.ack(PushV1.Acknowledgement(messageIDs: [message.messageID])))
      }
      try await cluster.until { try await Self.status(channel, "j").state == .succeeded }
      #expect(try await Self.status(channel, "j").targets.map(\.clientID).sorted() == clients.map(\.id))

      // A best-effort one is counted, and keeps no rows.
      job.job?.jobID = "k"
      job.job?.qos = .atMostOnce
      _ = try await jobs.submit(job)
      for client in clients { #expect(try await client.text() == "everyone") }
      try await cluster.until { try await Self.status(channel, "k").counts.first?.count == 10 }
      let status = try await Self.status(channel, "k")
      #expect(status.state == .succeeded && status.targets.isEmpty)
    }
  }

  @Test func aDirectPushIsForwardedToTheNodeThatHoldsTheClient() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let client = try await cluster.client("c", at: g2)
      let service = PushV1.PushServiceClient(try cluster.channel(to: g1))
      let forwarded = try await service.pushToClient(PushV1.PushRequest(clientID: "c", message: "hi"))
      #expect(forwarded == PushV1.PushResponse(success: true, nodeID: "g2"))
      #expect(try await client.text() == "hi")
      let here = PushV1.PushServiceClient(try cluster.channel(to: g2))
      #expect(try await here.pushToClient(PushV1.PushRequest(clientID: "c", message: "there")).success)
      #expect(try await client.text() == "there")
      #expect(g2.metric(#"fleetpush_records_consumed_total{topic="client-push"}"#) == 0)

      let unknown = try await service.pushToClient(PushV1.PushRequest(clientID: "nobody", message: "hi"))
      #expect(!unknown.success && unknown.error == "No client of this id is known.")
      client.call.finishSending()
      try await cluster.until {
        let answer = try await service.pushToClient(PushV1.PushRequest(clientID: "c", message: "late"))
        return !answer.success && answer.error == "The client is offline."
      }
      for bad in [
        PushV1.PushRequest(message: "x"), PushV1.PushRequest(clientID: "c", envelope: PushV1.ServerMessage()),
      ] {
        let error = await #expect(throws: Status.self) { _ = try await service.pushToClient(bad) }
        #expect(error?.code == .invalidArgument)
      }
    }
  }

  @Test func aBestEffortPublisherIsToldThatAClientIsOffline() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let client = try await cluster.client("c", at: g1)
      client.channel.close()
      let channel = try cluster.channel(to: g1)
      let directory = PushV1.DirectoryServiceClient(channel)
      try await cluster.until {
        try await directory.listClients(PushV1.ListClientsRequest()).clients[0].online == false
      }
      var request = Self.job("j", to: ["c"], text: "x")
      request.job?.qos = .atMostOnce
      let answer = try await PushV1.JobServiceClient(channel).submit(request)
      #expect(answer.storedCount == 0)
      let row = try await Self.status(channel, "j").targets[0]
      #expect(row.state == .failed && row.reason == "The client is offline.")
      #expect(try await g1.redis.send("EXISTS", "inbox:{c}").asInteger == 0)
    }
  }

  @Test func aJobIsWatchedToItsEnd() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let client = try await cluster.client("c", at: g1)
      let jobs = PushV1.JobServiceClient(try cluster.channel(to: g1))
      _ = try await jobs.submit(Self.job("j", to: ["c"], text: "x"))
      let watch = try await jobs.watch(PushV1.WatchJobRequest(jobID: "j"))
      let first = try #require(try await watch.next())
      #expect(first.complete && first.targets.count == 1 && first.state == .running)
      let message = try #require(try await client.next())
      try await client.send(.ack(PushV1.Acknowledgement(messageIDs: [message.messageID])))
      var last = first
      while let status = try await watch.next() { last = status }
      #expect(last.state == .succeeded && last.targets.map(\.state) == [.acknowledged])
      #expect(try await jobs.list(PushV1.ListJobsRequest()).jobs.map { $0.job?.jobID } == ["j"])
      for id in ["", "none"] {
        await #expect(throws: Status.self) { _ = try await jobs.get(PushV1.GetJobRequest(jobID: id)) }
      }
    }
  }

  @Test func aFilesStatusGoesIntoTheLedger() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let client = try await cluster.client("c", at: g1)
      let channel = try cluster.channel(to: g1)
      let jobs = PushV1.JobServiceClient(channel)
      // A best-effort job to all is of a message; here the row of a text shows that a file's states don't apply to it.
      _ = try await jobs.submit(Self.job("j", to: ["c"], text: "x"))
      _ = try await client.next()
      try await client.send(.fileStatus(PushV1.FileStatus(jobID: "j", state: .failed, error: "no room")))
      try await cluster.until { try await Self.status(channel, "j").state == .failed }
      #expect(try await Self.status(channel, "j").targets[0].reason == "no room")
      var request = Self.job("k", to: ["c"], text: "")
      request.job?.payload = .fileID("nothing")
      let missing = await #expect(throws: Status.self) { _ = try await jobs.submit(request) }
      #expect(missing?.code == .notFound)
      request.job?.payload = .fileID("../x")
      let bad = await #expect(throws: Status.self) { _ = try await jobs.submit(request) }
      #expect(bad?.code == .invalidArgument)
    }
  }
}
