import Bytes
import GRPC
import GatewayService
import Protobuf
import Reactor
import Redis
import Routing
import Schema
import Testing

@Suite(.timeLimit(.minutes(1))) struct ChannelTests {
  typealias Frames = ResponseStream<BroadcastV1.Frame>

  @discardableResult
  static func publish(
    _ channel: Channel, _ seqNo: Int64, _ text: String, timestamp: Int64 = 0, id: String = ""
  ) async throws -> BroadcastV1.PublishResponse {
    try await BroadcastV1.BroadcastServiceClient(channel).publish(
      BroadcastV1.Frame(seqNo: seqNo, buffer: Bytes(text), timestamp: timestamp, channel: "c", id: id))
  }

  /// Subscribes, and waits for the certificate: what comes later is live.
  static func subscribe(
    _ channel: Channel, from start: Int64 = .min, window: Int32 = 0,
    slowReader: BroadcastV1.SubscribeRequest.SlowReader = .disconnect
  ) async throws -> (frames: Frames, certificate: BroadcastV1.GapCertificate) {
    let frames = try await BroadcastV1.BroadcastServiceClient(channel).subscribe(
      BroadcastV1.SubscribeRequest(
        replaySeqNoStart: start, channel: "c", reorderWindowMs: window, slowReader: slowReader))
    let bytes = try #require(try await frames.initialMetadata().binary("x-gap-certificate-bin"))
    return (frames, try BroadcastV1.GapCertificate(serialized: bytes))
  }

  static func texts(_ frames: Frames, _ count: Int) async throws -> [String] {
    var texts: [String] = []
    while texts.count < count, let frame = try await frames.next() {
      texts.append((frame.buffer.string ?? "?") + (frame.late ? " late" : ""))
    }
    return texts
  }

  @Test func historyComesInOrderAndThenWhatIsNewFromEveryGateway() async throws {
    try await withCluster { cluster in
      let one = try cluster.channel(to: try await cluster.gateway("g1"))
      let two = try cluster.channel(to: try await cluster.gateway("g2"))
      try await Self.publish(one, 5, "e")
      try await Self.publish(two, 1, "a", timestamp: 9)
      try await Self.publish(one, 1, "b", timestamp: 10)
      let first = try await Self.publish(two, 3, "c", id: "third")
      let again = try await Self.publish(one, 3, "c", id: "third")
      #expect(!first.duplicate && again.duplicate && again.ordinal == first.ordinal && again.id == "third")
      let (all, certificate) = try await Self.subscribe(one)
      let (some, _) = try await Self.subscribe(two, from: 3)
      #expect(!certificate.truncated && certificate.newestOrdinal == first.ordinal && !certificate.epoch.isEmpty)
      #expect(try await Self.texts(all, 4) == ["a", "b", "c", "e"])
      #expect(try await Self.texts(some, 2) == ["c", "e"])
      try await Self.publish(one, 7, "g")
      try await Self.publish(two, 2, "late one")
      try await Self.publish(two, 4, "d")
      try await Self.publish(one, 8, "h")
      #expect(try await Self.texts(all, 4) == ["g", "late one late", "d late", "h"])
      #expect(try await Self.texts(some, 3) == ["g", "d late", "h"])
      let error = await #expect(throws: Status.self) { try await Self.publish(one, 3, "other", id: "third") }
      #expect(error?.code == .failedPrecondition)
    }
  }

  @Test func theServerGivesNumbersWhereItIsAskedTo() async throws {
    try await withCluster { cluster in
      let channel = try cluster.channel(to: try await cluster.gateway("g1"))
      let client = BroadcastV1.BroadcastServiceClient(channel)
      try await Self.publish(channel, 41, "x")
      var frame = BroadcastV1.Frame(buffer: Bytes("y"), channel: "c", assignSeqNo: true)
      #expect(try await client.publish(frame).seqNo == 42)
      #expect(try await client.publish(frame).seqNo == 43)
      let (frames, _) = try await Self.subscribe(channel, from: 42)
      #expect(try await frames.next()?.seqNo == 42)
      frame.seqNo = 7
      let error = await #expect(throws: Status.self) { _ = try await client.publish(frame) }
      #expect(error?.code == .invalidArgument)
    }
  }

  @Test func aReorderWindowHoldsFramesBackUntilTheirTurn() async throws {
    try await withCluster { cluster in
      let channel = try cluster.channel(to: try await cluster.gateway("g1"))
      let (frames, _) = try await Self.subscribe(channel, window: 300)
      for (seqNo, text) in [(3, "c"), (1, "a"), (2, "b")] { try await Self.publish(channel, Int64(seqNo), text) }
      #expect(try await Self.texts(frames, 3) == ["a", "b", "c"])
    }
  }

  @Test func badRequestsAreRefusedWithASentence() async throws {
    try await withCluster { cluster in
      let channel = try cluster.channel(to: try await cluster.gateway("g1"))
      let client = BroadcastV1.BroadcastServiceClient(channel)
      for request in [
        BroadcastV1.SubscribeRequest(channel: "{c}"), BroadcastV1.SubscribeRequest(reorderWindowMs: -1),
        BroadcastV1.SubscribeRequest(reorderWindowMs: 3_600_000),
        BroadcastV1.SubscribeRequest(slowReader: .unrecognized(77)),
      ] {
        let error = await #expect(throws: Status.self) { _ = try await client.subscribe(request).next() }
        #expect(error?.code == .invalidArgument && error?.message.isEmpty == false)
      }
      for frame in [
        BroadcastV1.Frame(channel: "a/b"), BroadcastV1.Frame(id: "with space"),
        BroadcastV1.Frame(buffer: Bytes(repeatElement(0, count: (1 << 20) + 1))),
      ] {
        let error = await #expect(throws: Status.self) { _ = try await client.publish(frame) }
        #expect(error?.code == .invalidArgument && error?.message.isEmpty == false)
      }
    }
  }

  @Test func aTrimmedHistoryIsCertifiedAndALaterTrimIsTold() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g1") { $0.channelRetention.frames = 3 }
      let channel = try cluster.channel(to: gateway)
      for number in 1...5 { try await Self.publish(channel, Int64(number), "\(number)") }
      let (frames, certificate) = try await Self.subscribe(channel)
      #expect(certificate.truncated && certificate.floorSeqNo == 2)
      #expect(try await Self.texts(frames, 3) == ["3", "4", "5"])
      let (above, whole) = try await Self.subscribe(channel, from: 3)
      #expect(!whole.truncated)
      #expect(try await Self.texts(above, 3) == ["3", "4", "5"])
    }
  }

  @Test func aLostHintCostsTimeAndNoFrame() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g1")
      let channel = try cluster.channel(to: gateway)
      let (frames, _) = try await Self.subscribe(channel)
      // A publisher whose record never comes.
      let store = Channels(gateway.redis)
      for id in ["a", "b"] {
        _ = try await store.append(
          "c", key: FrameKey(seqNo: 1, timestamp: 0, id: id), id: id, timestamp: 0, digest: "",
          frame: BroadcastV1.Frame(buffer: Bytes(id)).serialized(), seen: 0)
      }
      #expect(try await Self.texts(frames, 2) == ["a", "b"])
      #expect(gateway.metric("fleetpush_frames_published_total") == 0)
    }
  }

  @Test func aStoreThatHasLostItsNewestFramesIsToldToEverySubscriber() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g1")
      let channel = try cluster.channel(to: gateway)
      try await Self.publish(channel, 1, "a", id: "a")
      let first = try await Registry(gateway.redis).nodes().items.count
      #expect(first == 1)
      let saved = try await gateway.redis.send("HGET", "channel:{c}:state", "newest").asString ?? ""
      let (frames, before) = try await Self.subscribe(channel)
      try await Self.publish(channel, 2, "b", id: "b")
      #expect(try await Self.texts(frames, 2) == ["a", "b"])
      // Redis comes back as it was before.
      _ = try await gateway.redis.send("ZREMRANGEBYRANK", "channel:{c}", -1, -1)
      _ = try await gateway.redis.send("ZREMRANGEBYRANK", "channel:{c}:log", -1, -1)
      _ = try await gateway.redis.send("HDEL", "channel:{c}:ids", "b")
      _ = try await gateway.redis.send("HSET", "channel:{c}:state", "newest", .string(saved), "count", 1)
      let error = await #expect(throws: Status.self) { while try await frames.next() != nil {} }
      #expect(error?.code == .dataLoss)
      let told = try BroadcastV1.GapCertificate(serialized: try #require(error?.details))
      #expect(told.epoch == before.epoch)
      let (again, after) = try await Self.subscribe(channel)
      #expect(after.epoch != before.epoch)
      #expect(try await Self.texts(again, 1) == ["a"])
    }
  }

  @Test func aSlowReaderThatWaitsGetsEverythingAndOneThatDropsGetsTheNewest() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g1")
      let channel = try cluster.channel(to: gateway)
      let (waiting, _) = try await Self.subscribe(try cluster.channel(to: gateway), slowReader: .wait)
      let (conflating, _) = try await Self.subscribe(try cluster.channel(to: gateway), slowReader: .conflate)
      let text = String(repeating: "x", count: 500_000)
      for number in 0..<40 { try await Self.publish(channel, Int64(number), "\(number) \(text)") }
      var conflated: [Int64] = []
      while conflated.last != 39, let frame = try await conflating.next() { conflated.append(frame.seqNo) }
      #expect(conflated.count < 40 && conflated == conflated.sorted())
      var waited: [Int64] = []
      while waited.count < 40, let frame = try await waiting.next() { waited.append(frame.seqNo) }
      #expect(waited == Array(0..<40))
      #expect(gateway.metric("fleetpush_frames_skipped_total") > 0)
    }
  }

  @Test func aGatewayThatEndsTellsItsSubscribers() async throws {
    try await withCluster { cluster in
      let gateway = try await cluster.gateway("g1")
      let (frames, _) = try await Self.subscribe(try cluster.channel(to: gateway))
      cluster.loop.spawn { await gateway.stop() }
      let error = await #expect(throws: Status.self) { _ = try await frames.next() }
      #expect(error?.code == .unavailable && error?.retryAfter != nil)
    }
  }
}
