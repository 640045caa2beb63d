import GRPC
import Kafka
import Protobuf
import Reactor
import Routing
import Schema
import Testing

@testable import GatewayService

/// Clients that stop reading: `TestClient` gives no credit beyond a message until it is read.
@Suite(.timeLimit(.minutes(1))) struct SlowReaderTests {
  static let limit = 256 << 10
  static let text = String(repeating: "x", count: 20_000)

  static func job(
    _ number: Int, to clients: [String], _ qos: PushV1.QoS, _ policy: PushV1.SlowReader = .slowReaderDefault
  ) -> PushV1.SubmitRequest {
    PushV1.SubmitRequest(
      job: PushV1.Job(
        jobID: "j\(number)", targets: PushV1.Targets(clientIDs: clients, all: clients.isEmpty),
        payload: .text(PushV1.TextMessage(content: text)), qos: qos, slowReader: policy))
  }

  static func bounded(_ options: inout GatewayOptions) { options.maximumQueuedBytes = limit }

  /// Pushes to a client that doesn't read and to one that does; the latter has all of them.
  static func submit(
    _ cluster: Cluster, _ gateway: TestGateway, to clients: [String], reader: TestClient, count: Int, _ qos: PushV1.QoS,
    _ policy: PushV1.SlowReader = .slowReaderDefault
  ) async throws {
    let jobs = PushV1.JobServiceClient(try cluster.channel(to: gateway))
    for number in 0..<count {
      _ = try await jobs.submit(job(number, to: clients, qos, policy))
      let message = try #require(try await reader.next())
      #expect(message.jobID == "j\(number)")
      try await reader.send(.ack(PushV1.Acknowledgement(messageIDs: [message.messageID])))
    }
  }

  @Test(arguments: [["slow", "reader"], []])
  func theOldestBestEffortMessagesAreDropped(clients: [String]) async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1", Self.bounded)
      let slow = try await cluster.client("slow", at: g1)
      let reader = try await cluster.client("reader", at: g1)
      let count = 150
      try await Self.submit(cluster, g1, to: clients, reader: reader, count: count, .atMostOnce)
      let dropped = g1.metric("fleetpush_messages_dropped_total")
      #expect(dropped > 0 && g1.metric("fleetpush_streams_overflowed_total") == 0)
      var seen: [Int] = []
      while seen.last != count - 1 {
        let message = try #require(try await slow.next())
        seen.append(try #require(Int(message.jobID.dropFirst())))
      }
      // In order, one hole, and the newest are there.
      #expect(seen.count == count - dropped && seen == seen.sorted())
      #expect(zip(seen, seen.dropFirst()).filter { $0 + 1 != $1 }.count == 1)
      guard !clients.isEmpty else { return }
      let channel = try cluster.channel(to: g1)
      let lost = Set(0..<count).subtracting(seen)
      let number = try #require(lost.min())
      try await cluster.until {
        try await DeliveryTests.status(channel, "j\(number)").targets.contains {
          $0.clientID == "slow" && $0.state == .failed && $0.reason == "Dropped: the client reads too slowly."
        }
      }
    }
  }

  @Test func whatIsKeptWaitsInTheInbox() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1", Self.bounded)
      let slow = try await cluster.client("slow", at: g1)
      let reader = try await cluster.client("reader", at: g1)
      try await Self.submit(cluster, g1, to: ["slow", "reader"], reader: reader, count: 100, .atLeastOnce, .wait)
      #expect(g1.metric("fleetpush_messages_dropped_total") == 0)
      for number in 0..<100 { #expect(try await slow.next()?.messageID == "j\(number)/slow") }
      #expect(g1.metric("fleetpush_streams_overflowed_total") == 0)
    }
  }

  @Test(arguments: [PushV1.QoS.atLeastOnce, .atMostOnce])
  func aStreamIsClosedWithADelayToComeBackAfter(qos: PushV1.QoS) async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1", Self.bounded)
      let slow = try await cluster.client("slow", at: g1)
      let reader = try await cluster.client("reader", at: g1)
      let jobs = PushV1.JobServiceClient(try cluster.channel(to: g1))
      var count = 0
      while g1.metric("fleetpush_streams_overflowed_total") == 0 {
        _ = try await jobs.submit(Self.job(count, to: ["slow", "reader"], qos, .disconnect))
        let message = try #require(try await reader.next())
        try await reader.send(.ack(PushV1.Acknowledgement(messageIDs: [message.messageID])))
        count += 1
      }
      var farewell: PushV1.GoAway?
      var last: PushV1.ServerMessage?
      let error = await #expect(throws: Status.self) {
        while let message = try await slow.next() {
          if case .goAway(let goAway) = message.payload { farewell = goAway } else { last = message }
        }
      }
      #expect(farewell?.retryAfterMs == 5000 && farewell?.replaced == false)
      #expect(error?.code == .resourceExhausted)
      guard qos == .atLeastOnce else { return }
      // What was kept comes on the next stream, after what is acknowledged.
      let end = try #require(last)
      let back = try await cluster.client("slow", at: g1, positions: [TestClient.position(of: end)])
      let next = try #require(Int(end.jobID.dropFirst())) + 1
      #expect(next < count)
      for number in next..<count { #expect(try await back.next()?.messageID == "j\(number)/slow") }
    }
  }

  @Test func aDirectPushIsRefusedUnlessItIsAskedOtherwise() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1", Self.bounded)
      let slow = try await cluster.client("slow", at: g1)
      let service = PushV1.PushServiceClient(try cluster.channel(to: g1))
      var request = PushV1.PushRequest(clientID: "slow", message: Self.text)
      var taken = 0
      var answer = try await service.pushToClient(request)
      while answer.success {
        taken += 1
        answer = try await service.pushToClient(request)
      }
      #expect(answer.reason == .slow && answer.error == "The client reads too slowly.")
      request.keep = true
      let kept = try await service.pushToClient(request)
      #expect(kept.success && kept.stored)
      for _ in 0..<taken { #expect(try await slow.next()?.seq == 0) }
      #expect(try await slow.next()?.source == "inbox")
      // Full again: this one closes the stream.
      request.keep = false
      while try await service.pushToClient(request).success {}
      request.slowReader = .disconnect
      #expect(try await service.pushToClient(request).reason == .slow)
      try await cluster.until { g1.metric("fleetpush_clients") == 0 }
    }
  }

  @Test func aBacklogGivesWhatItTookInOrder() {
    var backlog = Backlog()
    var next = 0
    for number in 0..<2000 {
      backlog.append(
        Backlog.Held(message: EncodedMessage(PushV1.TextMessage(content: "x")), job: "\(number)", client: nil))
      if number % 3 == 0 {
        #expect(backlog.popFirst()?.job == "\(next)")
        next += 1
      }
    }
    #expect(
      backlog.count == 2000 - next
        && backlog.bytes == backlog.count * EncodedMessage(PushV1.TextMessage(content: "x")).count)
    while let held = backlog.popFirst() {
      #expect(held.job == "\(next)")
      next += 1
    }
    #expect(next == 2000 && backlog.isEmpty && backlog.bytes == 0)
  }

  /// Answers to heartbeats are bounded as everything else that is queued.
  @Test func whoSendsHeartbeatsAndReadsNothingIsNotAnsweredForEver() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") { $0.maximumQueuedBytes = 1000 }
      let slow = try await cluster.client("slow", at: g1)
      let count = 30_000
      for number in 1...count { try await slow.send(.heartbeat(PushV1.Heartbeat(timestamp: Int64(number)))) }
      try await slow.send(.fileStatus(PushV1.FileStatus()))
      slow.call.finishSending()
      var answers = 0
      while let message = try? await slow.call.next() {
        if case .heartbeat = message.payload { answers += 1 }
      }
      #expect(answers > 0 && answers < count)
    }
  }

  /// With more streams than one turn serves, messages to all wait for each other.
  @Test func messagesToAllThatComeFasterThanTheyGoAreBounded() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1") { $0.maximumFanOutBytes = 5000 }
      var clients: [TestClient] = []
      for number in 0...GatewayLimits.streamsPerTurn {
        clients.append(try await cluster.client("c\(number)", at: g1))
      }
      let producer = try KafkaProducer(KafkaConnection(bootstrap: cluster.bootstrap), loop: cluster.loop)
      let publisher = Publisher(registry: Registry(g1.redis), producer: producer)
      let message = PushV1.ServerMessage(payload: .text(PushV1.TextMessage(content: "hi"))).serialized()
      let record = PushRecord(target: .all(tags: [:]), message: message)
      let count = 50
      for _ in 0..<count { cluster.loop.spawn { try? await publisher.broadcast(record) } }
      try await cluster.until {
        g1.metric("fleetpush_fanouts_dropped_total") * clients.count + g1.metric("fleetpush_messages_written_total")
          == count * clients.count
      }
      #expect(g1.metric("fleetpush_fanouts_dropped_total") > 0)
      #expect(try await clients[0].text() == "hi")
      await producer.close()
    }
  }
}
