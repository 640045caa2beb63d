internal import GatewayService
internal import Glibc
internal import Kafka
internal import Reactor
internal import Redis
internal import Safeguards
internal import Settings
internal import Telemetry

/// The gateway's flags, each also from the environment (`FLEETPUSH_NODE_ID` and so on).
struct GatewaySettings: Sendable {
  var options: GatewayOptions
  var listen: HostPort
  var admin: HostPort
  var redis: RedisAddress
  var redisOptions = RedisClient.Options()
  var kafka: KafkaConnection
  var store: String
  var grace: Duration
  var logLevel: Logger.Level

  /// Prints and exits for `--help`, `--version` and mistakes.
  static func fromCommandLine() -> GatewaySettings {
    var flags = Options("gateway", about: "Holds the streams of endpoints and delivers what is pushed to them.")
    let node = flags.required("node-id", .name, help: "The name of this node, unique in the cluster.")
    let listen = flags.value("listen", .hostPort, default: "0.0.0.0:7000", help: "Where to serve gRPC.")
    let advertise = flags.optional(
      "advertise", .hostPort, help: "Where clients and other nodes reach this node, if not at the address it binds.")
    let admin = flags.value(
      "admin", .hostPort, default: "127.0.0.1:7001", help: "Where to serve /healthz, /readyz and /metrics.")
    let redis = flags.value(
      "redis", .redis, default: "127.0.0.1:6379", help: "Redis: HOST:PORT or redis://[USER:]PASSWORD@HOST:PORT/DB.")
    let kafka = flags.value("kafka", .string, default: "127.0.0.1:9092", help: "Kafka's bootstrap servers.")
    let store = flags.required("store", .string.named("DIR"), help: "The directory that all nodes share.")
    let lease = flags.value(
      "lease", .duration, default: "10s", help: "How long this node counts as alive without a sign of life.")
    let heartbeat = flags.value("heartbeat", .duration, default: "10s", help: "How often clients send a heartbeat.")
    let silence = flags.value("silence", .duration, default: "30s", help: "When a silent stream is closed.")
    let refresh = flags.value(
      "refresh", .duration, default: "20s", help: "How often each session is refreshed in the registry.")
    let queued = flags.value(
      "max-queued", .bytes, default: "1MiB", help: "Bytes queued for one client, past which each job's policy holds."
    )
    let partitions = flags.value(
      "partitions", .int(1...10_000), default: "16", help: "Partitions of client-push when it has to be made.")
    let registrations = flags.value(
      "registrations", .rate, default: "2000/s", help: "Sessions that may begin here; the rest is told when to come.")
    let burst = flags.value(
      "registrations-burst", .int(1...1_000_000), default: "2000", help: "How many may come at once after a quiet time."
    )
    let drainRate = flags.value(
      "drain-rate", .rate, default: "500/s", help: "After SIGTERM: how many clients are sent elsewhere.")
    let drainDeadline = flags.value(
      "drain-deadline", .duration, default: "60s",
      help: "After SIGTERM: how long that may take. A second SIGTERM ends it at once.")
    let grace = flags.value(
      "grace", .duration, default: "10s", help: "How long other calls may take to end after that.")
    let level = flags.value(
      "log-level", .choice(Logger.Level.allCases.map(\.name)), default: "info", help: "What is logged.")
    let parsed = flags.parseCommandLine()

    var options = GatewayOptions(nodeID: parsed[node], address: parsed[advertise]?.description ?? "")
    options.lease = parsed[lease]
    options.heartbeatInterval = parsed[heartbeat]
    options.silenceLimit = parsed[silence]
    options.refreshInterval = parsed[refresh]
    options.maximumQueuedBytes = parsed[queued]
    options.partitions = parsed[partitions]
    options.admission.rate = parsed[registrations]
    options.admission.burst = parsed[burst]
    options.drainRate = parsed[drainRate]
    options.drainDeadline = parsed[drainDeadline]
    options.safeguards = .ofEnvironment()
    return GatewaySettings(
      options: options, listen: parsed[listen], admin: parsed[admin], redis: parsed[redis],
      redisOptions: redisOptions(), kafka: KafkaConnection(bootstrap: parsed[kafka], clientID: parsed[node]),
      store: parsed[store], grace: parsed[grace], logLevel: Logger.Level(parsed[level]) ?? .info)
  }

  /// A node that comes back to ten thousand clients asks much of Redis at once.
  private static func redisOptions() -> RedisClient.Options {
    var options = RedisClient.Options()
    options.maxOutstandingCommands = 100_000
    return options
  }
}

extension ValueType<String> {
  /// A name as nodes have it.
  static var name: ValueType<String> {
    ValueType("NAME") { (text) throws(BadValue) in
      guard GatewayOptions.isNodeID(text) else {
        throw BadValue("is no name: 1 to 128 printable ASCII characters without space, quotes, \\, /, { and }")
      }
      return text
    }
  }
}

extension ValueType<RedisAddress> {
  static var redis: ValueType<RedisAddress> {
    ValueType<RedisAddress>("ADDRESS") { (text) throws(BadValue) in
      do throws(RedisError) { return try RedisAddress(text) } catch {
        throw BadValue("is no address: \(error.message)")
      }
    }
  }
}

/// Ends the process with an exit code.
func exitProcess(_ code: Int32) -> Never { exit(code) }
