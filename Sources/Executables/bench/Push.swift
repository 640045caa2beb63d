import GRPC
import Reactor
import Schema
import Settings

/// `bench push`: PushToClient to one endpoint after the other, several calls at once.
struct Push {
  private let gateway: HostPort
  private let pid: Int
  private let streams: Int
  private let pushes: Int
  private let concurrency: Int
  private let size: Int

  init(_ arguments: [String]) {
    var options = Options(
      "bench push", about: "CPU of the server per PushToClient with its delivery.", environmentFlags: [])
    let gateway = options.value("gateway", .hostPort, default: "127.0.0.1:7000", help: "The server's address.")
    let pid = options.required("pid", .int(1...Int.max), help: "The server's process.")
    let streams = options.value("streams", .int(1...18_000), default: "1000", help: "How many streams.")
    let pushes = options.value("pushes", .int(1...10_000_000), default: "50000", help: "How many pushes.")
    let concurrency = options.value("concurrency", .int(1...10_000), default: "100", help: "Calls at once.")
    let size = options.value("size", .bytes, default: "200", help: "The length of a text.")
    let parsed = options.parseOrExit(arguments)
    self.gateway = parsed[gateway]
    self.pid = parsed[pid]
    self.streams = parsed[streams]
    self.pushes = parsed[pushes]
    self.concurrency = parsed[concurrency]
    self.size = parsed[size]
  }

  func run(_ loop: EventLoop) async throws {
    let fleet = Fleet(loop: loop, gateway: gateway, count: streams)
    try await fleet.open()
    let channel = Channel(loop: loop, target: gateway)
    try await channel.connect()
    let before = try ProcessFigures(of: pid)
    let start = EventLoop.monotonicNanoseconds()
    let milliseconds = try await Pushers(loop, channel, fleet.ids, text: String(repeating: "x", count: size))
      .run(pushes: pushes, concurrency: concurrency)
    try await fleet.awaitDeliveries(pushes)
    let seconds = Double(EventLoop.monotonicNanoseconds() - start) / 1e9
    let after = try ProcessFigures(of: pid)
    let each = (after.cpuSeconds - before.cpuSeconds) * 1e6 / Double(pushes)
    print(
      "\(pushes) pushes of \(size) bytes to \(streams) streams: \(each.rounded(to: 2)) CPU µs per push, "
        + "\((Double(pushes) / seconds).rounded(to: 0)) a second")
    print(
      "answer: p50 \(percentile(milliseconds, 0.5).rounded(to: 2)) ms, "
        + "p99 \(percentile(milliseconds, 0.99).rounded(to: 2)) ms")
    fleet.close()
  }
}

/// So many stories that push one after the other. Lives on its loop.
private final class Pushers {
  private let loop: EventLoop
  private let service: PushV1.PushServiceClient
  private let ids: [String]
  private let text: String
  private var next = 0
  private var running = 0
  private var milliseconds: [Double] = []
  private var failure: (any Error)?
  private let done = Wakeup()

  init(_ loop: EventLoop, _ channel: Channel, _ ids: [String], text: String) {
    self.loop = loop
    service = PushV1.PushServiceClient(channel)
    self.ids = ids
    self.text = text
  }

  /// - Returns: how long each answer took, sorted, in milliseconds.
  func run(pushes: Int, concurrency: Int) async throws -> [Double] {
    for _ in 0..<concurrency {
      running += 1
      loop.spawn { await self.push(upTo: pushes) }
    }
    while running > 0 { await done.wait() }
    if let failure { throw failure }
    return milliseconds.sorted()
  }

  private func push(upTo count: Int) async {
    while next < count, failure == nil {
      let id = ids[next % ids.count]
      next += 1
      let start = EventLoop.monotonicNanoseconds()
      do {
        let answer = try await service.pushToClient(PushV1.PushRequest(clientID: id, message: text))
        guard answer.success else { throw BenchError("the push to \(id) failed: \(answer.error)") }
      } catch {
        failure = error
      }
      milliseconds.append(Double(EventLoop.monotonicNanoseconds() - start) / 1e6)
    }
    running -= 1
    if running == 0 { done.fire() }
  }
}
