import Reactor
import Redis
import Testing

@testable import Routing

@Suite(.timeLimit(.minutes(1))) struct RecentNodesTests {
  static func acquire(_ registry: Registry, _ id: String) async throws -> Holder {
    let epoch = try await registry.acquireNode(
      id, address: "g:7", partition: 0, lease: .seconds(10), startedAt: 1)
    return Holder(node: id, epoch: epoch)
  }

  @Test func whatIsRememberedCountsOnlyWhereItConfirms() async throws {
    try await withRedis { _, redis in
      let registry = Registry(redis)
      let nodes = RecentNodes(registry)
      let first = try await Self.acquire(registry, "g1")
      #expect(try await nodes.holding([first], isFresh: false)["g1"]?.epoch == first.epoch)
      // A node that has come meanwhile is read at once, as is one that has a new epoch.
      let second = try await Self.acquire(registry, "g2")
      #expect(try await nodes.holding([first, second], isFresh: false)["g2"]?.epoch == second.epoch)
      let again = try await Self.acquire(registry, "g1")
      #expect(try await nodes.holding([again], isFresh: false)["g1"]?.epoch == again.epoch)
      // One that has gone is gone for whoever has missed it.
      try await registry.releaseNode("g1", epoch: again.epoch, topic: "t", partition: 0)
      #expect(try await nodes.holding([again], isFresh: true)["g1"] == nil)
      // Those who are away ask for nothing.
      #expect(try await nodes.holding([Holder(node: "", epoch: 0)], isFresh: true)[""] == nil)
    }
  }

  @Test func whatWasReadAheadIsNotReadAgain() async throws {
    try await withRedis { loop, redis in
      let registry = Registry(redis)
      let nodes = RecentNodes(registry)
      var isShown = false
      while !isShown {
        let holder = try await Self.acquire(registry, "g1")
        _ = try await nodes.holding([holder], isFresh: true)
        try await loop.sleep(for: RecentNodes.lifetime)
        let start = EventLoop.monotonicNanoseconds()
        nodes.readAhead()
        // Redis answers in the order of the requests: after this one the node's record has been read.
        try await registry.releaseNode("g1", epoch: holder.epoch, topic: "t", partition: 0)
        let found = try await nodes.holding([holder], isFresh: false)["g1"]
        guard EventLoop.monotonicNanoseconds() - start < RecentNodes.lifetime.nanoseconds else { continue }
        #expect(found?.epoch == holder.epoch)
        #expect(try await nodes.holding([holder], isFresh: true)["g1"] == nil)
        isShown = true
      }
    }
  }

  @Test func aNodeThatHasGoneIsForgottenSoon() async throws {
    try await withRedis { loop, redis in
      let registry = Registry(redis)
      let nodes = RecentNodes(registry)
      let holder = try await Self.acquire(registry, "g1")
      _ = try await nodes.holding([holder], isFresh: false)
      try await registry.releaseNode("g1", epoch: holder.epoch, topic: "t", partition: 0)
      while try await nodes.holding([holder], isFresh: false)["g1"] != nil {
        try await loop.sleep(for: .milliseconds(20))
      }
    }
  }
}
