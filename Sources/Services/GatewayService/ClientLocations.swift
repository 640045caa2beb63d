internal import Routing

/// The nodes that held clients when this node looked last: what saves asking the registry, and is dropped at a miss.
///
/// A value without I/O. Entries are kept in two generations: when the younger one is full the older one goes, so an entry
/// that is used stays, and room is bounded.
struct ClientLocations {
  private let generationLimit: Int
  private var young: [String: NodeRecord] = [:]
  private var old: [String: NodeRecord] = [:]

  /// - Parameter limit: clients that are remembered at most.
  init(limit: Int) { generationLimit = max(1, limit / 2) }

  var count: Int { young.count + old.count }

  /// Where the client was; one that is asked for counts as used.
  mutating func find(_ client: String) -> NodeRecord? {
    if let node = young[client] { return node }
    guard let node = old.removeValue(forKey: client) else { return nil }
    insert(client, node)
    return node
  }

  mutating func insert(_ client: String, _ node: NodeRecord) {
    old[client] = nil
    if young.count >= generationLimit, young[client] == nil { (old, young) = (young, [:]) }
    young[client] = node
  }

  mutating func remove(_ client: String) {
    young[client] = nil
    old[client] = nil
  }
}
