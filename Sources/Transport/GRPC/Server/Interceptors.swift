internal import Reactor
public import Telemetry

/// Sees every call of a server before its handler and after its end. On the loop; must not block.
public protocol ServerInterceptor: AnyObject {
  /// - Throws: the status to refuse the call with.
  func callStarted(_ context: ServerContext) throws(Status)
  /// Called once for every call that was started, refused ones included.
  func callFinished(_ context: ServerContext, _ status: Status)
}

/// Counts calls by method and code and observes their durations.
public final class MetricsInterceptor: ServerInterceptor {
  private struct Instruments {
    let duration: Histogram
    var byCode = [Counter?](repeating: nil, count: StatusCode.allCases.count)
  }
  private let registry: MetricsRegistry
  private let started: Counter
  private var methods: [Int: Instruments] = [:]

  public init(_ registry: MetricsRegistry) {
    self.registry = registry
    started = registry.counter("grpc_server_started_total", "Calls that were started.")
  }

  public func callStarted(_ context: ServerContext) { started.increment() }

  public func callFinished(_ context: ServerContext, _ status: Status) {
    let route = context.route
    if methods[route.index] == nil {
      methods[route.index] = Instruments(
        duration: registry.histogram(
          "grpc_server_handling_seconds", "Time from a call's start to its status.",
          ["service": route.service, "method": route.method]))
    }
    methods[route.index]?.duration.observe(Double(context.loop.now - context.startedAt) / 1e9)
    let code = status.code
    if methods[route.index]?.byCode[code.rawValue] == nil {
      methods[route.index]?.byCode[code.rawValue] = registry.counter(
        "grpc_server_handled_total", "Calls that ended, by status.",
        ["service": route.service, "method": route.method, "code": code.name])
    }
    methods[route.index]?.byCode[code.rawValue]?.increment()
  }
}

/// Writes a line for every call that failed, at debug level for every call.
public final class LoggingInterceptor: ServerInterceptor {
  private let logger: Logger

  public init(_ logger: Logger) { self.logger = logger }

  public func callStarted(_ context: ServerContext) {}

  public func callFinished(_ context: ServerContext, _ status: Status) {
    let isServersFault = [.unknown, .internal, .dataLoss, .unavailable].contains(status.code)
    let level: Logger.Level = isServersFault ? .warning : .debug
    guard level >= logger.level else { return }
    logger.log(
      level, "call",
      [
        "method": "\(context.route.service)/\(context.route.method)", "code": status.code.name,
        "reason": status.message, "peer": context.peer?.description,
        "milliseconds": (context.loop.now - context.startedAt) / 1_000_000,
      ])
  }
}
