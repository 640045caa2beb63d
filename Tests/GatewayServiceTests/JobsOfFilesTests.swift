import Bytes
import FileStore
import GRPC
import GatewayService
import Kafka
import Protobuf
import Reactor
import Redis
import Routing
import Schema
import Testing

@Suite(.timeLimit(.minutes(1))) struct JobsOfFilesTests {
  /// Publishes a file of a few bytes.
  static func publish(_ id: String, in store: StoreDirectory) async throws -> Sidecar {
    try await BlockingPool.shared.run {
      let name = try FileID(id)
      let content = Bytes("what is in the file")
      let part = try store.createPart(name, fence: 1, size: Int64(content.count))
      try part.write(content, at: 0)
      let digests = try FileDigests.read(part, size: Int64(content.count))
      let sidecar = Sidecar(name: "a.txt", size: Int64(content.count), digests: digests, publishedAt: 1)
      try store.publish(name, fence: 1, file: part, sidecar: sidecar)
      return sidecar
    }
  }

  @Test func aFileIsAnnouncedAndItsProgressKept() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let sidecar = try await Self.publish("f-1", in: cluster.store)
      let client = try await cluster.client("c", at: g2)
      let channel = try cluster.channel(to: g1)
      var request = DeliveryTests.job("j", to: ["c"], text: "")
      request.job?.payload = .fileID("f-1")
      _ = try await PushV1.JobServiceClient(channel).submit(request)
      let message = try #require(try await client.next())
      guard case .fileNotice(let notice) = message.payload else {
        Issue.record("no notice: \(message)")
        return
      }
      #expect(notice.fileName == "a.txt" && notice.fileID == "f-1")
      #expect(notice.fileSize == sidecar.size && notice.md5 == sidecar.md5)
      try await client.send(.ack(PushV1.Acknowledgement(messageIDs: [message.messageID])))
      var report = PushV1.FileStatus(
        jobID: "j", messageID: message.messageID, fileID: "f-1", state: .downloading, fileSize: sidecar.size)
      for done in 0..<sidecar.size {
        report.bytesDone = done
        try await client.send(.fileStatus(report))
      }
      try await cluster.until { try await DeliveryTests.status(channel, "j").targets[0].percent > 50 }
      #expect(try await DeliveryTests.status(channel, "j").state == .running)
      report.state = .verified
      report.bytesDone = sidecar.size
      (report.md5, report.path, report.durationMs) = (sidecar.md5, "/data/a.txt", 12)
      try await client.send(.fileStatus(report))
      try await cluster.until { try await DeliveryTests.status(channel, "j").state == .succeeded }
      let row = try await DeliveryTests.status(channel, "j").targets[0]
      #expect(row.state == .verified && row.percent == 100 && row.path == "/data/a.txt" && row.md5 == sidecar.md5)
      #expect(row.size == sidecar.size && row.durationMs == 12 && row.gateway == "g2")
    }
  }

  @Test func aCancelledJobsOpenRowsEnd() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let client = try await cluster.client("c", at: g1)
      let jobs = PushV1.JobServiceClient(try cluster.channel(to: g1))
      _ = try await jobs.submit(DeliveryTests.job("j", to: ["c"], text: "x"))
      #expect(try await client.text() == "x")
      let status = try await jobs.cancel(PushV1.CancelJobRequest(jobID: "j", reason: "enough"))
      #expect(status.state == .cancelled && status.reason == "enough")
      // A watch of a job that is over ends by itself.
      let watch = try await jobs.watch(PushV1.WatchJobRequest(jobID: "j"))
      #expect(try await watch.next()?.state == .cancelled)
      while try await watch.next() != nil {}
      let error = await #expect(throws: Status.self) { _ = try await jobs.cancel(PushV1.CancelJobRequest(jobID: "k")) }
      #expect(error?.code == .notFound)
    }
  }

  @Test func badJobsAreRefused() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let jobs = PushV1.JobServiceClient(try cluster.channel(to: g1))
      let good = try #require(DeliveryTests.job("j", to: ["c"], text: "x").job)
      var bad: [PushV1.Job] = []
      func add(_ change: (inout PushV1.Job) -> Void) {
        var job = good
        change(&job)
        bad.append(job)
      }
      add { $0.jobID = "a/b" }
      add { $0.targets = nil }
      add { $0.targets?.all = true }
      add { $0.targets?.clientIDs = [""] }
      add { $0.targets?.clientIDs = Array(repeating: "c", count: JobDispatch.maximumTargets + 1) }
      add { $0.payload = nil }
      add { $0.payload = .event(PushV1.NotifyEvent()) }
      add { $0.payload = .text(.init(content: String(repeating: "x", count: JobDispatch.maximumContentBytes + 1))) }
      add { $0.qos = .unrecognized(7) }
      add { $0.ttlMs = -1 }
      for job in bad {
        let error = await #expect(throws: Status.self) { _ = try await jobs.submit(PushV1.SubmitRequest(job: job)) }
        #expect(error?.code == .invalidArgument && error?.message.isEmpty == false)
      }
      await #expect(throws: Status.self) { _ = try await jobs.submit(PushV1.SubmitRequest()) }
      #expect(try await jobs.list(PushV1.ListJobsRequest()).jobs.isEmpty)
    }
  }

  @Test func aMissedRecordFollowsItsClient() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let client = try await cluster.client("c", at: g2)
      // What a publisher does that looked the client up just before it moved.
      let registry = Registry(g1.redis)
      let producer = try KafkaProducer(KafkaConnection(bootstrap: cluster.bootstrap), loop: cluster.loop)
      let publisher = Publisher(registry: registry, producer: producer)
      let node = try #require(try await registry.nodes(named: ["g1"])["g1"])
      let message = PushV1.ServerMessage(payload: .text(PushV1.TextMessage(content: "after you")))
      publisher.produce(PushRecord(target: .client("c"), message: message.serialized()), to: node) { error in
        #expect(error == nil)
      }
      #expect(try await client.text() == "after you")
      #expect(g1.metric("fleetpush_messages_missed_total") == 1)
      #expect(g1.metric("fleetpush_messages_forwarded_total") == 1)
      await producer.close()
    }
  }

  @Test func aMessagePastItsTimeIsNotDelivered() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let client = try await cluster.client("c", at: g1)
      let registry = Registry(g1.redis)
      let producer = try KafkaProducer(KafkaConnection(bootstrap: cluster.bootstrap), loop: cluster.loop)
      let publisher = Publisher(registry: registry, producer: producer)
      func record(_ text: String, _ expiresAt: Int64) -> PushRecord {
        let message = PushV1.ServerMessage(payload: .text(PushV1.TextMessage(content: text)))
        return PushRecord(target: .client("c"), message: message.serialized(), expiresAt: expiresAt)
      }
      let outcomes = try await publisher.publish([record("late", 1), record("in time", .max)])
      #expect(outcomes == [.routed(node: "g1"), .routed(node: "g1")])
      #expect(try await client.text() == "in time")
      #expect(g1.metric("fleetpush_messages_expired_total") == 1)
      await producer.close()
    }
  }

  @Test func theNewerProcessOfANameKeepsIt() async throws {
    try await withCluster { cluster in
      let old = try await cluster.gateway("g") { $0.lease = .milliseconds(600) }
      let taken = Wakeup()
      old.gateway.onEvent = { if case .nameTaken = $0 { taken.fire() } }
      let new = try await cluster.gateway("g")
      await taken.wait()
      await old.stop()
      let directory = PushV1.DirectoryServiceClient(try cluster.channel(to: new))
      let nodes = try await directory.listNodes(PushV1.ListNodesRequest()).nodes
      #expect(nodes.map(\.address) == [new.address])
    }
  }
}
