public import FileStore
internal import GRPC
public import Kafka
public import Reactor
public import Redis
internal import Routing
internal import Schema
internal import StandardServices
public import Telemetry

/// One gateway: its gRPC server and all that stands behind it. Belongs to its loop.
///
///     let gateway = try Gateway(options, loop: loop, redis: redis, kafka: kafka, store: store, …)
///     let address = try await gateway.start(listen: HostPort("127.0.0.1:7000"))
///     …
///     await gateway.stop(grace: .seconds(10))
public final class Gateway {
  /// What the owner is told, on the loop.
  public enum Event: Sendable {
    case ready
    /// It takes no clients at present; a sentence.
    case notReady(String)
    /// Another process has taken the node's name: stop this one.
    case nameTaken
    /// A drain is over: stop this one.
    case drained
  }

  private let options: GatewayOptions
  private let loop: EventLoop
  private let redis: RedisClient
  private let producer: KafkaProducer
  private let consumer: PushConsumer
  private let node: GatewayNode
  private let presence: PresenceFeed
  private let channels: NodeChannels
  private let health: HealthService
  private let server: Server
  private let log: Logger
  private var isStopping = false
  private var hasStarted = false
  public var onEvent: ((Event) -> Void)?

  /// How long each step of the end may wait for a store.
  static let storeGrace: Duration = .seconds(2)
  /// Before a store that can't be reached at the start is tried again.
  static let startRetryDelay: Duration = .milliseconds(500)

  /// - Parameter redis: stays the caller's, who closes it after `stop`.
  public init(
    _ options: GatewayOptions, loop: EventLoop, redis: RedisClient, kafka: KafkaConnection, store: StoreDirectory,
    metrics registry: MetricsRegistry, log: Logger
  ) throws {
    self.options = options
    self.loop = loop
    self.redis = redis
    self.log = log
    let clients = Registry(redis, safeguards: options.safeguards)
    let ledger = JobLedger(redis)
    let metrics = GatewayMetrics(registry)
    producer = try KafkaProducer(kafka, loop: loop)
    let publisher = Publisher(registry: clients, producer: producer)
    let channelFeeds = ChannelFeeds(
      store: Channels(redis, retention: options.channelRetention), publisher: publisher, loop: loop,
      metrics: ChannelMetrics(registry), log: log)
    let node = GatewayNode(
      options: options, loop: loop, registry: clients, ledger: ledger, publisher: publisher, channelFeeds: channelFeeds,
      metrics: metrics, log: log)
    self.node = node
    consumer = PushConsumer(
      try KafkaConsumer(kafka, loop: loop), nodeID: options.nodeID, loop: loop, metrics: metrics, log: log
    ) { [unowned node] in node.delivery.deliver($0) }
    consumer.onGap = { [unowned node] in node.verifyAll() }
    channels = NodeChannels(loop: loop)
    let directPush = DirectPush(node: node, channels: channels)
    let directRoute = DirectRoute(node: node, channels: channels)
    publisher.direct = directRoute
    var router = Router()
    router.stream(PushV1.PushService.connect) { [unowned node] in node.connect($0) }
    router.unary(PushV1.PushService.pushToClient) { try await directPush.push($0, deadline: $1.deadline) }
    router.add(
      jobService: JobHandlers(
        dispatch: JobDispatch(registry: clients, ledger: ledger, publisher: publisher), ledger: ledger, store: store,
        loop: loop))
    router.add(recordService: directRoute)
    presence = PresenceFeed(registry: clients, redis: redis.address, loop: loop, metrics: metrics, log: log)
    router.add(directoryService: DirectoryHandlers(registry: clients, presence: presence))
    router.add(nodeService: NodeHandlers(node: node))
    router.add(fileService: DownloadHandler(loop: loop, store: store, redis: redis, log: log, registry: registry))
    router.unary(BroadcastV1.BroadcastService.publish) { frame, _ in try await channelFeeds.publish(frame) }
    router.stream(BroadcastV1.BroadcastService.subscribe) { channelFeeds.subscribe($0) }
    // The paths of callers whose definitions have no package.
    router.alias(service: "PushService", of: PushV1.PushService.name)
    router.alias(service: "FileService", of: PushV1.FileService.name)
    health = HealthService(services: router.services)
    router.add(health: health)
    router.addReflection()
    server = Server(
      loop: loop, router: router, interceptors: [MetricsInterceptor(registry), LoggingInterceptor(log)])
    observe()
  }

