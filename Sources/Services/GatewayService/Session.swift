internal import GRPC
internal import Reactor
internal import Routing
internal import Schema

/// The state of one `Connect` stream.
///
///     waiting ── register, reconnect ──► registering ── registered ──► open
///        │                                   │                          │
///        └────────── refusal, silence, replacement, end ────────────────┴──► closed
///
/// | in           | waiting          | registering            | open                   |
/// |--------------|------------------|------------------------|------------------------|
/// | register     | ask the registry | FAILED_PRECONDITION    | FAILED_PRECONDITION    |
/// | heartbeat    | INVALID_ARGUMENT | answer                 | answer                 |
/// | ack, status  | INVALID_ARGUMENT | report                 | report                 |
/// | unknown      | INVALID_ARGUMENT | nothing                | nothing                |
/// | registered   |                  | welcome                |                        |
/// | silence      | close            | close                  | close                  |
/// | end          |                  |                        | release the record     |
///
/// A value without I/O: messages, answers and the time go in, actions come out. A registration that is answered after the
/// stream has closed owns a record, which has to be released; so does one that restores a lost record.
struct Session {
  enum State: Equatable {
    case waiting
    case registering(client: String)
    case open(client: String, epoch: Int64)
    case closed
  }

  enum Action: Equatable {
    case none
    case register(Opening)
    case welcome(Welcome)
    case answerHeartbeat(timestamp: Int64)
    case acknowledge(client: String, PushV1.Acknowledgement)
    case report(client: String, PushV1.FileStatus)
    /// Close the stream with this status; `release` names the record that the session owned.
    case close(Status, release: Owned?)
    /// The stream is gone already.
    case release(Owned)
  }

  /// What the first message asks for.
  struct Opening: Equatable {
    var client: String
    var lastSession: String
    var tags: [String: String]
    /// Where the client says that it stands in inboxes.
    var positions: [InboxPosition] = []
    /// The number that the client gives its stream; 0 for none.
    var stream: Int64 = 0
    /// Where it says that it stands in the fleet's log.
    var logPositions: [InboxPosition] = []
  }

  struct Welcome: Equatable {
    var client: String
    var epoch: Int64
    var resumed: Bool
  }

  /// A record and the epoch in which it was owned.
  struct Owned: Equatable {
    var client: String
    var epoch: Int64
  }

  private(set) var state = State.waiting
  /// When something came last, monotonic ns.
  private(set) var lastHeard: Int64
  /// Whether the client acknowledges; one that doesn't counts as having what was written to it.
  private(set) var acknowledges = false

  init(now: Int64) { lastHeard = now }

  var client: String? {
    switch state {
    case .registering(let client), .open(let client, _): client
    case .waiting, .closed: nil
    }
  }

  /// The registry has been asked and hasn't answered yet.
  var isRegistering: Bool {
    if case .registering = state { true } else { false }
  }

  var epoch: Int64? {
    if case .open(_, let epoch) = state { epoch } else { nil }
  }

  mutating func received(_ message: PushV1.ClientMessage, now: Int64) -> Action {
    guard state != .closed else { return .none }
    lastHeard = now
    switch message.payload {
    case .register(let request):
      return open(
        request.clientID, lastSession: "", request.tags, request.acknowledges, request.positions, request.streamNumber)
    case .reconnect(let request):
      return open(
        request.clientID, lastSession: request.lastSessionID, request.tags, request.acknowledges, request.positions,
        request.streamNumber)
    case .heartbeat, .ack, .fileStatus, nil: return later(message)
    }
  }

  private mutating func open(
    _ client: String, lastSession: String, _ tags: [String: String], _ acknowledges: Bool,
    _ positions: [PushV1.Position], _ stream: Int64
  ) -> Action {
    guard state == .waiting else {
      return close(Status(.failedPrecondition, "This stream has registered already; one stream is one session."))
    }
    do throws(RoutingError) {
      try Name.validate(client, as: "client id")
      try Registry.validate(tags: tags)
    } catch {
      return close(Status(.invalidArgument, error.message))
    }
    self.acknowledges = acknowledges
    state = .registering(client: client)
    // A session id of ours is short; anything else can't be one.
    let last = Name.isValid(lastSession) ? lastSession : ""
    // Beyond what Lua's numbers hold, it says nothing.
    let number = (1..<GatewayLimits.streamNumbers).contains(stream) ? stream : 0
    return .register(
      Opening(
        client: client, lastSession: last, tags: tags,
        positions: Session.positions(positions, in: InboxDelivery.source), stream: number,
        logPositions: Session.positions(positions, in: FleetLog.source)))
  }

  private static func positions(_ stated: [PushV1.Position], in source: String) -> [InboxPosition] {
    stated.lazy.filter { $0.source == source && Name.isValid($0.inboxID) && $0.seq > 0 }
      .prefix(Inboxes.maximumPositions).map { InboxPosition(inboxID: $0.inboxID, seq: $0.seq) }
  }

  private mutating func later(_ message: PushV1.ClientMessage) -> Action {
    guard let client else {
      return close(Status(.invalidArgument, "The first message has to be register or reconnect."))
    }
    switch message.payload {
    case .heartbeat(let heartbeat):
      guard heartbeat.clientID.isEmpty || heartbeat.clientID == client else {
        return close(Status(.invalidArgument, "The heartbeat names another client than this stream's."))
      }
      return .answerHeartbeat(timestamp: heartbeat.timestamp)
    case .ack(let acknowledgement): return .acknowledge(client: client, acknowledgement)
    case .fileStatus(let status): return .report(client: client, status)
    // A payload of a newer schema.
    case .register, .reconnect, nil: return .none
    }
  }

  /// The registry has made this session the owner of its client's record.
  mutating func registered(client: String, epoch: Int64, resumed: Bool) -> Action {
    guard state == .registering(client: client) else {
      return .release(Owned(client: client, epoch: epoch))
    }
    state = .open(client: client, epoch: epoch)
    return .welcome(Welcome(client: client, epoch: epoch, resumed: resumed))
  }

  /// The record was lost and has been written anew, in a new epoch.
  mutating func renewed(client: String, epoch: Int64) -> Action {
    guard state != .closed else { return .release(Owned(client: client, epoch: epoch)) }
    guard case .open(client, let old) = state, epoch > old else { return .none }
    state = .open(client: client, epoch: epoch)
    return .none
  }

  /// Looks at the time.
  mutating func tick(now: Int64, silenceLimit: Duration) -> Action {
    guard state != .closed, now &- lastHeard >= silenceLimit.nanoseconds else { return .none }
    return close(Status(.deadlineExceeded, "The stream was silent for \(silenceLimit)."))
  }

  /// Closes the stream for a reason of the node's.
  mutating func close(_ status: Status) -> Action {
    guard state != .closed else { return .none }
    let owned = self.owned
    state = .closed
    return .close(status, release: owned)
  }

  /// Another session owns the record: there is nothing to release.
  mutating func replaced() -> Action {
    guard state != .closed else { return .none }
    state = .closed
    return .close(Status(.aborted, "This client has another session; this one is over."), release: nil)
  }

  /// The stream is gone.
  mutating func ended() -> Action {
    defer { state = .closed }
    return owned.map { .release($0) } ?? .none
  }

  private var owned: Owned? {
    if case .open(let client, let epoch) = state { Owned(client: client, epoch: epoch) } else { nil }
  }
}
