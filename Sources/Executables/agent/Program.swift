import AgentService
import Glibc
import Reactor
import Safeguards
import Settings
import Telemetry

@main
struct Program {
  static func main() {
    let (options, level) = parseOptions()
    let log = Logger("agent", level: level)
    do {
      exit(try EventLoop.run(name: "agent") { loop in await serve(loop, options, log) })
    } catch {
      log.error("can't start", ["reason": "\(error)"])
      exit(1)
    }
  }

  static func serve(_ loop: EventLoop, _ options: AgentOptions, _ log: Logger) async -> Int32 {
    do {
      // Before the agent starts threads: they inherit the mask that keeps the signals for the loop.
      let stop = Stop()
      let signals = try Signals(loop: loop) { _ in stop.agent?.stop() }
      defer { withExtendedLifetime(signals) {} }
      let agent = Agent(loop: loop, options: options, log: log)
      stop.agent = agent
      return await agent.run()
    } catch {
      log.error("can't start", ["reason": "\(error)"])
      return 1
    }
  }

  private final class Stop {
    var agent: Agent?
  }

  static func parseOptions() -> (AgentOptions, Logger.Level) {
    var options = Options(
      "agent",
      about: "Runs on an endpoint: stays connected to a gateway, prints messages, and fetches the files that are "
        + "pushed to it.")
    let clientID = options.required("client-id", .string, help: "The endpoint's name, unique in the fleet.")
    let gateways = options.list(
      "gateway", .hostPort, isRequired: true, help: "A gateway; the first one that can be reached is used.")
    let directory = options.required("dir", .string.named("DIR"), help: "Where files are delivered to.")
    let tags = options.list("tag", .keyValue, help: "What the endpoint is, such as site=berlin.")
    let json = options.toggle("json", help: "Prints what arrives as JSON, one object a line.")
    let level = options.value(
      "log-level", .choice(Logger.Level.allCases.map(\.name)).named("LEVEL"), default: "info",
      help: "What is logged to stderr at least: trace, debug, info, warning or error.")
    let given = options.parseCommandLine()
    let pairs = given[tags].map { ($0.key, $0.value) }
    var chosen = AgentOptions(
      clientID: given[clientID], gateways: given[gateways], directory: given[directory],
      tags: Dictionary(pairs, uniquingKeysWith: { _, last in last }), printsJSON: given[json])
    chosen.safeguards = .ofEnvironment()
    return (chosen, Logger.Level(given[level]) ?? .info)
  }
}
