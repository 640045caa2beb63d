internal import Reactor
internal import Routing
internal import Telemetry

/// The node's name and its partition, held by leases that it renews. Belongs to the node's loop.
final class NodeLease {
  /// What the owner is told.
  enum Event: Equatable {
    /// The lease had ended and was taken anew: every session has to be vouched for in the new epoch.
    case epochChanged
    /// Another process has taken the name: this one has to end.
    case nameTaken
  }

  private let registry: Registry
  private let options: GatewayOptions
  private let loop: EventLoop
  private let metrics: GatewayMetrics
  private let log: Logger
  private let startedAt = EventLoop.wallClockMilliseconds()
  private var renewal: Task<Void, Never>?
  private var partitions = 0
  /// Where others reach the node; empty before it has started.
  private(set) var address = ""
  private var isDraining = false
  private(set) var partition: Int32 = -1
  /// nil while the node isn't in the registry.
  private(set) var epoch: Int64?
  var onEvent: ((Event) -> Void)?
  /// How many clients the node holds, for its record.
  var clientCount: () -> Int = { 0 }

  init(registry: Registry, options: GatewayOptions, loop: EventLoop, metrics: GatewayMetrics, log: Logger) {
    self.registry = registry
    self.options = options
    self.loop = loop
    self.metrics = metrics
    self.log = log
  }

  /// Leases a partition. - Returns: the partition to read, before `start`.
  func leasePartition(of count: Int) async throws(RoutingError) -> Int32 {
    partitions = count
    partition = try await registry.leasePartition(
      node: options.nodeID, topic: Publisher.pushTopic, partitions: count, lease: options.lease)
    return partition
  }

  /// Puts the node into the registry, with the address where it is reached, and begins to renew.
  func start(address: String) async throws(RoutingError) {
    self.address = address
    try await acquire()
    renewal = loop.spawn { [self] in
      while (try? await loop.sleep(for: options.lease / 3)) != nil { await renew() }
    }
  }

  /// Says in the node's record that it takes no new clients.
  func announceDraining() async {
    isDraining = true
    await renew()
  }

  /// Ends the leases at once.
  func release() async {
    renewal?.cancel()
    renewal = nil
    guard let epoch else { return }
    self.epoch = nil
    do throws(RoutingError) {
      try await registry.releaseNode(
        options.nodeID, epoch: epoch, topic: Publisher.pushTopic, partition: partition)
    } catch {
      log.warning("lease not released; it ends by itself", ["error": error.message])
    }
  }

  private func acquire() async throws(RoutingError) {
    epoch = try await registry.acquireNode(
      options.nodeID, address: address, partition: partition, lease: options.lease, startedAt: startedAt,
      isDraining: isDraining)
    log.info("lease taken", ["partition": partition, "epoch": epoch])
  }

  private func renew() async {
    guard let epoch else { return }
    do throws(RoutingError) {
      let ownership = try await registry.renewNode(
        options.nodeID, epoch: epoch, topic: Publisher.pushTopic, partition: partition, partitions: partitions,
        lease: options.lease, clients: clientCount(), isDraining: isDraining)
      // The node may have been released while this was under way.
      guard self.epoch == epoch else { return }
      switch ownership {
      case .held: break
      case .absent:
        metrics.leaseLapses.increment()
        log.warning("the lease had ended", ["epoch": epoch])
        try await acquire()
        onEvent?(.epochChanged)
      case .lost:
        log.error("another process has taken this node's name", ["node": options.nodeID])
        self.epoch = nil
        renewal?.cancel()
        onEvent?(.nameTaken)
      }
    } catch {
      log.warning("lease not renewed", ["error": error.message])
    }
  }
}
