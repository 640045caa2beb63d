internal import FileStore
internal import GRPC
public import Reactor
public import Redis
internal import Schema
internal import StandardServices
public import Telemetry

/// An uploader: its clients of Redis and Kafka, its store, its gRPC server, and the relay of pending notices. Belongs to
/// its loop.
public final class UploaderServer {
  public struct Settings: Sendable {
    public var listen: HostPort
    /// Where other uploaders reach this one; where it listens unless told.
    public var advertise: HostPort?
    /// What other nodes and records call this one; unique among the uploaders of a store.
    public var name: String
    /// The path of the shared directory.
    public var store: String
    public var limits = UploadLimits()
    /// The time in ms since the epoch, which everything that expires is measured by.
    public var clock: @Sendable () -> Int64 = { EventLoop.wallClockMilliseconds() }
    /// How long calls that are under way may go on when the process is told to end.
    public var grace = Duration.seconds(10)

    public init(listen: HostPort, name: String, store: String) {
      self.listen = listen
      self.name = name
      self.store = store
    }
  }

  private let loop: EventLoop
  private let settings: Settings
  private let log: Logger
  private let server: Server
  private let uploads: Uploads
  let sweeper: Sweeper
  private let health: HealthService
  private var relay: Task<Void, Never>?
  private var sweeping: Task<Void, Never>?

  private init(
    _ settings: Settings, uploads: Uploads, router: Router, health: HealthService, registry: MetricsRegistry,
    log: Logger
  ) {
    self.settings = settings
    self.log = log
    self.uploads = uploads
    sweeper = Sweeper(uploads: uploads)
    self.health = health
    loop = uploads.node.loop
    server = Server(
      loop: loop, router: router, interceptors: [MetricsInterceptor(registry), LoggingInterceptor(log)])
  }

  /// Opens the store and begins to serve.
  ///
  /// - Parameters:
  ///   - redis: connected or not yet; it stays the caller's.
  ///   - sender: hands notices on.
  /// - Returns: the server, and where it listens.
  public static func start(
    _ settings: Settings, redis: RedisClient, sender: any NoticeSender, loop: EventLoop, registry: MetricsRegistry,
    log: Logger
  ) async throws -> (server: UploaderServer, address: SocketAddress) {
    let path = settings.store
    let store = try await BlockingPool.shared.run { try StoreDirectory(at: path) }
    let metrics = UploadMetrics(registry)
    let (limits, clock) = (settings.limits, settings.clock)
    let records = UploadRecords(redis: redis, lifetime: limits.recordLifetime, clock: clock)
    let outbox = Outbox(
      redis: redis, records: records, sender: sender, loop: loop, limits: limits, clock: clock, log: log,
      metrics: metrics)
    let node = UploadNode(
      name: settings.name, address: settings.advertise ?? settings.listen, loop: loop, store: store, records: records,
      outbox: outbox, limits: limits, clock: clock, log: log, metrics: metrics)
    outbox.onPublished = { [unowned node] id, fence in await node.removeJournal(id, fence: fence) }
    let uploads = Uploads(node: node)
    var router = Router()
    router.add(fileTransferService: TransferHandler(uploads: uploads))
    // The path that stubs made from the seeds' definitions use.
    router.alias(service: "filetransfer.FileTransferService", of: FileTransferV1.FileTransferService.name)
    let health = HealthService(services: router.services)
    router.add(health: health)
    router.addReflection()
    let server = UploaderServer(
      settings, uploads: uploads, router: router, health: health, registry: registry, log: log)
    let address = try await server.server.listen(on: settings.listen)
    // With port 0 only the socket knows it.
    if settings.advertise == nil { node.address = HostPort(host: settings.listen.host, port: address.port) }
    server.relay = loop.spawn { await server.relayUntilCancelled() }
    server.sweeping = loop.spawn { await server.sweeper.sweepUntilCancelled() }
    health.set(serving: true)
    return (server, address)
  }

  private func relayUntilCancelled() async {
    let limits = settings.limits
    while !Task.isCancelled {
      do {
        try await loop.sleep(for: limits.relayInterval)
        try await uploads.node.outbox.relay(olderThan: limits.waitForNotice) { id in
          try await self.uploads.finaliseAbandoned(id)
        }
      } catch is CancellationError {
        return
      } catch {
        log.warning("outbox not read", ["error": "\(error)"])
      }
    }
  }

  /// Ends in order: no new calls, those under way get `grace`, then what was written is made durable.
  public func stop() async {
    health.set(serving: false)
    await server.shutdown(grace: settings.grace)
    for task in [relay, sweeping] {
      task?.cancel()
      await task?.value
    }
    await uploads.drain()
  }
}
