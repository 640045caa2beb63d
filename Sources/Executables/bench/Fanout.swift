import GRPC
import Reactor
import Schema
import Settings

/// `bench fanout`: one text to all streams, again and again; prints one JSON object.
struct Fanout {
  private let gateway: HostPort
  private let processes: [KeyValue]
  private let streams: Int
  private let messages: Int
  private let backlog: Int
  private let size: Int
  private let isKept: Bool

  init(_ arguments: [String]) {
    var options = Options(
      "bench fanout", about: "CPU of processes per delivery of a text to all streams.", environmentFlags: [])
    let gateway = options.value("gateway", .hostPort, default: "127.0.0.1:7000", help: "The server's address.")
    let processes = options.list(
      "process", .keyValue, isRequired: true, help: "NAME=PID of a process whose CPU is to be shown.")
    let streams = options.value("streams", .int(1...18_000), default: "5000", help: "How many streams.")
    let messages = options.value("messages", .int(1...100_000), default: "20", help: "How many texts.")
    let backlog = options.value(
      "backlog", .int(1...10_000), default: "1", help: "Texts that are sent before their deliveries are awaited.")
    let size = options.value("size", .bytes, default: "200", help: "The length of a text.")
    let qos = options.value(
      "qos", .choice(["0", "1"]), default: "0", help: "1: through the fleet's log, with a row for each stream.")
    let parsed = options.parseOrExit(arguments)
    self.gateway = parsed[gateway]
    self.processes = parsed[processes]
    self.streams = parsed[streams]
    self.messages = parsed[messages]
    self.backlog = parsed[backlog]
    self.size = parsed[size]
    isKept = parsed[qos] == "1"
  }

  func run(_ loop: EventLoop) async throws {
    let fleet = Fleet(loop: loop, gateway: gateway, count: streams)
    try await fleet.open()
    let jobs = PushV1.JobServiceClient(Channel(loop: loop, target: gateway))
    let text = String(repeating: "x", count: size)
    // The first delivery pays for what is allocated once.
    _ = try await jobs.submit(request(text))
    try await fleet.awaitDeliveries(streams)
    let costs = try ProcessCosts(processes)
    var expected = fleet.deliveries
    var milliseconds: [Double] = []
    var left = messages
    while left > 0 {
      let batch = min(backlog, left)
      left -= batch
      let start = EventLoop.monotonicNanoseconds()
      try await submit(batch, text, jobs, loop)
      expected += batch * streams
      try await fleet.awaitDeliveries(expected)
      milliseconds.append(Double(EventLoop.monotonicNanoseconds() - start) / 1e6)
    }
    print(line(try costs.spent(), milliseconds.sorted()))
    fleet.close()
  }

  /// Submits all at once: one after the other, each would wait for the deliveries of the one before.
  private func submit(_ count: Int, _ text: String, _ jobs: PushV1.JobServiceClient, _ loop: EventLoop) async throws {
    let done = Wakeup()
    var left = count
    var failure: (any Error)?
    for _ in 0..<count {
      loop.spawn {
        do { _ = try await jobs.submit(request(text)) } catch { failure = error }
        left -= 1
        if left == 0 { done.fire() }
      }
    }
    while left > 0 { await done.wait() }
    if let failure { throw failure }
  }

  private func request(_ text: String) -> PushV1.SubmitRequest {
    PushV1.SubmitRequest(
      job: PushV1.Job(
        targets: PushV1.Targets(all: true), payload: .text(PushV1.TextMessage(content: text)),
        qos: isKept ? .atLeastOnce : .atMostOnce))
  }

  /// CPU in µs per delivery, and how long it took until the last stream had a message or a batch.
  private func line(_ spent: [(name: String, seconds: Double)], _ milliseconds: [Double]) -> String {
    let deliveries = Double(messages * streams)
    return jsonLine([
      ("qos", isKept ? "1" : "0"), ("streams", "\(streams)"), ("messages", "\(messages)"), ("at_once", "\(backlog)"),
      ("cpu_us", jsonObject(spent.map { ($0.name, $0.seconds * 1e6 / deliveries) })),
      ("p50_ms", percentile(milliseconds, 0.5).rounded(to: 1)),
      ("p99_ms", percentile(milliseconds, 0.99).rounded(to: 1)),
    ])
  }
}
