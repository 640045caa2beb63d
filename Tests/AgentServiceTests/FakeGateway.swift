import Bytes
import FileStore
import Foundation
import GRPC
import Reactor
import Schema
import Synchronization
import Telemetry
import Testing

@testable import AgentService

/// A gateway that does what a test says, on the loop of the test.
final class FakeGateway {
  let loop: EventLoop
  private var server: Server?
  private(set) var address = HostPort(host: "127.0.0.1", port: 0)
  /// By file id.
  var files: [String: Bytes] = [:]
  /// After how many bytes the next calls of DownloadFile break; none: they don't.
  var breaks: [Int] = []
  /// Milliseconds, in `Registered`.
  var heartbeatInterval: Int64 = 0
  /// What was seen.
  private(set) var hellos: [PushV1.ClientMessage.Payload] = []
  private(set) var heartbeats = 0
  private(set) var acks: [PushV1.Acknowledgement] = []
  private(set) var statuses: [PushV1.FileStatus] = []
  private(set) var offsets: [Int64] = []
  private var sessions: [ResponseWriter<PushV1.ServerMessage>] = []
  private var inits = 0
  private let change: Change

  init(_ loop: EventLoop, _ change: Change) {
    self.loop = loop
    self.change = change
  }

  func start() async throws {
    var router = Router()
    router.bidirectional(PushV1.PushService.connect) { [unowned self] requests, responses, _ in
      try await serve(requests, responses)
    }
    router.serverStreaming(PushV1.FileService.downloadFile) { [unowned self] request, responses, _ in
      try await download(request, responses)
    }
    let server = Server(loop: loop, router: router)
    self.server = server
    address = HostPort(host: "127.0.0.1", port: try await server.listen(on: address).port)
  }

  func stop() async { await server?.shutdown(grace: .zero) }

  /// Writes to the newest session.
  func push(_ message: PushV1.ServerMessage) async throws { try await sessions.last?.write(message) }

  func announce(_ id: String, as name: String, size: Int64? = nil, md5: String? = nil, job: String = "j") async throws {
    let content = files[id] ?? Bytes()
    let notice = PushV1.FileNotice(
      fileName: name, fileSize: size ?? Int64(content.count), fileID: id, md5: md5 ?? Digest.hex(of: content, .md5))
    try await push(.init(payload: .fileNotice(notice), messageID: "\(job)-\(id)", jobID: job))
  }

  private func serve(
    _ requests: RequestStream<PushV1.ClientMessage>, _ responses: ResponseWriter<PushV1.ServerMessage>
  ) async throws {
    while let request = try await requests.next() {
      switch request.payload {
      case .register, .reconnect:
        if let payload = request.payload { hellos.append(payload) }
        sessions.append(responses)
        let answer = PushV1.Registered(
          sessionID: "session-\(hellos.count)", nodeID: "n", heartbeatIntervalMs: heartbeatInterval)
        try await responses.write(.init(payload: .registered(answer)))
      case .heartbeat(let heartbeat):
        heartbeats += 1
        try await responses.write(.init(payload: .heartbeat(.init(timestamp: heartbeat.timestamp))))
      case .ack(let ack): acks.append(ack)
      case .fileStatus(let status): statuses.append(status)
      case nil: break
      }
      change.fire()
    }
  }

  private func download(_ request: PushV1.FileRequest, _ responses: ResponseWriter<PushV1.FileChunk>) async throws {
    offsets.append(request.offset)
    change.fire()
    guard let content = files[request.fileID] else { throw Status(.notFound, "there is no such file") }
    let end = breaks.isEmpty ? content.count : breaks.removeFirst()
    var offset = Int(request.offset)
    var sequence: Int32 = 0
    while offset < end {
      let piece = content[offset..<min(offset + 50_000, end)]
      try await responses.write(
        .init(content: piece, sequence: sequence, isLast: offset + piece.count == content.count, offset: Int64(offset)))
      offset += piece.count
      sequence += 1
    }
    if end < content.count { throw Status(.unavailable, "the gateway breaks the call") }
  }
}

/// What a test waits for: something has changed. One waiter.
final class Change {
  private let wakeup = Wakeup()

  func fire() { wakeup.fire() }

  func until(_ condition: () -> Bool) async {
    while !condition() { await wakeup.wait() }
  }
}

/// An agent on the loop of the test, and what it printed.
final class RunningAgent {
  let agent: Agent
  private let printed = Mutex<[String]>([])
  private(set) var exitCode: Int32?

  init(_ loop: EventLoop, _ directory: String, _ gateways: [HostPort], _ change: Change) {
    var options = AgentOptions(
      clientID: "a1", gateways: gateways, directory: directory, tags: ["site": "x"], printsJSON: true)
    options.session.firstWait = .milliseconds(50)
    options.session.longestWait = .milliseconds(200)
    options.download.firstWait = .milliseconds(20)
    options.download.longestWait = .milliseconds(100)
    options.download.reportInterval = .zero
    let lines = Lines()
    self.lines = lines
    let log = Logger("agent", level: .debug, form: .json, sink: { lines.log.append($0) })
    agent = Agent(
      loop: loop, options: options, log: log,
      arrivals: Arrivals(asJSON: true) { lines.printed.append(String(decoding: $0, as: UTF8.self)) })
    loop.spawn {
      self.exitCode = await self.agent.run()
      change.fire()
    }
  }

  let lines: Lines

  final class Lines: Sendable {
    final class Collected: Sendable {
      private let lines = Mutex<[String]>([])
      func append(_ line: String) { lines.withLock { $0.append(line) } }
      var all: [String] { lines.withLock { $0 } }
    }
    let printed = Collected()
    let log = Collected()
  }

  func stop(_ change: Change) async {
    agent.stop()
    await change.until { exitCode != nil }
  }
}

/// A directory that is gone when the test ends.
func withTemporaryDirectory(_ body: (String) async throws -> Void) async throws {
  let path = NSTemporaryDirectory() + "agent-\(UUID().uuidString)"
  try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(atPath: path) }
  try await body(path)
}

/// Bytes that look random and are the same in every run.
func noise(_ count: Int) -> Bytes {
  var random = SplitMix64(state: 11)
  return Bytes(capacity: count) { memory in
    for index in 0..<count { memory[index] = UInt8(truncatingIfNeeded: random.next()) }
    return count
  }
}
