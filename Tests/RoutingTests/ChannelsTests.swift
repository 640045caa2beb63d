import Bytes
import Reactor
import Redis
import Testing

@testable import Routing

@Suite(.timeLimit(.minutes(1))) struct ChannelsTests {
  static func append(
    _ channels: Channels, _ seqNo: Int64, _ timestamp: Int64 = 0, id: String, text: String = "x", seen: Int64 = 0
  ) async throws -> StoredPlace {
    let appended = try await channels.append(
      "c", key: FrameKey(seqNo: seqNo, timestamp: timestamp, id: id), id: id, timestamp: timestamp, digest: text,
      frame: Bytes(text), seen: seen)
    switch appended {
    case .kept(let place), .duplicate(let place): return place
    }
  }

  @Test func keysAreOrderedAsTheirBytesAre() {
    let numbers: [Int64] = [.min, -(1 << 40), -1, 0, 1, 255, 256, 1 << 40, .max]
    var keys: [FrameKey] = []
    for seqNo in numbers {
      for timestamp in numbers {
        for id in ["a", "ab", "b"] { keys.append(.init(seqNo: seqNo, timestamp: timestamp, id: id)) }
      }
    }
    #expect(keys == keys.sorted())
    let encoded = keys.map { $0.encoded.withUnsafeBytes { [UInt8]($0) } }
    #expect(zip(encoded, encoded.dropFirst()).allSatisfy { $0.lexicographicallyPrecedes($1) })
    #expect(keys.allSatisfy { FrameKey(encoded: $0.encoded) == $0 })
    #expect(FrameKey(encoded: Bytes("too short")) == nil)
  }

  @Test func framesAreReadInBothOrdersAndOnce() async throws {
    try await withRedis { _, redis in
      let channels = Channels(redis)
      let order: [(Int64, Int64, String)] = [
        (5, 0, "a"), (-3, 9, "b"), (5, -1, "c"), (.max, 0, "d"), (5, 0, "B"), (.min, 0, "e"),
      ]
      var places: [StoredPlace] = []
      for (seqNo, timestamp, id) in order {
        places.append(try await Self.append(channels, seqNo, timestamp, id: id, text: id))
      }
      #expect(places.map(\.previous) == [0] + places.dropLast().map(\.ordinal))
      #expect(Set(places.map(\.epoch)).count == 1)
      let byKey = try await channels.read("c", from: .seqNo(.min), seen: 0)
      #expect(byKey.frames.map(\.key.id) == ["e", "b", "c", "B", "a", "d"] && byKey.isComplete)
      #expect(byKey.frames.map { $0.frame.string } == ["e", "b", "c", "B", "a", "d"])
      #expect(try await channels.read("c", from: .seqNo(5), seen: 0).frames.map(\.key.id) == ["c", "B", "a", "d"])
      #expect(try await channels.read("c", from: .after(places[4].key), seen: 0).frames.map(\.key.id) == ["a", "d"])
      #expect(try await channels.read("c", after: places[3].ordinal, seen: 0).frames.map(\.key.id) == ["B", "e"])
      let head = try await channels.look("c", seen: 0)
      #expect(
        head.newest == places[5].ordinal && head.lowest?.id == "e" && head.highest?.id == "d" && head.trimmed == 0)
      #expect(try await Self.append(channels, 5, 0, id: "a", text: "a") == places[0])
      #expect(try await channels.look("c", seen: 0).newest == places[5].ordinal)
      let error = await #expect(throws: RoutingError.self) {
        _ = try await Self.append(channels, 5, 0, id: "a", text: "other")
      }
      #expect(error?.code == .conflict)
    }
  }

  @Test func aFrameWithoutANumberGetsTheNext() async throws {
    try await withRedis { _, redis in
      let channels = Channels(redis)
      func next(_ id: String) async throws -> FrameKey? {
        let appended = try await channels.append(
          "c", key: nil, id: id, timestamp: 7, digest: "", frame: Bytes("x"), seen: 0)
        if case .kept(let place) = appended { return place.key }
        return nil
      }
      #expect(try await next("a") == FrameKey(seqNo: 1, timestamp: 7, id: "a"))
      #expect(try await next("b")?.seqNo == 2)
      _ = try await Self.append(channels, (1 << 32) - 1, id: "c")
      #expect(try await next("d")?.seqNo == 1 << 32)
      _ = try await Self.append(channels, .max, id: "e")
      let error = await #expect(throws: RoutingError.self) { _ = try await next("f") }
      #expect(error?.code == .exhausted)
    }
  }

  @Test func theOldestArrivalsGoAndTheFloorSaysWhatMayBeMissing() async throws {
    try await withRedis { _, redis in
      var retention = Channels.Retention()
      retention.frames = 3
      let channels = Channels(redis, retention: retention)
      var places: [StoredPlace] = []
      for (index, seqNo) in [10, 40, 20, 30, 5].enumerated() {
        places.append(try await Self.append(channels, Int64(seqNo), id: "f\(index)"))
      }
      let head = try await channels.look("c", seen: 0)
      #expect(head.trimmed == places[1].ordinal && head.floor == places[1].key)
      #expect(try await channels.read("c", from: .seqNo(.min), seen: 0).frames.map(\.key.seqNo) == [5, 20, 30])
      // A frame that is gone is a new one, should it be published again.
      #expect(try await Self.append(channels, 10, id: "f0").ordinal > places[4].ordinal)
      #expect(try await redis.send("HLEN", "channel:{c}:ids").asInteger == 3)
      #expect(try await redis.send("HGET", "channel:{c}:state", "bytes").asString == "3")
    }
  }

  @Test func whatIsTooOldGoesWhenTheChannelIsLookedAt() async throws {
    try await withRedis { loop, redis in
      var retention = Channels.Retention()
      retention.age = .milliseconds(50)
      let channels = Channels(redis, retention: retention)
      let place = try await Self.append(channels, 1, id: "a")
      while try await channels.look("c", seen: 0).trimmed == 0 { try await loop.sleep(for: .milliseconds(10)) }
      let head = try await channels.look("c", seen: 0)
      #expect(head.trimmed == place.ordinal && head.newest == place.ordinal && head.lowest == nil)
    }
  }

  @Test func aChannelThatIsBehindWhatWasSeenBeginsANewEpoch() async throws {
    try await withRedis { _, redis in
      let channels = Channels(redis)
      let first = try await Self.append(channels, 1, id: "a")
      let second = try await Self.append(channels, 2, id: "b")
      // Redis comes back without the newest frame.
      for (key, member) in [("channel:{c}", second.key), ("channel:{c}:log", second.key)] {
        _ = try await redis.send("ZREM", .string(key), .bytes(member.encoded))
      }
      _ = try await redis.send("HDEL", "channel:{c}:ids", "b")
      _ = try await redis.send("HSET", "channel:{c}:state", "newest", .integer(first.ordinal), "count", "1")
      let head = try await channels.look("c", seen: second.ordinal)
      #expect(head.epoch != first.epoch && head.newest == first.ordinal)
      let third = try await Self.append(channels, 3, id: "c", seen: second.ordinal)
      #expect(third.epoch != first.epoch && third.ordinal > second.ordinal && third.previous == first.ordinal)
    }
  }
}
