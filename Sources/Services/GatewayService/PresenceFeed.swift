internal import Bytes
internal import GRPC
internal import Reactor
internal import Redis
internal import Routing
internal import Telemetry

/// Hears of every change of a client's record, and of nodes whose leases end, as long as somebody watches. Belongs to the
/// node's loop.
///
/// A change is published by the Lua call that makes it. Nobody publishes the end of a lease: the list of nodes is read
/// every so often. What Redis published while there was no connection is lost: then every watch reads its clients again.
final class PresenceFeed {
  /// Watches of one gateway at most; further ones are refused with RESOURCE_EXHAUSTED.
  static let maximumWatches = 64
  /// How often the leases are looked at: a node's clients are told offline so long after its lease at the latest.
  static let leaseInterval: Duration = .seconds(1)

  let registry: Registry
  let loop: EventLoop
  let log: Logger
  private let redis: RedisAddress
  private let metrics: GatewayMetrics
  private var subscriber: RedisSubscriber?
  private var leases: Task<Void, Never>?
  private var living = LivingNodes()
  private var watches: [ObjectIdentifier: PresenceWatch] = [:]
  private var isClosed = false
  /// Grows with every subscription: what was published before one may have been missed. 0: there is none yet.
  private(set) var subscriptions = 0

  init(registry: Registry, redis: RedisAddress, loop: EventLoop, metrics: GatewayMetrics, log: Logger) {
    self.registry = registry
    self.redis = redis
    self.loop = loop
    self.metrics = metrics
    self.log = log
  }

  /// Adds a watch; the first one begins to listen. - Throws: `Status` when there are too many.
  func add(_ watch: PresenceWatch) throws(Status) {
    guard !isClosed else { throw PresenceFeed.closed }
    guard watches.count < PresenceFeed.maximumWatches else {
      throw Status(
        .resourceExhausted, "\(PresenceFeed.maximumWatches) callers watch this gateway's clients already.",
        retryAfter: .seconds(5))
    }
    watches[ObjectIdentifier(watch)] = watch
    metrics.watches.set(watches.count)
    if watches.count == 1 { begin() }
  }

  /// Takes a watch away; after the last one nobody listens.
  func remove(_ watch: PresenceWatch) {
    watches[ObjectIdentifier(watch)] = nil
    metrics.watches.set(watches.count)
    if watches.isEmpty { end() }
  }

  /// Ends every watch: the node ends.
  func close() {
    isClosed = true
    for watch in watches.values { watch.end(PresenceFeed.closed) }
  }

  private static let closed = Status(.unavailable, "The node is shutting down.", retryAfter: .milliseconds(500))

  private func begin() {
    let subscriber = RedisSubscriber(loop: loop, address: redis)
    self.subscriber = subscriber
    subscriber.onMessage = { [unowned self] _, message in heard(message) }
    subscriber.onSubscribed = { [unowned self] _ in
      subscriptions += 1
      for watch in watches.values { watch.wake() }
    }
    subscriber.subscribe(Registry.presenceChannel)
    leases = loop.spawn { [weak self, loop] in
      repeat { await self?.readLeases() } while (try? await loop.sleep(for: PresenceFeed.leaseInterval)) != nil
    }
  }

  private func end() {
    subscriber?.close()
    subscriber = nil
    leases?.cancel()
    leases = nil
    living = LivingNodes()
    subscriptions = 0
  }

  private func heard(_ message: Bytes) {
    guard let record = Registry.record(told: message) else {
      return log.warning("a message of the presence channel can't be read", ["bytes": message.count])
    }
    if !record.node.isEmpty { vouched(record, at: EventLoop.monotonicNanoseconds()) }
    let isHeld = living.hold(record)
    for watch in watches.values { watch.heard(record, isHeld: isHeld) }
  }

  /// A client's node was alive at this time.
  func vouched(_ record: ClientRecord, at time: Int64) {
    guard living.vouched(record.node, epoch: record.nodeEpoch, now: time) else { return }
    for watch in watches.values { watch.leasesChanged([record.node]) }
  }

  func hold(_ record: ClientRecord) -> Bool { living.hold(record) }

  private func readLeases() async {
    let askedAt = EventLoop.monotonicNanoseconds()
    var epochs: [String: Int64] = [:]
    var after: String? = ""
    do throws(RoutingError) {
      while let start = after {
        let page = try await registry.nodes(after: start)
        for node in page.items { epochs[node.id] = node.epoch }
        after = page.next
      }
    } catch {
      // Without the registry nothing is known of leases, so nothing is told.
      return log.debug("leases not read", ["error": error.message])
    }
    let changed = living.read(epochs, askedAt: askedAt)
    guard !changed.isEmpty else { return }
    for watch in watches.values { watch.leasesChanged(changed) }
  }
}
