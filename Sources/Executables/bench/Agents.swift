import AgentService
import Glibc
import Reactor
import Safeguards
import Settings
import Telemetry

/// `bench agents`: many endpoints in one process, as the agent runs one: each with a directory of its own, where its
/// position stands.
///
/// What an endpoint is handed over is one line of the log, `CLIENT MILLISECONDS JSON`, with one write(2): so a line that the
/// log has outlives any end of this process.
struct Agents {
  private let fleet: String
  private let directory: String
  private let log: String
  private let level: Logger.Level

  init(_ arguments: [String]) {
    var options = Options("bench agents", about: "Runs many endpoints until SIGTERM.", environmentFlags: [])
    let fleet = options.required(
      "fleet", .string.named("FILE"), help: "The endpoints, one a line: CLIENT GATEWAY[,GATEWAY]…")
    let directory = options.required("dir", .string.named("DIR"), help: "Where each has a directory of its name.")
    let log = options.required("log", .string.named("FILE"), help: "Where a line is added for each message.")
    let level = options.value(
      "log-level", .choice(Logger.Level.allCases.map(\.name)).named("LEVEL"), default: "info",
      help: "What is logged to stderr at least.")
    let parsed = options.parseOrExit(arguments)
    self.fleet = parsed[fleet]
    self.directory = parsed[directory]
    self.log = parsed[log]
    self.level = Logger.Level(parsed[level]) ?? .info
  }

  func run(_ loop: EventLoop) async throws {
    let members = try Agents.members(of: fleet)
    let descriptor = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw BenchError("can't open \(log)") }
    let logger = Logger("agents", level: level)
    var running: [Agent] = []
    var left = members.count
    let ended = Wakeup()
    // Before the agents start threads: those inherit the mask that keeps the signals for the loop.
    let signals = try Signals(loop: loop) { _ in for agent in running { agent.stop() } }
    for member in members {
      var options = AgentOptions(
        clientID: member.client, gateways: member.gateways, directory: "\(directory)/\(member.client)", printsJSON: true
      )
      options.safeguards = .ofEnvironment()
      options.hurry()
      let agent = Agent(loop: loop, options: options, log: logger) {
        Agents.append($0, of: member.client, to: descriptor)
      }
      running.append(agent)
      loop.spawn {
        _ = await agent.run()
        left -= 1
        ended.fire()
      }
    }
    while left > 0 { await ended.wait() }
    withExtendedLifetime(signals) {}
    close(descriptor)
  }

  private struct Member {
    let client: String
    let gateways: [HostPort]
  }

  private static func members(of path: String) throws -> [Member] {
    guard let file = fopen(path, "r") else { throw BenchError("can't open \(path)") }
    defer { fclose(file) }
    var members: [Member] = []
    var line: UnsafeMutablePointer<CChar>?
    var capacity = 0
    defer { free(line) }
    while getline(&line, &capacity, file) > 0, let line {
      let words = String(cString: line).split(whereSeparator: \.isWhitespace)
      guard words.count == 2 else { throw BenchError("\(path): a line is CLIENT GATEWAY[,GATEWAY]…") }
      let gateways = words[1].split(separator: ",").compactMap { HostPort(String($0)) }
      guard !gateways.isEmpty else { throw BenchError("\(path): \(words[1]) names no gateway") }
      members.append(Member(client: String(words[0]), gateways: gateways))
    }
    return members
  }

  private static func append(_ line: [UInt8], of client: String, to descriptor: Int32) {
    let bytes = Array("\(client) \(EventLoop.wallClockMilliseconds()) ".utf8) + line
    // One call: a line stands in the log whole or not at all. A disk that takes less is seen as a broken line.
    _ = write(descriptor, bytes, bytes.count)
  }
}
