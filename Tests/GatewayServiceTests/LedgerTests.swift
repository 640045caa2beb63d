import GRPC
import Reactor
import Redis
import Routing
import Schema
import Testing

/// What stands in the ledger, and what it takes to get there.
@Suite(.timeLimit(.minutes(1))) struct LedgerTests {
  @Test func whatIsAcknowledgedSoonNeverStandsAsWritten() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g")
      let channel = try cluster.channel(to: gateway)
      for id in ["quick", "slow"] {
        try await InboxDeliveryTests.leave(try await cluster.client(id, at: gateway), cluster, gateway)
      }
      let service = PushV1.JobServiceClient(channel)
      _ = try await service.submit(DeliveryTests.job("j", to: ["quick", "slow"], text: "hello"))
      let quick = try await cluster.client("quick", at: gateway)
      let slow = try await cluster.client("slow", at: gateway)
      try await quick.acknowledge(try #require(try await quick.next()))
      let message = try #require(try await slow.next())
      try await cluster.until {
        Set(try await DeliveryTests.status(channel, "j").targets.map(\.state)) == [.acknowledged, .written]
      }
      // Both rows were accepted, then stored; then one was acknowledged, and the other written.
      let ledger = JobLedger(gateway.redis)
      #expect(try await ledger.summary(of: "j").ordinal == 6)
      try await slow.acknowledge(message)
      try await cluster.until { try await DeliveryTests.status(channel, "j").state == .succeeded }
      #expect(try await ledger.summary(of: "j").ordinal == 7)
    }
  }

  @Test func aJobEndsAtItsDeadlineWithoutAReader() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g")
      let channel = try cluster.channel(to: gateway)
      let client = try await cluster.client("c", at: gateway)
      var request = DeliveryTests.job("j", to: ["c"], text: "hello")
      request.job?.deadlineMs = EventLoop.wallClockMilliseconds() + 300
      _ = try await PushV1.JobServiceClient(channel).submit(request)
      _ = try await client.next()
      // Nobody reads the job: its row is looked at as it stands in Redis.
      try await cluster.until { try await gateway.redis.send("HGET", "job:{j}:row:c", "state").asString == "8" }
      #expect(try await gateway.redis.send("HGET", "job:{j}:row:c", "reason").asString == "The job's deadline passed.")
    }
  }

  @Test func aWatchOfABestEffortJobForAllWaitsForItsCounts() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g")
      let channel = try cluster.channel(to: gateway)
      let clients = [try await cluster.client("a", at: gateway), try await cluster.client("b", at: gateway)]
      let service = PushV1.JobServiceClient(channel)
      let job = PushV1.Job(
        jobID: "j", targets: PushV1.Targets(all: true), payload: .text(PushV1.TextMessage(content: "hello")),
        qos: .atMostOnce)
      _ = try await service.submit(PushV1.SubmitRequest(job: job))
      let updates = try await service.watch(PushV1.WatchJobRequest(jobID: "j"))
      var last = PushV1.JobStatus()
      while let update = try await updates.next() { last = update }
      #expect(last.state == .succeeded && last.counts == [PushV1.StateCount(state: .written, count: 2)])
      withExtendedLifetime(clients) {}
    }
  }

  @Test func aPageTokenOfAnySizeIsNoTrap() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g")
      let service = PushV1.JobServiceClient(try cluster.channel(to: gateway))
      let page = try await service.list(PushV1.ListJobsRequest(pageSize: 7, pageToken: String(Int64.max)))
      #expect(page.jobs.isEmpty && page.nextPageToken.isEmpty)
    }
  }
}
