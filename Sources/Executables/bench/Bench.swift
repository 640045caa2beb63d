import Reactor
import Settings

/// Measures a server of the same Protos from outside: what an idle stream holds, what a delivery costs.
@main
enum Bench {
  static func main() {
    let commands = Commands(
      "bench", about: "Loads a gateway, or any server of the same Protos, and prints what it costs.",
      [
        ("idle", "Opens Connect streams and leaves them alone: memory per stream."),
        ("fanout", "Sends texts to every stream at once (a job for all): CPU per delivery."),
        ("push", "Sends texts to one stream after the other (PushToClient): CPU per push."),
        ("load", "Sends texts to named endpoints at a steady rate (JobService): CPU per delivery, and latency."),
        ("latency", "Time from publisher to endpoint, by each way, beside bare Kafka."),
        ("reconnect", "Lets many endpoints come back at once with messages waiting for each."),
        ("agents", "Runs many endpoints as the agent runs one: for ops/chaos."),
        ("drain", "Drains a gateway under load: what is lost, and how long endpoints are away."),
        ("serve", "Answers PushToClient without a cluster behind it: the server for unary comparisons."),
      ])
    let (command, arguments) = commands.selectFromCommandLine()
    switch command {
    case "idle": run { try await Idle(arguments).run($0) }
    case "fanout": run { try await Fanout(arguments).run($0) }
    case "push": run { try await Push(arguments).run($0) }
    case "load": run { try await Load(arguments).run($0) }
    case "latency": run { try await Latency(arguments).run($0) }
    case "reconnect": run { try await Reconnect(arguments).run($0) }
    case "agents": run { try await Agents(arguments).run($0) }
    case "drain": run { try await Drain(arguments).run($0) }
    default: run { try await Serve(arguments).run($0) }
    }
  }

  private static func run(_ body: @escaping @Sendable (EventLoop) async throws -> Void) -> Never {
    do {
      let code = try EventLoop.run(name: "bench") { loop in
        do {
          try await body(loop)
          return 0
        } catch {
          complain("bench: \(error)")
          return 1
        }
      }
      exitProcess(code)
    } catch {
      complain("bench: \(error)")
      exitProcess(1)
    }
  }
}
