import GRPC
import Reactor
import Redis
import Schema
import Testing

@testable import GatewayService
@testable import Routing

@Suite(.timeLimit(.minutes(1))) struct DirectPushTests {
  static func request(
    _ client: String = "c", _ text: String = "hi", keep: Bool = false, waits: Bool = false, timeout: Int64 = 0
  ) -> PushV1.PushRequest {
    PushV1.PushRequest(
      clientID: client, message: text, keep: keep, wait: waits ? .acknowledged : .written, timeoutMs: timeout)
  }

  static func service(_ cluster: Cluster, _ gateway: TestGateway) throws -> PushV1.PushServiceClient {
    PushV1.PushServiceClient(try cluster.channel(to: gateway))
  }

  /// A call that is under way while its test goes on.
  final class Call {
    fileprivate var result: Result<PushV1.PushResponse, any Error>?
    fileprivate let done = Wakeup()

    func answer() async throws -> PushV1.PushResponse {
      if result == nil { await done.wait() }
      return try #require(try result?.get())
    }
  }

  static func start(_ cluster: Cluster, _ service: PushV1.PushServiceClient, _ request: PushV1.PushRequest) -> Call {
    let call = Call()
    cluster.loop.spawn {
      do { call.result = .success(try await service.pushToClient(request)) } catch { call.result = .failure(error) }
      call.done.fire()
    }
    return call
  }

  /// Ends a client's session and waits until the registry says so.
  static func leave(_ client: TestClient, _ cluster: Cluster, _ gateway: TestGateway) async throws {
    client.call.finishSending()
    let registry = Registry(gateway.redis)
    try await cluster.until { if case .offline = try await registry.locate([client.id])[0] { true } else { false } }
  }

  @Test func aKnownNodeSavesTheRegistryAndIsDroppedAtAMiss() async throws {
    try await withCluster { cluster in
      let (g1, g2, g3) = (
        try await cluster.gateway("g1"), try await cluster.gateway("g2"), try await cluster.gateway("g3")
      )
      let client = try await cluster.client("c", at: g2)
      let service = try Self.service(cluster, g1)
      #expect(try await service.pushToClient(Self.request()).nodeID == "g2")
      #expect(try await client.text() == "hi")
      // Nothing but what was remembered leads there now.
      _ = try await g1.redis.send("RENAME", "client:{c}", "hidden")
      #expect(try await service.pushToClient(Self.request()).nodeID == "g2")
      #expect(try await client.text() == "hi")
      _ = try await g1.redis.send("RENAME", "hidden", "client:{c}")
      // It moves: what was remembered is wrong, and the registry is asked.
      let moved = try await cluster.client("c", at: g3)
      #expect(
        try await client.next()?.payload.map { if case .goAway(let end) = $0 { end.replaced } else { false } } == true)
      let answer = try await service.pushToClient(Self.request())
      #expect(answer == PushV1.PushResponse(success: true, nodeID: "g3"))
      #expect(try await moved.text() == "hi")
      #expect(g1.metric("fleetpush_messages_missed_total") == 1)
    }
  }

  @Test func aMissIsToldToTheNodeThatAskedAndNotPassedOn() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      _ = try await cluster.client("c", at: g2)
      var request = Self.request()
      request.hops = 1
      let service = try Self.service(cluster, g1)
      let answer = try await service.pushToClient(request)
      #expect(!answer.success && answer.reason == .notHere && answer.nodeID == "g1")
      // Another node at the address of one that has gone.
      request.nodeID = "g9"
      #expect(try await Self.service(cluster, g2).pushToClient(request).reason == .notHere)
      #expect(g1.metric("fleetpush_messages_forwarded_total") == 0)
    }
  }

  @Test func aRecordThatNamesANodeWithoutTheClientEndsAfterOneMiss() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let client = try await cluster.client("c", at: g1)
      // The registry says g2, which has no such client.
      _ = try await g1.redis.send("HSET", "client:{c}", "node", "g2")
      let epoch = try #require(try await g1.redis.send("HGET", "node:{g2}", "epoch").asString)
      _ = try await g1.redis.send("HSET", "client:{c}", "node_epoch", .string(epoch))
      client.channel.close()
      try await cluster.until { g1.metric("fleetpush_clients") == 0 }
      _ = try await g1.redis.send("HSET", "client:{c}", "node", "g2", "node_epoch", .string(epoch))
      let service = try Self.service(cluster, g1)
      let answer = try await service.pushToClient(Self.request())
      #expect(!answer.success && answer.reason == .offline)
      #expect(g1.metric("fleetpush_messages_forwarded_total") == 1)
      let kept = try await service.pushToClient(Self.request("c", "kept", keep: true))
      #expect(kept.success && kept.stored && !kept.acknowledged)
      #expect(try await cluster.client("c", at: g2).text() == "kept")
    }
  }

  @Test func theAcknowledgementResumesTheCallHereAndThroughAnotherNode() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let client = try await cluster.client("c", at: g2)
      for gateway in [g1, g2] {
        let service = try Self.service(cluster, gateway)
        let call = Self.start(cluster, service, Self.request(waits: true, timeout: 30_000))
        let message = try #require(try await client.next())
        try await client.send(.ack(PushV1.Acknowledgement(messageIDs: [message.messageID])))
        let settled = try await call.answer()
        #expect(settled.success && settled.acknowledged && !settled.stored && settled.nodeID == "g2")
      }
      // One that never acknowledges has what was written to it.
      let silent = try await cluster.client("s", at: g1, acknowledges: false)
      #expect(try await Self.service(cluster, g2).pushToClient(Self.request("s", waits: true)).acknowledged)
      #expect(try await silent.text() == "hi")
    }
  }

  @Test func aMessageThatIsNotAcknowledgedInTimeIsRefusedOrKept() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let client = try await cluster.client("c", at: g2)
      let service = try Self.service(cluster, g1)
      let late = try await service.pushToClient(Self.request(waits: true, timeout: 50))
      #expect(!late.success && late.reason == .notAcknowledged)
      _ = try await client.next()
      let kept = try await service.pushToClient(Self.request("c", "kept", keep: true, waits: true, timeout: 50))
      #expect(kept.success && kept.stored && !kept.acknowledged)
      // It comes again from the inbox, under the id by which the client knows it.
      let first = try #require(try await client.next())
      let second = try #require(try await client.next())
      #expect(first.messageID == second.messageID && first.seq == 0 && second.seq > 0 && second.source == "inbox")
      try await client.acknowledge(second)
      try await cluster.until { try await g1.redis.send("EXISTS", "inbox:{c}:messages").asInteger == 0 }
    }
  }

  @Test func aStreamThatEndsEndsTheWaitForItsAcknowledgement() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      let g2 = try await cluster.gateway("g2")
      let client = try await cluster.client("c", at: g2)
      let service = try Self.service(cluster, g1)
      let call = Self.start(
        cluster, service, Self.request("c", "x", keep: true, waits: true, timeout: 50_000))
      let message = try #require(try await client.next())
      client.channel.close()
      let kept = try await call.answer()
      #expect(kept.success && kept.stored)
      let back = try await cluster.client("c", at: g1)
      #expect(try await back.next()?.messageID == message.messageID)
    }
  }

  @Test func whatIsForNobodyIsKeptOrRefused() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      try await Self.leave(try await cluster.client("c", at: g1), cluster, g1)
      let service = try Self.service(cluster, g1)
      #expect(try await service.pushToClient(Self.request()).reason == .offline)
      #expect(try await service.pushToClient(Self.request("nobody", keep: true)).reason == .unknownClient)
      let kept = try await service.pushToClient(Self.request("c", "kept", keep: true))
      #expect(kept.success && kept.stored)
      let client = try await cluster.client("c", at: g1)
      #expect(try await client.text() == "kept")
      var bad = Self.request()
      bad.slowReader = .wait
      var negative = Self.request()
      negative.timeoutMs = -1
      for request in [bad, negative] {
        let error = await #expect(throws: Status.self) { _ = try await service.pushToClient(request) }
        #expect(error?.code == .invalidArgument)
      }
    }
  }

  @Test func theNumberOfWaitingCallsIsBoundedAndTheirEndsFreeTheirSlots() async throws {
    let loop = try EventLoop.start(name: "test")
    defer { loop.stop() }
    try await loop.run {
      final class Stream {}
      let stream = Stream()
      let waits = AcknowledgementWaits(loop: loop, limit: 2)
      let first = try #require(waits.begin(stream, "a"))
      let second = try #require(waits.begin(stream, "b"))
      #expect(waits.begin(stream, "c") == nil)
      waits.acknowledged(stream, ["b"])
      #expect(waits.count == 1)
      #expect(await waits.wait(second, until: .max) == .acknowledged)
      #expect(await waits.wait(first, until: EventLoop.monotonicNanoseconds() + 5_000_000) == .late)
      #expect(waits.count == 0)
      let third = try #require(waits.begin(stream, "c"))
      let fourth = try #require(waits.begin(stream, "d"))
      var end: AcknowledgementWaits.End?
      let over = Wakeup()
      let story = loop.spawn {
        end = await waits.wait(third, until: .max)
        over.fire()
      }
      loop.schedule(after: .milliseconds(5)) { story.cancel() }
      await over.wait()
      #expect(end == .cancelled && waits.count == 1)
      waits.ended(stream)
      #expect(await waits.wait(fourth, until: .max) == .gone)
      #expect(waits.count == 0)
    }
  }

  @Test func rememberedLocationsAreBoundedAndThoseInUseStay() throws {
    var locations = ClientLocations(limit: 8)
    let node = try #require(NodeRecord(id: "n", [(name: "epoch", value: .integer(1))], leaseLeft: 1))
    for number in 0..<100 {
      locations.insert("c\(number)", node)
      #expect(locations.find("c0") == node)
      #expect(locations.count <= 8)
    }
    #expect(locations.find("c50") == nil)
    locations.remove("c0")
    #expect(locations.find("c0") == nil)
  }

  @Test func aTimeToLiveOfAnyLengthIsBounded() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      try await Self.leave(try await cluster.client("c", at: g1), cluster, g1)
      let service = try Self.service(cluster, g1)
      for (number, expiry) in [Int64.max, 1 << 62, -1].enumerated() {
        var request = Self.request(keep: true)
        request.envelope = PushV1.ServerMessage(
          payload: .text(PushV1.TextMessage(content: "\(number)")), expiresAtMs: expiry)
        let answer = try await service.pushToClient(request)
        #expect(answer.success && answer.stored)
      }
      let client = try await cluster.client("c", at: g1)
      for number in 0..<3 { #expect(try await client.text() == "\(number)") }
      let left = try await g1.redis.send("PTTL", "inbox:{c}").asInteger ?? -1
      #expect(left > 0 && left <= JobDispatch.maximumTimeToLive.wholeMilliseconds)
    }
  }

  @Test func aKeptMessageThatIsAcknowledgedByItsIdComesNoMore() async throws {
    try await withCluster { cluster in
      let g1 = try await cluster.gateway("g1")
      try await Self.leave(try await cluster.client("c", at: g1), cluster, g1)
      #expect(try await Self.service(cluster, g1).pushToClient(Self.request(keep: true)).stored)
      let client = try await cluster.client("c", at: g1)
      let message = try #require(try await client.next())
      try await client.send(.ack(PushV1.Acknowledgement(messageIDs: [message.messageID])))
      try await cluster.until { try await g1.redis.send("HLEN", "inbox:{c}:messages").asInteger == 0 }
    }
  }
}
