import GRPC
import Reactor
import Schema
import Settings

/// `bench load`: texts to named endpoints at a steady rate, through every gateway in turn.
///
/// First nothing is sent for a while: what an idle cluster costs is shown apart.
struct Load {
  private let gateways: [HostPort]
  private let processes: [KeyValue]
  private let clients: Int
  private let rate: Int
  private let targets: Int
  private let duration: Duration
  private let idle: Duration
  private let size: Int
  private let isAtLeastOnce: Bool
  private let others: [String]

  static let calmly = 200
  static let tick: Duration = .milliseconds(10)
  /// Registrations, and what is under way at the end, have this long.
  static let patience: Duration = .seconds(60)

  init(_ arguments: [String]) {
    var options = Options(
      "bench load", about: "CPU per delivery of texts to named endpoints at a steady rate, and their latency.",
      environmentFlags: [])
    let gateways = options.list("gateway", .hostPort, isRequired: true, help: "The gateways' addresses.")
    let processes = options.list("process", .keyValue, help: "NAME=PID of a process whose CPU is to be shown.")
    let clients = options.value("clients", .int(1...18_000), default: "1000", help: "How many endpoints.")
    let rate = options.value("rate", .int(1...1_000_000), default: "1000", help: "Messages a second.")
    let targets = options.value("targets", .int(1...10_000), default: "10", help: "Endpoints that one job names.")
    let duration = options.value("duration", .duration, default: "10s", help: "How long.")
    let idle = options.value("idle", .duration, default: "5s", help: "How long nothing is sent before.")
    let size = options.value("size", .bytes, default: "200", help: "The length of a text.")
    let qos = options.value("qos", .int(0...1), default: "1", help: "0 at most once, 1 at least once.")
    let others = options.list("also", .string, help: "Ids of clients elsewhere that each job names as well.")
    let parsed = options.parseOrExit(arguments)
    self.gateways = parsed[gateways]
    self.processes = parsed[processes]
    self.clients = parsed[clients]
    self.rate = parsed[rate]
    self.targets = min(parsed[targets], parsed[clients])
    self.duration = parsed[duration]
    self.idle = parsed[idle]
    self.size = parsed[size]
    isAtLeastOnce = parsed[qos] == 1
    self.others = parsed[others]
  }

  func run(_ loop: EventLoop) async throws {
    let endpoints = Endpoints(loop: loop, gateways: gateways, count: clients)
    try await endpoints.open(atOnce: Load.calmly, within: Load.patience)
    let services = gateways.map { PushV1.JobServiceClient(Channel(loop: loop, target: $0)) }
    // What is made once is made now.
    for service in services { try await submit(service, endpoints.ids.prefix(targets)) }
    let warm = services.count * targets
    try await endpoints.wait(within: Load.patience, "\(warm) texts") { endpoints.texts >= warm }
    try await loop.sleep(for: .seconds(1))
    var costs = try ProcessCosts(processes)
    await endpoints.heartbeat()
    try await loop.sleep(for: idle)
    let (idle, idleSeconds) = (try costs.spent(), costs.seconds)
    try costs.restart()
    endpoints.measures = true
    let sent = try await send(endpoints, services, loop)
    try await endpoints.wait(within: Load.patience, "\(sent) texts") { endpoints.texts >= warm + sent }
    // The acknowledgements' way into Redis belongs to it.
    try await loop.sleep(for: .seconds(1))
    report(sent, idle, idleSeconds, try costs.spent(), costs.seconds, endpoints)
    endpoints.close()
  }

  /// - Returns: how many messages went to our endpoints.
  private func send(
    _ endpoints: Endpoints, _ services: [PushV1.JobServiceClient], _ loop: EventLoop
  ) async throws -> Int {
    let ids = endpoints.ids
    let start = EventLoop.monotonicNanoseconds()
    let due = { Int(Double(EventLoop.monotonicNanoseconds() - start) / 1e9 * Double(rate) / Double(targets)) }
    let jobs = Int(duration / .seconds(1) * Double(rate) / Double(targets))
    var (sent, running) = (0, 0)
    var failure: (any Error)?
    let done = Wakeup()
    while sent < jobs {
      while sent < min(due(), jobs) {
        // A stride that meets every endpoint equally often, on all gateways.
        let named = (0..<targets).map { ids[(sent * targets + $0) % ids.count] }
        let service = services[sent % services.count]
        sent += 1
        running += 1
        loop.spawn {
          do { try await submit(service, named + others) } catch { failure = error }
          running -= 1
          if running == 0 { done.fire() }
        }
      }
      await endpoints.heartbeatIfDue()
      try await loop.sleep(for: Load.tick)
    }
    while running > 0 { await done.wait() }
    if let failure { throw failure }
    return sent * targets
  }

  private func submit(_ service: PushV1.JobServiceClient, _ clients: some Sequence<String>) async throws {
    let text = "\(EventLoop.monotonicNanoseconds()) " + String(repeating: "x", count: max(0, size - 16))
    _ = try await service.submit(
      PushV1.SubmitRequest(
        job: PushV1.Job(
          targets: PushV1.Targets(clientIDs: Array(clients)), payload: .text(PushV1.TextMessage(content: text)),
          qos: isAtLeastOnce ? .atLeastOnce : .atMostOnce)))
  }

  private func report(
    _ sent: Int, _ idle: [(name: String, seconds: Double)], _ idleSeconds: Double,
    _ loaded: [(name: String, seconds: Double)], _ seconds: Double, _ endpoints: Endpoints
  ) {
    let milliseconds = endpoints.latencies.map { Double($0) / 1e6 }.sorted()
    print(
      jsonLine([
        ("messages", "\(sent)"), ("received", "\(milliseconds.count)"), ("gaps", "\(endpoints.gaps)"),
        ("p50_ms", percentile(milliseconds, 0.5).rounded(to: 2)),
        ("p99_ms", percentile(milliseconds, 0.99).rounded(to: 2)), ("idle_seconds", idleSeconds.rounded(to: 3)),
        ("idle_cpu", jsonObject(idle)), ("seconds", seconds.rounded(to: 3)), ("cpu", jsonObject(loaded)),
      ]))
  }
}
