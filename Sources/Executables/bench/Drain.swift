import GRPC
import Reactor
import Schema
import Settings

/// `bench drain`: a gateway with many endpoints is drained while texts go to all of them at a steady rate.
struct Drain {
  private let gateways: [HostPort]
  private let node: String
  private let clients: Int
  private let rate: Int
  private let drainRate: Rate
  private let deadline: Duration
  private let size: Int

  /// Endpoints that one job names.
  static let targets = 100
  static let calmly = 200
  static let tick: Duration = .milliseconds(10)
  /// How long the load runs before the drain and behind it.
  static let margin: Duration = .seconds(2)
  static let patience: Duration = .seconds(60)

  init(_ arguments: [String]) {
    var options = Options(
      "bench drain", about: "Drains the first gateway under load: what is lost, and how long endpoints are away.",
      environmentFlags: [])
    let gateways = options.list(
      "gateway", .hostPort, isRequired: true, help: "The gateways' addresses; the first one is drained.")
    let node = options.required("node", .string, help: "The first one's name.")
    let clients = options.value("clients", .int(100...18_000), default: "2000", help: "How many endpoints it has.")
    let rate = options.value("rate", .int(100...1_000_000), default: "2000", help: "Messages a second, to all in turn.")
    let drainRate = options.value("drain-rate", .rate, default: "500/s", help: "Endpoints that are sent away.")
    let deadline = options.value("deadline", .duration, default: "60s", help: "How long the drain may take.")
    let size = options.value("size", .bytes, default: "200", help: "The length of a text.")
    let parsed = options.parseOrExit(arguments)
    self.gateways = parsed[gateways]
    self.node = parsed[node]
    self.clients = parsed[clients] / Drain.targets * Drain.targets
    self.rate = parsed[rate]
    self.drainRate = parsed[drainRate]
    self.deadline = parsed[deadline]
    self.size = parsed[size]
  }

  func run(_ loop: EventLoop) async throws {
    guard gateways.count > 1 else { throw BenchError("a drain needs another gateway") }
    let endpoints = Endpoints(loop: loop, gateways: [gateways[0]], count: clients)
    try await endpoints.open(atOnce: Drain.calmly, within: Drain.patience)
    // Those that came too many at once have waited for their slots.
    let refusedBefore = endpoints.retries
    endpoints.absences = []
    let channel = Channel(loop: loop, target: gateways[1])
    let drain = Watched()
    loop.spawn {
      do {
        // The load runs for a while before the drain, and after it.
        try await loop.sleep(for: Drain.margin)
        let progress = try await PushV1.NodeServiceClient(channel).drain(
          PushV1.DrainRequest(
            nodeID: node, clientsPerSecond: drainRate.perSecond, deadlineMs: deadline.wholeMilliseconds))
        while let next = try await progress.next() { drain.last = next }
        try await loop.sleep(for: Drain.margin)
      } catch {
        drain.failure = error
      }
      drain.isOver = true
    }
    let rounds = try await send(endpoints, PushV1.JobServiceClient(channel), loop) { drain.isOver }
    if let failure = drain.failure { throw failure }
    let total = rounds * clients
    try await endpoints.wait(within: Drain.patience, "\(total) texts") { endpoints.texts >= total }
    // What would come twice comes now: nothing tells that nothing more comes.
    try await loop.sleep(for: Drain.margin)
    report(drain.last, rounds, endpoints, retries: endpoints.retries - refusedBefore)
    endpoints.close()
    guard drain.last.ended, !drain.last.deadlinePassed, endpoints.absences.count == clients else {
      throw BenchError("\(endpoints.absences.count) of \(clients) endpoints have moved")
    }
    guard endpoints.textsPerEndpoint == rounds...rounds else {
      throw BenchError("an endpoint has too few messages, or too many")
    }
  }

  /// How far the drain is.
  private final class Watched {
    var last = PushV1.DrainProgress()
    var isOver = false
    var failure: (any Error)?
  }

  /// Sends to all endpoints, round after round, until it is over and the round is full. - Returns: how many rounds.
  private func send(
    _ endpoints: Endpoints, _ service: PushV1.JobServiceClient, _ loop: EventLoop, until isOver: () -> Bool
  ) async throws -> Int {
    let ids = endpoints.ids
    let start = EventLoop.monotonicNanoseconds()
    let jobsPerRound = ids.count / Drain.targets
    var (sent, running) = (0, 0)
    var failure: (any Error)?
    let done = Wakeup()
    while !isOver() || sent % jobsPerRound != 0 {
      let due = Double(EventLoop.monotonicNanoseconds() - start) / 1e9 * Double(rate) / Double(Drain.targets)
      while sent < Int(due), !isOver() || sent % jobsPerRound != 0 {
        let first = sent % jobsPerRound * Drain.targets
        let named = Array(ids[first..<first + Drain.targets])
        sent += 1
        running += 1
        loop.spawn {
          do {
            let text = PushV1.TextMessage(content: String(repeating: "x", count: size))
            _ = try await service.submit(
              PushV1.SubmitRequest(
                job: PushV1.Job(
                  targets: PushV1.Targets(clientIDs: named), payload: .text(text), qos: .atLeastOnce)))
          } catch { failure = error }
          running -= 1
          if running == 0 { done.fire() }
        }
      }
      if let failure { throw failure }
      await endpoints.heartbeatIfDue()
      // The pace of the load.
      try await loop.sleep(for: Drain.tick)
    }
    while running > 0 { await done.wait() }
    if let failure { throw failure }
    return sent / jobsPerRound
  }

  private func report(_ drain: PushV1.DrainProgress, _ rounds: Int, _ endpoints: Endpoints, retries: Int) {
    let away = endpoints.absences.map { Double($0.away) / 1e6 }.sorted()
    let late = endpoints.absences.map { Double($0.away) / 1e6 - Double($0.told) }.sorted()
    let told = endpoints.absences.map(\.told)
    let range = endpoints.textsPerEndpoint
    print(
      jsonLine([
        ("clients", "\(clients)"), ("messages", "\(rounds * clients)"),
        ("drain_s", (Double(drain.elapsedMs) / 1000).rounded(to: 2)), ("told_ms_most", "\(told.max() ?? 0)"),
        ("away_ms_p50", percentile(away, 0.5).rounded(to: 1)), ("away_ms_p99", percentile(away, 0.99).rounded(to: 1)),
        ("away_ms_most", (away.last ?? 0).rounded(to: 1)),
        ("behind_delay_ms_p50", percentile(late, 0.5).rounded(to: 1)),
        ("behind_delay_ms_p99", percentile(late, 0.99).rounded(to: 1)),
        ("behind_delay_ms_most", (late.last ?? 0).rounded(to: 1)), ("moved", "\(endpoints.absences.count)"),
        ("spread", "\(endpoints.spread)"),
        ("reconnects", "\(retries)"), ("expected", "\(rounds)"), ("fewest", "\(range.lowerBound)"),
        ("most", "\(range.upperBound)"), ("gaps", "\(endpoints.gaps)"), ("repeated", "\(endpoints.redelivered)"),
      ]))
  }
}
