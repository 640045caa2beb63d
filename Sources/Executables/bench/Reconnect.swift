import GRPC
import Reactor
import Schema
import Settings

/// `bench reconnect`: many endpoints come back at once, and messages wait for each.
struct Reconnect {
  private let gateways: [HostPort]
  private let processes: [KeyValue]
  private let clients: Int
  private let jobs: Int
  private let size: Int
  private let limit: Duration

  /// Connections that are opened at once while nothing is measured.
  static let calmly = 200
  /// Jobs that are submitted at once, and watched for their end.
  static let jobsAtOnce = 4
  static let lookInterval: Duration = .milliseconds(50)

  init(_ arguments: [String]) {
    var options = Options(
      "bench reconnect",
      about: "Registers endpoints, takes them away, stores messages for each, and lets all come back at once.",
      environmentFlags: [])
    let gateways = options.list("gateway", .hostPort, isRequired: true, help: "The gateways' addresses.")
    let processes = options.list("process", .keyValue, help: "NAME=PID of a process whose CPU is to be shown.")
    let clients = options.value("clients", .int(1...18_000), default: "10000", help: "How many endpoints.")
    let jobs = options.value("messages", .int(1...10_000), default: "100", help: "Messages that wait for each.")
    let size = options.value("size", .bytes, default: "200", help: "The length of a text.")
    let limit = options.value("limit", .duration, default: "5m", help: "How long a step may take.")
    let parsed = options.parseOrExit(arguments)
    self.gateways = parsed[gateways]
    self.processes = parsed[processes]
    self.clients = parsed[clients]
    self.jobs = parsed[jobs]
    self.size = parsed[size]
    self.limit = parsed[limit]
  }

  func run(_ loop: EventLoop) async throws {
    let endpoints = Endpoints(loop: loop, gateways: gateways, count: clients)
    try await endpoints.open(atOnce: Reconnect.calmly, within: limit)
    endpoints.close()
    try await awaitAbsence(loop)
    var costs = try ProcessCosts(processes)
    try await fill(endpoints, loop)
    print(
      jsonLine([
        ("step", "\"fill\""), ("seconds", costs.seconds.rounded(to: 2)), ("cpu", jsonObject(try costs.spent())),
      ]))
    try costs.restart()
    try await endpoints.open(atOnce: clients, within: limit)
    let registered = costs.seconds
    let total = clients * jobs
    try await endpoints.wait(within: limit, "\(total) texts") { endpoints.texts >= total }
    let received = costs.seconds
    try await awaitEnd(loop)
    let range = endpoints.textsPerEndpoint
    let seconds = costs.seconds
    print(
      jsonLine([
        ("step", "\"reconnect\""), ("clients", "\(clients)"), ("messages", "\(total)"),
        ("registered_s", registered.rounded(to: 2)), ("received_s", received.rounded(to: 2)),
        ("seconds", seconds.rounded(to: 2)), ("fewest", "\(range.lowerBound)"), ("most", "\(range.upperBound)"),
        ("gaps", "\(endpoints.gaps)"), ("retries", "\(endpoints.retries)"), ("cpu", jsonObject(try costs.spent())),
      ]))
    endpoints.close()
    guard range == jobs...jobs, endpoints.gaps == 0 else {
      throw BenchError("an endpoint has too few messages, or too many")
    }
  }

  /// Until no client is online.
  private func awaitAbsence(_ loop: EventLoop) async throws {
    let directory = PushV1.DirectoryServiceClient(Channel(loop: loop, target: gateways[0]))
    while try await !directory.listClients(.init(pageSize: 1, onlineOnly: true)).clients.isEmpty {
      try await loop.sleep(for: Reconnect.lookInterval)
    }
  }

  private func fill(_ endpoints: Endpoints, _ loop: EventLoop) async throws {
    let services = gateways.map { PushV1.JobServiceClient(Channel(loop: loop, target: $0)) }
    let ids = endpoints.ids
    var next = 0
    var running = Reconnect.jobsAtOnce
    var failure: (any Error)?
    let done = Wakeup()
    for _ in 0..<Reconnect.jobsAtOnce {
      loop.spawn {
        while next < jobs, failure == nil {
          let number = next
          next += 1
          do { try await submit(number, ids, services[number % services.count]) } catch { failure = error }
        }
        running -= 1
        if running == 0 { done.fire() }
      }
    }
    while running > 0 { await done.wait() }
    if let failure { throw failure }
  }

  private func submit(_ number: Int, _ ids: [String], _ service: PushV1.JobServiceClient) async throws {
    let text = "\(EventLoop.monotonicNanoseconds()) " + String(repeating: "x", count: max(0, size - 16))
    let answer = try await service.submit(
      PushV1.SubmitRequest(
        job: PushV1.Job(
          jobID: "bench-\(number)", targets: PushV1.Targets(clientIDs: ids),
          payload: .text(PushV1.TextMessage(content: text)), qos: .atLeastOnce)))
    guard answer.storedCount == Int64(ids.count) else {
      throw BenchError("job \(number): \(answer.storedCount) of \(ids.count) messages were stored")
    }
  }

  /// Until every row of every job says that its client has the message. The clients acknowledge positions only, so a row
  /// says so after the message has left its inbox.
  private func awaitEnd(_ loop: EventLoop) async throws {
    let service = PushV1.JobServiceClient(Channel(loop: loop, target: gateways[0]))
    let deadline = EventLoop.deadline(after: limit)
    while try await isAnyRunning(service) {
      guard EventLoop.monotonicNanoseconds() < deadline else { throw BenchError("jobs still run after \(limit)") }
      try await loop.sleep(for: Reconnect.lookInterval)
    }
  }

  private func isAnyRunning(_ service: PushV1.JobServiceClient) async throws -> Bool {
    var token = ""
    repeat {
      let page = try await service.list(.init(pageSize: 100, pageToken: token, runningOnly: true))
      if !page.jobs.isEmpty { return true }
      token = page.nextPageToken
    } while !token.isEmpty
    return false
  }
}
