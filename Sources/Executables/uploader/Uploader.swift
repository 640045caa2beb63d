import Admin
import GRPC
import Glibc
import Kafka
import Reactor
import Redis
import Routing
import Settings
import Telemetry
import UploaderService

/// The flags of the uploader.
struct UploaderOptions: Sendable {
  let listen: HostPort
  let advertise: HostPort?
  let admin: HostPort
  let redis: String
  let kafka: String
  let store: String
  let grace: Duration
  let lease: Duration
  let session: Duration
  let sweep: Duration
  let logLevel: Logger.Level

  /// What records and other nodes call this uploader.
  var name: String { (advertise ?? listen).description }

  /// Prints and exits for `--help`, `--version` and mistakes.
  init() {
    var options = Options("uploader", about: "Takes files in, verifies them, and announces them.")
    let listen = options.value("listen", .hostPort, default: "0.0.0.0:7100", help: "Where to serve gRPC.")
    let advertise = options.optional(
      "advertise", .hostPort, help: "The address that others know this uploader by; the one it listens on without.")
    let admin = options.value(
      "admin", .hostPort, default: "0.0.0.0:7101", help: "Where /healthz, /readyz and /metrics are.")
    let redis = options.required(
      "redis", .string.named("ADDRESS"), help: "Redis, as host:port or redis://user:password@host:port/db.")
    let kafka = options.required("kafka", .string.named("HOST:PORT[,...]"), help: "The Kafka brokers to begin with.")
    let store = options.required(
      "store", .string.named("DIR"), help: "The directory that all uploaders and gateways share.")
    let grace = options.value(
      "grace", .duration, default: "10s", help: "How long calls under way may go on when the process is told to end.")
    let lease = options.value(
      "lease", .duration, default: "10s",
      help: "How long the node that writes a file may be silent before another one goes on with it.")
    let session = options.value(
      "session", .duration, default: "30s",
      help: "How long a session holds its file from its last progress on; another one is refused meanwhile.")
    let sweep = options.value(
      "sweep", .duration, default: "60s", help: "How often the store is looked through for what has expired.")
    let level = options.value(
      "log-level", .choice(Logger.Level.allCases.map(\.name)).named("LEVEL"), default: "info",
      help: "What is logged to stderr at least: trace, debug, info, warning or error.")
    let parsed = options.parseCommandLine()
    self.listen = parsed[listen]
    self.advertise = parsed[advertise]
    self.admin = parsed[admin]
    self.redis = parsed[redis]
    self.kafka = parsed[kafka]
    self.store = parsed[store]
    self.grace = parsed[grace]
    self.lease = parsed[lease]
    self.session = parsed[session]
    self.sweep = parsed[sweep]
    logLevel = Logger.Level(parsed[level]) ?? .info
  }
}

@main
enum Uploader {
  /// How long Redis may take to answer at the start.
  static let patience = Duration.seconds(30)

  // `main` is on the main actor, and so are closures made in it; the story of the loop is made elsewhere.
  nonisolated static func main() {
    let options = UploaderOptions()
    exit(run(options, Logger("uploader", level: options.logLevel).with(["node": options.name])))
  }

  private static func run(_ options: UploaderOptions, _ log: Logger) -> Int32 {
    do throws(IOError) {
      return try EventLoop.run(name: "uploader") { loop in await serve(options, loop, log) }
    } catch {
      log.error("the loop can't start", ["error": "\(error)"])
      return 1
    }
  }

  /// Runs until it is told to end. - Returns: the exit code.
  private static func serve(_ options: UploaderOptions, _ loop: EventLoop, _ log: Logger) async -> Int32 {
    do {
      let stop = StopRequest()
      let signals = try Signals(loop: loop) { _ in stop.request() }
      defer { withExtendedLifetime(signals) {} }
      try await serve(options, loop, log, until: stop)
      return 0
    } catch {
      log.error("the uploader can't go on", ["error": "\(error)"])
      return 1
    }
  }

  private static func serve(
    _ options: UploaderOptions, _ loop: EventLoop, _ log: Logger, until stop: StopRequest
  ) async throws {
    let registry = MetricsRegistry()
    registry.addProcessMetrics()
    let readiness = Readiness(waitingFor: ["redis", "serving"])
    let admin = try AdminServer(
      host: options.admin.host, port: options.admin.port, metrics: registry, readiness: { readiness.reason })
    defer { admin.stop() }

    let redis = RedisClient(loop: loop, address: try RedisAddress(options.redis))
    defer { redis.close() }
    redis.onStateChange = { state in
      switch state {
      case .connected: readiness.met("redis")
      case .disconnected(let error): readiness.unmet("redis", because: error.message)
      }
    }
    try await redis.connect(within: patience)
    let producer = try KafkaProducer(KafkaConnection(bootstrap: options.kafka, clientID: "uploader"), loop: loop)
    let clients = Registry(redis)
    let publisher = Publisher(registry: clients, producer: producer)
    let dispatch = JobDispatch(registry: clients, ledger: JobLedger(redis), publisher: publisher)
    let sender = RoutedNoticeSender(dispatch: dispatch, publisher: publisher, log: log)

    var settings = UploaderServer.Settings(listen: options.listen, name: options.name, store: options.store)
    settings.grace = options.grace
    settings.advertise = options.advertise
    settings.limits.writerLease = options.lease
    settings.limits.sessionLifetime = options.session
    settings.limits.sweepInterval = options.sweep
    settings.limits.sweepAge = min(settings.limits.sweepAge, options.lease * 2)
    let (server, address) = try await UploaderServer.start(
      settings, redis: redis, sender: sender, loop: loop, registry: registry, log: log)
    readiness.met("serving")
    log.info(
      "serving", ["listen": "\(address)", "admin": "\(options.admin.host):\(admin.port)", "store": options.store])

    await stop.wait()
    readiness.unmet("serving", because: "the process is ending")
    log.info("ending")
    await server.stop()
    await producer.close()
    log.info("ended")
  }
}

/// The wish that the process ends; on the loop.
final class StopRequest {
  private var isRequested = false
  private var waiter: UnsafeContinuation<Void, Never>?

  func request() {
    isRequested = true
    waiter?.resume()
    waiter = nil
  }

  func wait() async {
    if isRequested { return }
    await withUnsafeContinuation { waiter = $0 }
  }
}
