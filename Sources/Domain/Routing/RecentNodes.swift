internal import Reactor
internal import Redis

/// Which node a client's record names, and in which epoch of the node.
struct Holder: Hashable {
  /// Empty when the client is away.
  var node: String
  var epoch: Int64
}

/// The records of living nodes as they were a moment ago, so that a publisher doesn't ask for the same few at each job.
///
/// What is remembered counts where it confirms what a client's record says; where it doesn't, the nodes are read again. So
/// all that is late is that a node has died, by less than `lifetime`, as with a lease that much longer. Belongs to its loop.
final class RecentNodes {
  static let lifetime: Duration = .milliseconds(200)
  /// Of more nodes none is read ahead.
  static let maximumReadAhead = 256

  private let registry: Registry
  private var nodes: [String: NodeRecord] = [:]
  private var readAt: Int64 = 0
  private var isReading = false

  init(_ registry: Registry) { self.registry = registry }

  private var isRecent: Bool { EventLoop.monotonicNanoseconds() - readAt < RecentNodes.lifetime.nanoseconds }

  /// Reads what is remembered again when it is too old to count, without waiting: Redis answers before whatever is sent
  /// next.
  func readAhead() {
    guard !isRecent, !isReading, !nodes.isEmpty, nodes.count <= RecentNodes.maximumReadAhead else { return }
    isReading = true
    let names = Array(nodes.keys)
    registry.store.begin(Registry.nodeRequests(of: names)).whenAll { [weak self] replies in
      guard let self else { return }
      isReading = false
      // What can't be read is read by who needs it, and says why.
      guard !isRecent, let read = try? Registry.nodeRecords(of: names, from: replies) else { return }
      nodes = Dictionary(read.compactMap { $0 }.map { ($0.id, $0) }, uniquingKeysWith: { $1 })
      readAt = EventLoop.monotonicNanoseconds()
    }
  }

  /// The records of the living nodes that hold clients.
  ///
  /// - Parameter isFresh: whether nothing that is remembered counts.
  func holding(_ holders: Set<Holder>, isFresh: Bool) async throws(RoutingError) -> [String: NodeRecord] {
    let isRecent = self.isRecent
    if isRecent, !isFresh, holders.allSatisfy({ $0.node.isEmpty || nodes[$0.node]?.epoch == $0.epoch }) { return nodes }
    // With those that are remembered, so that publishers to different nodes don't push out each other's.
    var names = Set(holders.map(\.node).filter { !$0.isEmpty })
    if !isRecent { names.formUnion(nodes.keys) }
    guard !names.isEmpty else { return [:] }
    let read = try await registry.nodes(named: names)
    if isRecent {
      for name in names { nodes[name] = read[name] }
    } else {
      (nodes, readAt) = (read, EventLoop.monotonicNanoseconds())
    }
    return read
  }
}

extension Registry {
  /// Which nodes the records of clients name, in one round trip; nil for a client without a record.
  func holders(of clients: [String]) async throws(RoutingError) -> [Holder?] {
    try Registry.holders(from: await store.all(Registry.holderRequests(of: clients)))
  }

  static func holderRequests(of clients: [String]) -> [Store.Request] {
    clients.map { .command(["HMGET", Key.client($0), "epoch", "node", "node_epoch"]) }
  }

  static func holders(from replies: [Result<RedisValue, RoutingError>]) throws(RoutingError) -> [Holder?] {
    var holders: [Holder?] = []
    holders.reserveCapacity(replies.count)
    for reply in replies {
      let fields = try reply.get().elements
      guard fields.count == 3, fields[0].asString != nil else {
        holders.append(nil)
        continue
      }
      holders.append(Holder(node: fields[1].text, epoch: fields[2].number))
    }
    return holders
  }
}