  private func observe() {
    producer.onEvent = { [log] event in
      switch event {
      case .error(let error): log.warning("Kafka producer", ["error": error.message])
      case .log(let level, _, let message): log.log(level <= 4 ? .info : .debug, "librdkafka", ["message": message])
      case .offsetReset, .partitionError, .statistics: break
      }
    }
    redis.onStateChange = { [weak self] state in
      guard let self, hasStarted, !isStopping else { return }
      switch state {
      case .connected:
        log.info("Redis is back")
        setReady(nil)
        node.verifyAll()
      case .disconnected(let error):
        log.warning("Redis is gone", ["error": error.message])
        setReady("Redis: \(error.message)")
      }
    }
    node.drain.onEvent = { [weak self] event in
      switch event {
      case .began: self?.setReady(nil)
      case .ended: self?.onEvent?(.drained)
      }
    }
    node.lease.onEvent = { [weak self] event in
      switch event {
      case .epochChanged: self?.node.verifyAll()
      case .nameTaken:
        self?.setReady("another process has taken this node's name")
        self?.onEvent?(.nameTaken)
      }
    }
  }

  private func setReady(_ obstacle: String?) {
    let obstacle = obstacle ?? (node.drain.isUnderWay ? "draining" : nil)
    health.set(serving: obstacle == nil)
    onEvent?(obstacle.map { .notReady($0) } ?? .ready)
  }

  // MARK: Start

  /// Listens, waits for the stores, takes the leases, and lets clients in.
  ///
  /// - Returns: where it listens, when it is ready.
  /// - Throws: when it can't listen; `CancellationError` when it was stopped meanwhile. Stores that can't be reached are
  ///   waited for.
  public func start(listen endpoint: HostPort) async throws -> SocketAddress {
    let bound = try await server.listen(on: endpoint)
    log.info("listening", ["address": bound.description])
    try await retry("Redis") { try await self.redis.connect() }
    let partitions = try await retry("Kafka") { try await self.makeTopics() }
    try await retry("the leases") {
      let partition = try await self.node.lease.leasePartition(of: partitions)
      // The end of the log is known before anybody can learn of this node: nothing that is sent to it is missed.
      try await self.consumer.start(partition: partition)
      try await self.node.fleetDelivery.load()
      try await self.node.lease.start(address: self.options.address.isEmpty ? bound.description : self.options.address)
    }
    node.startSweeping()
    hasStarted = true
    setReady(nil)
    return bound
  }

  /// - Returns: how many partitions `client-push` has.
  private func makeTopics() async throws -> Int {
    try await producer.createTopics([
      KafkaTopic(Publisher.pushTopic, partitions: options.partitions),
      KafkaTopic(Publisher.broadcastTopic, partitions: 1),
    ])
    return try await producer.partitionCount(of: Publisher.pushTopic)
  }

  private func retry<T>(_ what: String, _ body: () async throws -> T) async throws -> T {
    while !isStopping {
      do { return try await body() } catch {
        log.warning("not ready yet", ["waiting_for": what, "error": "\(error)"])
        onEvent?(.notReady("\(what): \(error)"))
      }
      try await loop.sleep(for: Gateway.startRetryDelay)
    }
    throw CancellationError()
  }

  // MARK: Stop

  /// Takes no new clients from now on and sends those that are here to other gateways, at a rate; `onEvent` is told
  /// `.drained` when none is left, or when the time is over.
  ///
  /// - Returns: false when there is nothing to wait for: the gateway hasn't started yet, or is draining already.
  public func drain(rate: Rate, within deadline: Duration) -> Bool {
    guard hasStarted, !isStopping, !node.drain.isUnderWay else { return false }
    node.drain.begin(rate: rate, within: deadline)
    return true
  }

  /// Takes no more clients, tells those that are here to go elsewhere, gives the leases back, lets other calls end within
  /// `grace`, and ends what stands behind.
  public func stop(grace: Duration) async {
    guard !isStopping else { return }
    isStopping = true
    setReady("shutting down")
    node.shutDown("The node is shutting down.")
    node.channelFeeds.drain()
    presence.close()
    await node.releases.finish(within: Gateway.storeGrace)
    await node.lease.release()
    await server.shutdown(grace: grace)
    await node.settlements.flush(within: Gateway.storeGrace)
    await node.reports.flush(within: Gateway.storeGrace)
    channels.close()
    await consumer.close()
    do { try await producer.flush(within: Gateway.storeGrace) } catch {
      log.warning("records not delivered", ["count": producer.undelivered, "error": error.message])
    }
    await producer.close()
  }
}
