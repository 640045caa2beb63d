internal import Redis

/// A client as its record says.
public struct ClientRecord: Equatable, Sendable {
  public var id: String
  /// The node that holds it; empty when it is away.
  public var node: String
  /// The epoch of the node when it last vouched for the session.
  public var nodeEpoch: Int64
  public var session: String
  /// Grows with each takeover.
  public var epoch: Int64
  public var tags: [String: String]
  /// Where it came from.
  public var peer: String
  /// ms since the epoch.
  public var connectedAt: Int64
  /// ms since the epoch; flushed in batches.
  public var lastActive: Int64

  /// nil for an empty hash: there is no record.
  init?(id: String, _ fields: [(name: String, value: RedisValue)]) {
    guard !fields.isEmpty else { return nil }
    self.init(
      id: id, node: "", nodeEpoch: 0, session: "", epoch: 0, tags: [:], peer: "", connectedAt: 0, lastActive: 0)
    for (name, value) in fields {
      switch name {
      case "node": node = value.text
      case "node_epoch": nodeEpoch = value.number
      case "session": session = value.text
      case "epoch": epoch = value.number
      case "peer": peer = value.text
      case "connected_at": connectedAt = value.number
      case "last_active": lastActive = value.number
      default:
        if name.hasPrefix("tag:") { tags[String(name.dropFirst(4))] = value.text }
      }
    }
  }

  init(
    id: String, node: String, nodeEpoch: Int64, session: String, epoch: Int64, tags: [String: String], peer: String,
    connectedAt: Int64, lastActive: Int64
  ) {
    self.id = id
    self.node = node
    self.nodeEpoch = nodeEpoch
    self.session = session
    self.epoch = epoch
    self.tags = tags
    self.peer = peer
    self.connectedAt = connectedAt
    self.lastActive = lastActive
  }

  /// Whether the record names this living node, in its present epoch: one that let its lease lapse vouches for its
  /// sessions anew.
  public func isHeld(by node: NodeRecord?) -> Bool {
    guard let node else { return false }
    return node.id == self.node && node.epoch == nodeEpoch
  }
}

/// A gateway that holds a lease, as its record says.
public struct NodeRecord: Equatable, Sendable {
  public var id: String
  /// Where other nodes and clients reach it, HOST:PORT.
  public var address: String
  /// Its partition of `client-push`.
  public var partition: Int32
  /// New with each start, and after each lapsed lease.
  public var epoch: Int64
  public var clientCount: Int64
  /// ms since the epoch.
  public var startedAt: Int64
  /// ms.
  public var leaseLeft: Int64
  /// It takes no new clients.
  public var isDraining = false

  /// nil for an empty hash: the lease has ended.
  init?(id: String, _ fields: [(name: String, value: RedisValue)], leaseLeft: Int64) {
    guard !fields.isEmpty else { return nil }
    self.id = id
    (address, partition, epoch, clientCount, startedAt) = ("", 0, 0, 0, 0)
    self.leaseLeft = max(0, leaseLeft)
    for (name, value) in fields {
      switch name {
      case "address": address = value.text
      case "partition": partition = Int32(clamping: value.number)
      case "epoch": epoch = value.number
      case "clients": clientCount = value.number
      case "started_at": startedAt = value.number
      case "draining": isDraining = value.number == 1
      default: break
      }
    }
  }
}

/// What a session tells the registry when it begins.
public struct SessionRegistration: Sendable {
  public var client: String
  public var node: String
  public var nodeEpoch: Int64
  /// A fresh name.
  public var session: String
  /// The session that the client had before, as it says; "" for none.
  public var lastSession: String
  public var peer: String
  public var tags: [String: String]
  /// The number of the client's stream; 0 where the client doesn't say.
  public var stream: Int64
  /// The fleet's log and its newest seq as the node knows them from before this: where a client begins that has no cursor.
  public var logID: String
  public var logHead: Int64
  /// Whether this writes down again what Redis has lost: it takes nothing from another session.
  public var isRestored = false

  public init(
    client: String, node: String, nodeEpoch: Int64, session: String, lastSession: String, peer: String,
    tags: [String: String], stream: Int64 = 0, logID: String = "", logHead: Int64 = 0
  ) {
    self.client = client
    self.node = node
    self.nodeEpoch = nodeEpoch
    self.session = session
    self.lastSession = lastSession
    self.peer = peer
    self.tags = tags
    self.stream = stream
    self.logID = logID
    self.logHead = logHead
  }
}

/// What the registry says to that.
public struct Registered: Equatable, Sendable {
  public var epoch: Int64
  /// The node that the record named before; empty for none.
  public var previousNode: String
  /// The session epoch before; 0 for none.
  public var previousEpoch: Int64
  /// The client's last session was the record's.
  public var resumed: Bool
  /// Not 0 when nothing was registered, because a stream of this higher number has been.
  public var newerStream: Int64 = 0
  /// How far the client is in the fleet's log.
  public var cursor = FleetPosition()
}

/// What became of a write that only the owner may make.
public enum Ownership: Equatable, Sendable {
  case held
  /// Someone with another epoch owns the record; nothing was written.
  case lost
  /// There is no record: it expired, or Redis lost it.
  case absent

  init(_ answer: Int64) {
    self = answer == 1 ? .held : answer == 0 ? .lost : .absent
  }
}

/// Where a client is.
public enum Location: Equatable, Sendable {
  /// No record: never seen, or not for a week.
  case unknown
  /// Known, and connected to no living node.
  case offline
  case online(ClientRecord, NodeRecord)
}

extension [String: String] {
  /// Whether a client with these tags has all that a selector names.
  public func matches(_ selector: [String: String]) -> Bool {
    selector.allSatisfy { self[$0.key] == $0.value }
  }
}
