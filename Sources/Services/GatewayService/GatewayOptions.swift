public import Reactor
public import Routing
public import Safeguards

/// What a gateway is told when it starts, and its limits.
public struct GatewayOptions: Sendable {
  /// The node's name, unique in the cluster; a second process of the same name takes it from the first.
  public var nodeID: String
  /// Where clients and other nodes reach it, HOST:PORT; empty for the address that it is bound to.
  public var address: String
  /// How long the node's record and its partition live without a renewal; it renews every third of that. Its clients
  /// count as offline when it ends.
  public var lease: Duration = .seconds(10)
  /// How often clients are asked to send a heartbeat.
  public var heartbeatInterval: Duration = .seconds(10)
  /// A stream that was silent for so long is closed with DEADLINE_EXCEEDED.
  public var silenceLimit: Duration = .seconds(30)
  /// How often each session's record is refreshed. A session that another node has taken over is noticed then at the
  /// latest.
  public var refreshInterval: Duration = .seconds(20)
  /// Bytes queued for one client at most; past that a message is dealt with by its policy for slow readers.
  public var maximumQueuedBytes = 1 << 20
  /// Bytes of best-effort messages to tags and to all that wait for the pass before at most; past that they are dropped.
  public var maximumFanOutBytes = 64 << 20
  /// The largest message that a client may send.
  public var maximumClientMessageBytes = 64 << 10
  /// Partitions of `client-push` when the topic has to be made.
  public var partitions = 16
  /// Registrations that are let in.
  public var admission = AdmissionLimits()
  /// Clients that are told to go when the caller of a drain names no rate, and how long it may take.
  public var drainRate = Rate(perSecond: 500)
  public var drainDeadline: Duration = .seconds(60)
  /// What a client is told to wait for before it comes back to a node that ends.
  public var drainRetry: Duration = .seconds(10)
  /// What each channel keeps.
  public var channelRetention = Channels.Retention()
  /// What a test leaves out.
  public var safeguards = Safeguards.all
  /// Entries of the fleet's log that are kept in memory at most, and their bytes; sessions that are further behind read
  /// Redis.
  public var fleetTailEntries = 10_000
  public var fleetTailBytes = 16 << 20

  public init(nodeID: String, address: String = "") {
    self.nodeID = nodeID
    self.address = address
  }
}

/// Limits that nobody sets.
enum GatewayLimits {
  /// Nodes that a message is passed on to, one after the other, while its client moves.
  static let hops = 3
  /// Queued on a call, past which best-effort messages are held back. No less than `Http2Stream.lowWaterBytes`: past that
  /// a call tells when there is room again.
  static let streamLowWaterBytes = 64 << 10
  /// What a client is told to wait for whose stream was closed because it reads too slowly.
  static let slowReaderRetry: Duration = .seconds(5)
  /// Calls that wait for acknowledgements at once; past that they are refused with RESOURCE_EXHAUSTED.
  static let acknowledgementWaits = 10_000
  /// How long a call waits for an acknowledgement when it doesn't say, and at most.
  static let acknowledgementTimeout: Duration = .seconds(10)
  static let maximumAcknowledgementTimeout: Duration = .seconds(60)
  /// Clients whose nodes are remembered; past that those that were not asked for lately are forgotten.
  static let rememberedLocations = 100_000
  /// Message ids of one acknowledgement that are looked at; the rest is ignored.
  static let acknowledgedIDs = 1000
  /// Numbers that clients give their streams are below this.
  static let streamNumbers: Int64 = 1 << 53
  /// Cancelled jobs that are remembered, for records of theirs that come late.
  static let cancelledJobs = 256
  /// Streams that one turn of the loop serves in a fan-out.
  static let streamsPerTurn = 512
  /// Sessions that one sweep refreshes; the next one goes on.
  static let refreshesPerSweep = 2000
  /// How often streams are looked through for silence and for refreshes that are due.
  static let sweepInterval: Duration = .seconds(1)
}

extension GatewayOptions {
  /// Whether a text may name a node.
  public static func isNodeID(_ text: String) -> Bool { Name.isValid(text) }
}
