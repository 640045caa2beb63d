internal import Admin
internal import FileStore
internal import GatewayService
internal import Kafka
internal import Reactor
internal import Redis
internal import Settings
internal import Telemetry

/// The gateway: holds the streams of endpoints, delivers what is pushed to them, serves their downloads.
@main
enum GatewayProgram {
  // `main` is on the main actor, and so are closures made in it; the story of the loop is made elsewhere.
  nonisolated static func main() {
    let settings = GatewaySettings.fromCommandLine()
    let log = Logger("gateway", level: settings.logLevel).with(["node": settings.options.nodeID])
    exitProcess(run(settings, log))
  }

  private static func run(_ settings: GatewaySettings, _ log: Logger) -> Int32 {
    do throws(IOError) {
      return try EventLoop.run(name: "gateway") { loop in await serve(settings, loop, log) }
    } catch {
      log.error("the loop can't start", ["error": "\(error)"])
      return 1
    }
  }

  private static func serve(_ settings: GatewaySettings, _ loop: EventLoop, _ log: Logger) async -> Int32 {
    do {
      let end = End()
      // Before anything else starts a thread: the threads inherit the mask that keeps the signals for the loop.
      let drain = Drain()
      let signals = try Signals(loop: loop) { signal in
        // The first one drains; what comes while it does ends it.
        if drain.gateway?.drain(rate: settings.options.drainRate, within: settings.options.drainDeadline) != true {
          end.come("signal \(signal)", code: 0)
        }
      }
      defer { withExtendedLifetime(signals) {} }
      let registry = MetricsRegistry()
      registry.addProcessMetrics()
      let readiness = Readiness(waitingFor: ["gateway"])
      let admin = try AdminServer(
        host: settings.admin.host, port: settings.admin.port, metrics: registry,
        readiness: { readiness.reason })
      log.info("admin port open", ["port": Int(admin.port)])
      let redis = RedisClient(loop: loop, address: settings.redis, options: settings.redisOptions)
      let path = settings.store
      let store = try await BlockingPool.shared.run { try StoreDirectory(at: path) }
      let gateway = try Gateway(
        settings.options, loop: loop, redis: redis, kafka: settings.kafka, store: store, metrics: registry, log: log)
      gateway.onEvent = { event in
        switch event {
        case .ready: readiness.met("gateway")
        case .notReady(let reason): readiness.unmet("gateway", because: reason)
        case .nameTaken: end.come("another process has taken the name", code: 1)
        case .drained: end.come("drained", code: 0)
        }
      }
      drain.gateway = gateway
      loop.spawn {
        do {
          let address = try await gateway.start(listen: settings.listen)
          log.info("ready", ["listen": address.description])
        } catch is CancellationError {
        } catch {
          end.come("can't start: \(error)", code: 1)
        }
      }
      await end.wait()
      log.log(end.code == 0 ? .info : .error, "ending", ["reason": end.reason])
      readiness.unmet("gateway", because: "shutting down")
      await gateway.stop(grace: settings.grace)
      redis.close()
      admin.stop()
      log.info("ended")
      return end.code
    } catch {
      log.error("can't start", ["error": "\(error)"])
      return 1
    }
  }

  /// What the first signal drains, once it is made.
  private final class Drain {
    var gateway: Gateway?
  }

  /// The first reason to end, and who waits for it.
  private final class End {
    private let wakeup = Wakeup()
    private(set) var reason = ""
    private(set) var code: Int32 = 0
    private var hasCome = false

    func come(_ reason: String, code: Int32) {
      guard !hasCome else { return }
      (hasCome, self.reason, self.code) = (true, reason, code)
      wakeup.fire()
    }

    func wait() async {
      if !hasCome { await wakeup.wait() }
    }
  }
}
