public import Bytes
internal import Protobuf
internal import Schema

/// A record of the topics `client-push` and `client-broadcast`: a message on its way to the node that holds its client.
///
/// The message is encoded once, by the publisher; nodes pass its bytes on without a look inside.
public struct PushRecord: Equatable, Sendable {
  public enum Target: Equatable, Sendable {
    /// One client of the node that the record is for.
    case client(String)
    /// Every client of every node that has the tags.
    case all(tags: [String: String])
    /// The subscribers of a channel.
    case channel(String)
    /// No message: the client has a session of this epoch elsewhere, older ones are over.
    case moved(client: String, epoch: Int64)
    /// No message: nothing more of this job is to be delivered.
    case cancelled(job: String)
  }

  public var target: Target
  public var messageID: String
  /// A `push.v1.ServerMessage`.
  public var message: Bytes
  /// Empty without a job.
  public var jobID: String
  /// Whether the message is kept until the client has acknowledged it.
  public var isAtLeastOnce: Bool
  /// When the message stops being worth delivering, ms since the epoch; 0 for never.
  public var expiresAt: Int64
  /// How often it was passed on to another node.
  public var hops: Int
  /// Where the message stands in the client's inbox, or in the fleet's log; the record is then a hint. nil for best
  /// effort, and before it is kept.
  public var place: InboxPlace?
  /// Of a channel's frame.
  public var frameKey: FrameKey?
  /// What becomes of the message when too much is queued for its client.
  public var slowReader = SlowReader.byDefault
  /// How the record travels from here; no part of what is encoded.
  public var route = Route.kafka

  public init(
    target: Target, messageID: String = "", message: Bytes = Bytes(), jobID: String = "", isAtLeastOnce: Bool = false,
    expiresAt: Int64 = 0, hops: Int = 0, place: InboxPlace? = nil
  ) {
    self.target = target
    self.messageID = messageID
    self.message = message
    self.jobID = jobID
    self.isAtLeastOnce = isAtLeastOnce
    self.expiresAt = expiresAt
    self.hops = hops
    self.place = place
  }
}

/// How records travel to the node that holds their client.
public enum Route: Equatable, Sendable {
  case kafka
  /// By a call to the node itself.
  case direct
}

/// What becomes of a message when too much is queued for its client. The numbers are those of `push.v1.SlowReader`.
public enum SlowReader: Int32, Equatable, Sendable {
  /// `wait` for what is kept, else `dropOldest`.
  case byDefault = 0
  /// It waits in the inbox.
  case wait = 1
  /// The oldest best-effort messages that are queued for the client are dropped.
  case dropOldest = 2
  /// The stream ends, and the client is told when to come back.
  case disconnect = 3
}

extension PushRecord {
  /// The header of a record on `client-push` that names the node it is for.
  public static let nodeHeader = "node"

  /// Reads a record's value. The message shares its memory.
  ///
  /// - Throws: `.corrupt` for bytes that are no record, or one without a target.
  public init(encoded bytes: Bytes) throws(RoutingError) {
    let wire: InternalV1.PushRecord
    do throws(ProtobufError) {
      wire = try InternalV1.PushRecord(serialized: bytes)
    } catch {
      throw RoutingError(.corrupt, "The record is no PushRecord: \(error.message).")
    }
    let target: Target
    switch wire.target {
    case .clientID(let id): target = .client(id)
    case .all: target = .all(tags: wire.tags)
    case .channel(let name): target = .channel(name)
    case .movedClientID(let id): target = .moved(client: id, epoch: wire.sessionEpoch)
    case .cancelledJobID(let id): target = .cancelled(job: id)
    case nil: throw RoutingError(.corrupt, "The record has no target.")
    }
    self.init(
      target: target, messageID: wire.messageID, message: wire.serverMessage, jobID: wire.jobID,
      isAtLeastOnce: wire.qos > 0, expiresAt: wire.expiresAtMs, hops: Int(wire.hops),
      place: wire.seq > 0 ? InboxPlace(inboxID: wire.inboxID, seq: wire.seq, previous: wire.prevSeq) : nil)
    slowReader = SlowReader(rawValue: wire.slowReader) ?? .byDefault
    frameKey = wire.frameKey.isEmpty ? nil : FrameKey(encoded: wire.frameKey)
  }

  public func encoded() -> Bytes {
    var wire = InternalV1.PushRecord(
      messageID: messageID, serverMessage: message, jobID: jobID, qos: isAtLeastOnce ? 1 : 0, expiresAtMs: expiresAt,
      hops: Int32(clamping: hops), slowReader: slowReader.rawValue)
    if let place { (wire.inboxID, wire.seq, wire.prevSeq) = (place.inboxID, place.seq, place.previous) }
    if let frameKey { wire.frameKey = frameKey.encoded }
    switch target {
    case .client(let id): wire.target = .clientID(id)
    case .all(let tags):
      wire.target = .all(true)
      wire.tags = tags
    case .channel(let name): wire.target = .channel(name)
    case .moved(let client, let epoch):
      wire.target = .movedClientID(client)
      wire.sessionEpoch = epoch
    case .cancelled(let job): wire.target = .cancelledJobID(job)
    }
    return wire.serialized()
  }
}

extension PushRecord {
  /// Tells every node of a frame that its channel keeps.
  public init(channel: String, place: StoredPlace, frame: Bytes) {
    self.init(
      target: .channel(channel), messageID: place.key.id, message: frame,
      place: InboxPlace(inboxID: place.epoch, seq: place.ordinal, previous: place.previous))
    frameKey = place.key
  }

  /// Where the frame of a channel stands; nil for another record.
  public var storedPlace: StoredPlace? {
    guard let place, let frameKey else { return nil }
    return StoredPlace(epoch: place.inboxID, ordinal: place.seq, previous: place.previous, key: frameKey)
  }
}
