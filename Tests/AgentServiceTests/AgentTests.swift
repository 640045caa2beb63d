import Bytes
import FileStore
import Foundation
import Reactor
import Schema
import Testing

@testable import AgentService

@Suite(.timeLimit(.minutes(1))) struct AgentTests {
  /// Runs a story with a directory, gateways and what tells of changes, all on one loop.
  func scene(
    gateways count: Int = 1, _ body: @escaping @Sendable (EventLoop, String, [FakeGateway], Change) async throws -> Void
  ) async throws {
    let loop = try EventLoop.start(name: "test")
    defer { loop.stop() }
    try await loop.run {
      try await withTemporaryDirectory { directory in
        let change = Change()
        var gateways: [FakeGateway] = []
        for _ in 0..<count {
          let gateway = FakeGateway(loop, change)
          try await gateway.start()
          gateways.append(gateway)
        }
        try await body(loop, directory, gateways, change)
        for gateway in gateways { await gateway.stop() }
      }
    }
  }

  func content(_ path: String) -> Bytes? { FileManager.default.contents(atPath: path).map { Bytes($0) } }

  @Test func registersBeatsAndTakesMessagesOnce() async throws {
    try await scene { loop, directory, gateways, change in
      let gateway = gateways[0]
      gateway.heartbeatInterval = 100
      let running = RunningAgent(loop, directory, [gateway.address], change)
      await change.until { gateway.hellos.count == 1 }
      guard case .register(let hello)? = gateway.hellos.first else {
        Issue.record("no register")
        return
      }
      #expect(hello.clientID == "a1" && hello.tags == ["site": "x"] && hello.acknowledges)
      for _ in 0..<2 {
        try await gateway.push(
          .init(
            payload: .text(.init(content: "hi \u{1B}[31m")), messageID: "m1", source: "inbox", seq: 1, inboxID: "i",
            jobID: "j1"))
      }
      try await gateway.push(.init(payload: .event(.init(type: "update", details: "now")), messageID: "m2"))
      await change.until { gateway.acks.flatMap(\.messageIDs).count == 3 && gateway.heartbeats >= 2 }
      #expect(gateway.acks.flatMap(\.messageIDs) == ["m1", "m1", "m2"])
      #expect(gateway.acks[0].position == .init(source: "inbox", inboxID: "i", seq: 1))
      // A log beside the inbox, from its middle.
      for (id, seq, previous) in [("l1", Int64(500), Int64(0)), ("l2", 700, 500), ("l2", 700, 500)] {
        try await gateway.push(
          .init(
            payload: .event(.init(type: id)), messageID: id, source: "fleet", seq: seq, prevSeq: previous, inboxID: "f",
            jobID: id))
      }
      let end = PushV1.Position(source: "fleet", inboxID: "f", seq: 700)
      await change.until { gateway.acks.flatMap(\.messageIDs).count == 6 }
      #expect(gateway.acks.last?.position == end)
      #expect(
        running.lines.printed.all == [
          #"{"content":"hi \u001b[31m","job_id":"j1","kind":"text","message_id":"m1"}"# + "\n",
          #"{"details":"now","kind":"event","message_id":"m2","type":"update"}"# + "\n",
          #"{"details":"","job_id":"l1","kind":"event","message_id":"l1","type":"l1"}"# + "\n",
          #"{"details":"","job_id":"l2","kind":"event","message_id":"l2","type":"l2"}"# + "\n",
        ])
      await running.stop(change)
      #expect(running.exitCode == 0)

      // The next run goes on where this one was.
      let next = RunningAgent(loop, directory, [gateway.address], change)
      await change.until { gateway.hellos.count == 2 }
      guard case .reconnect(let again)? = gateway.hellos.last else {
        Issue.record("no reconnect")
        return
      }
      #expect(again.lastSessionID == "session-1")
      #expect(
        again.positions.sorted { $0.source < $1.source }
          == [end, .init(source: "inbox", inboxID: "i", seq: 1)])
      await next.stop(change)
    }
  }

  /// Numbers of streams order hellos that a gateway reads late, also where the clock has gone back.
  @Test func eachStreamHasAHigherNumberThanAnyBefore() async throws {
    try await scene { loop, directory, gateways, change in
      let gateway = gateways[0]
      let running = RunningAgent(loop, directory, [gateway.address], change)
      await change.until { gateway.hellos.count == 1 }
      let ahead = (EventLoop.wallClockMilliseconds() + 3_600_000) * 1000
      try await gateway.push(.init(payload: .goAway(.init(reason: "late", retryAfterMs: 1, newerStream: ahead))))
      await change.until { gateway.hellos.count == 2 }
      guard case .register(let first)? = gateway.hellos.first, case .reconnect(let second)? = gateway.hellos.last else {
        Issue.record("other hellos: \(gateway.hellos)")
        return
      }
      #expect(first.streamNumber > 0 && first.streamNumber < ahead && second.streamNumber > ahead)
      await running.stop(change)
    }
  }

  @Test func aFileArrivesUnderItsName() async throws {
    try await scene { loop, directory, gateways, change in
      let gateway = gateways[0]
      let bytes = noise(1_000_000)
      gateway.files["f1"] = bytes
      let running = RunningAgent(loop, directory, [gateway.address], change)
      await change.until { gateway.hellos.count == 1 }
      try await gateway.announce("f1", as: "../../etc/report.bin")
      await change.until { gateway.statuses.last?.state == .verified }
      let status = gateway.statuses.last
      #expect(status?.path.hasSuffix("/report.bin") == true)
      #expect(status?.md5 == Digest.hex(of: bytes, .md5) && status?.bytesDone == 1_000_000)
      #expect(status?.jobID == "j" && status?.messageID == "j-f1")
      #expect(gateway.statuses.first?.state == .downloading)
      #expect(gateway.acks.map(\.messageIDs) == [["j-f1"]])
      #expect(content(directory + "/report.bin") == bytes)
      #expect(content(directory + "/.fleetpush/f1~.part") == nil)

      // The same notice again, and the same file in another job: told, not fetched.
      try await gateway.announce("f1", as: "report.bin")
      try await gateway.announce("f1", as: "report.bin", job: "k")
      await change.until { gateway.statuses.last?.jobID == "k" && gateway.statuses.last?.state == .verified }
      #expect(gateway.offsets == [0])
      await running.stop(change)
    }
  }

  @Test func aBrokenDownloadGoesOnWhereItWas() async throws {
    try await scene { loop, directory, gateways, change in
      let gateway = gateways[0]
      gateway.files["f1"] = noise(1_000_000)
      gateway.breaks = [300_000, 700_000]
      let running = RunningAgent(loop, directory, [gateway.address], change)
      await change.until { gateway.hellos.count == 1 }
      try await gateway.announce("f1", as: "f.bin")
      await change.until { gateway.statuses.last?.state == .verified }
      #expect(gateway.offsets == [0, 300_000, 700_000])
      #expect(content(directory + "/f.bin") == gateway.files["f1"])
      await running.stop(change)
    }
  }

  @Test func theOtherGatewayTakesOver() async throws {
    try await scene(gateways: 2) { loop, directory, gateways, change in
      let (first, second) = (gateways[0], gateways[1])
      first.files["f1"] = noise(1_000_000)
      second.files["f1"] = first.files["f1"]
      first.breaks = [400_000, 0, 0, 0, 0, 0, 0, 0]
      let running = RunningAgent(loop, directory, [first.address, second.address], change)
      await change.until { first.hellos.count == 1 }
      try await first.announce("f1", as: "f.bin")
      await change.until { (first.statuses.last?.bytesDone ?? 0) > 0 }
      await first.stop()
      await change.until { second.statuses.last?.state == .verified }
      #expect(second.offsets.count == 1)
      #expect(second.offsets.first ?? 0 > 0)
      guard case .reconnect(let hello)? = second.hellos.first else {
        Issue.record("no reconnect")
        return
      }
      #expect(hello.lastSessionID == "session-1")
      #expect(content(directory + "/f.bin") == first.files["f1"])
      await running.stop(change)
    }
  }

  @Test func aRestartedAgentGoesOnWhereItWas() async throws {
    try await scene { loop, directory, gateways, change in
      let gateway = gateways[0]
      gateway.files["f1"] = noise(1_000_000)
      gateway.breaks = [600_000] + Array(repeating: 0, count: 100)
      let running = RunningAgent(loop, directory, [gateway.address], change)
      await change.until { gateway.hellos.count == 1 }
      try await gateway.announce("f1", as: "f.bin")
      await change.until { gateway.offsets.contains(600_000) }
      await running.stop(change)
      #expect(content(directory + "/f.bin") == nil)

      gateway.breaks = []
      let seen = gateway.offsets.count
      let next = RunningAgent(loop, directory, [gateway.address], change)
      await change.until { gateway.statuses.last?.state == .verified }
      #expect(gateway.offsets[seen...].allSatisfy { $0 == 600_000 })
      #expect(content(directory + "/f.bin") == gateway.files["f1"])
      await next.stop(change)
    }
  }

  @Test func whatCanNotHealIsReported() async throws {
    try await scene { loop, directory, gateways, change in
      let gateway = gateways[0]
      let running = RunningAgent(loop, directory, [gateway.address], change)
      await change.until { gateway.hellos.count == 1 }
      func failure(_ job: String) -> String? {
        gateway.statuses.first { $0.jobID == job && $0.state == .failed }?.error
      }
      try await gateway.announce("missing", as: "m.bin", size: 10, job: "missing")
      gateway.files["wrong"] = noise(100)
      try await gateway.announce("wrong", as: "w.bin", md5: String(repeating: "0", count: 32), job: "wrong")
      gateway.files["hidden"] = noise(100)
      try await gateway.announce("hidden", as: "x/.bashrc", job: "hidden")
      try await gateway.announce("../up", as: "up", job: "up")
      let jobs = ["missing", "wrong", "hidden", "up"]
      await change.until { jobs.allSatisfy { failure($0) != nil } }
      #expect(failure("missing") == "NOT_FOUND: there is no such file")
      #expect(failure("wrong")?.hasPrefix("the MD5 is ") == true)
      #expect(failure("hidden") == "The file name begins with a dot.")
      #expect(failure("up")?.hasPrefix("The file id may hold") == true)
      #expect(gateway.offsets == [0, 0, 0])
      #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == [".fleetpush"])
      await running.stop(change)
    }
  }

  @Test func resultsAreToldAgainToANewSession() async throws {
    try await scene(gateways: 2) { loop, directory, gateways, change in
      let (first, second) = (gateways[0], gateways[1])
      first.files["f1"] = noise(1000)
      let running = RunningAgent(loop, directory, [first.address, second.address], change)
      await change.until { first.hellos.count == 1 }
      try await first.announce("f1", as: "f.bin")
      await change.until { first.statuses.last?.state == .verified }
      try await first.push(.init(payload: .goAway(.init(reason: "drain", retryAfterMs: 60_000))))
      await change.until { second.statuses.last?.state == .verified }
      #expect(second.statuses.last == first.statuses.last)
      await running.stop(change)
    }
  }

  @Test func aReplacedAgentEnds() async throws {
    try await scene { loop, directory, gateways, change in
      let running = RunningAgent(loop, directory, [gateways[0].address], change)
      await change.until { gateways[0].hellos.count == 1 }
      let second = RunningAgent(loop, directory, [gateways[0].address], change)
      await change.until { second.exitCode != nil }
      #expect(second.exitCode == 1)
      #expect(second.lines.log.all.contains { $0.contains("another agent works in this directory") })
      try await gateways[0].push(.init(payload: .goAway(.init(reason: "taken over", replaced: true))))
      await change.until { running.exitCode != nil }
      #expect(running.exitCode == 1)
    }
  }

  @Test func aStreamNumberOfAnySizeIsNoTrap() async throws {
    try await scene { loop, directory, gateways, change in
      let running = RunningAgent(loop, directory, [gateways[0].address], change)
      await change.until { gateways[0].hellos.count == 1 }
      try await gateways[0].push(
        .init(payload: .goAway(.init(reason: "later", retryAfterMs: 1, newerStream: .max))))
      await change.until { gateways[0].hellos.count == 2 }
      await running.stop(change)
      #expect(running.exitCode == 0)
    }
  }
}
