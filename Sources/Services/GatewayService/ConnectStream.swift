internal import Bytes
internal import GRPC
internal import Protobuf
internal import Reactor
internal import Routing
internal import Schema
internal import Telemetry

/// One client's `Connect` stream: carries out what its `Session` decides. Belongs to the node's loop; lives as long as
/// its call.
final class ConnectStream: ServerStreamHandler {
  let call: ServerCall
  unowned let node: GatewayNode
  private(set) var session: Session
  /// A fresh name, once the client has asked for a session.
  private(set) var sessionID = ""
  /// What the client said it is.
  private(set) var tags: [String: String] = [:]
  /// The number that the client has given this stream; 0 for none.
  private(set) var number: Int64 = 0
  /// When the registry heard of this session last, monotonic ns.
  var refreshedAt: Int64 = 0
  /// How far the session is with its client's inbox; kept by `InboxDelivery`, as is whether that reads at present.
  var cursor = InboxCursor()
  var isReadingInbox = false
  /// The same for the fleet's log; kept by `FleetDelivery`.
  var fleet = FleetCursor()
  var isReadingLog = false
  /// The reading of the log that has to come before this session is served.
  var awaitedRead = 0
  private var statedInLog: [InboxPosition] = []
  /// Best-effort messages that wait for room in the call.
  var backlog = Backlog()
  /// Where it stands among the streams; kept by `ClientStreams`.
  var position = -1

  init(_ call: ServerCall, node: GatewayNode) {
    self.call = call
    self.node = node
    session = Session(now: node.loop.now)
  }

  var peer: String { call.context.peer?.description ?? "" }

  // MARK: What the call tells

  func received(_ message: Bytes) {
    guard message.count <= node.options.maximumClientMessageBytes else {
      let limit = node.options.maximumClientMessageBytes
      return close(Status(.resourceExhausted, "A message of a client has at most \(limit) bytes."))
    }
    do throws(ProtobufError) {
      perform(session.received(try PushV1.ClientMessage(serialized: message), now: node.loop.now))
    } catch {
      close(Status(.invalidArgument, "The message is no ClientMessage: \(error.message)."))
    }
  }

  /// The client says that it is done; so is the session.
  func requestsEnded() { close(.ok) }

  func writable() {
    feed()
    node.inboxDelivery.catchUp(self)
    node.fleetDelivery.serve(self)
  }

  func closed() {
    perform(session.ended())
    node.streams.remove(self)
  }

  // MARK: What the node tells

  func close(_ status: Status) { perform(session.close(status)) }

  func registered(_ answer: Registered, client: String) {
    fleet = FleetCursor(stored: answer.cursor, stated: statedInLog)
    perform(session.registered(client: client, epoch: answer.epoch, resumed: answer.resumed))
  }

  func renewed(client: String, epoch: Int64) { perform(session.renewed(client: client, epoch: epoch)) }

  func tick(now: Int64) {
    // A session that found no room goes on, also where nothing says that there is room again.
    if !backlog.isEmpty { feed() }
    if cursor.phase == .behind { node.inboxDelivery.catchUp(self) }
    node.fleetDelivery.serve(self)
    let action = session.tick(now: now, silenceLimit: node.options.silenceLimit)
    guard action != .none else { return }
    node.metrics.silent.increment()
    perform(action)
  }

  /// Tells the client that another session of its own has taken its place.
  func replace() {
    guard session.state != .closed else { return }
    node.metrics.replaced.increment()
    sayGoodbye(PushV1.GoAway(reason: "The client has connected again.", replaced: true))
    // The record is another session's, but the place in this node's table is still this one's.
    node.streams.close(self, client: session.client)
    perform(session.replaced())
  }

  /// The client has been registered with a later stream, before this node came to read the hello of this one.
  func cameLate(newer: Int64) {
    guard session.state != .closed else { return }
    let reason = "A later stream of this client has registered."
    // Whoever still reads this stream counts from another clock, and shall come again at once.
    sayGoodbye(PushV1.GoAway(reason: reason, retryAfterMs: 1, newerStream: newer))
    close(Status(.aborted, reason))
  }

  /// Tells the client to go, and closes the stream behind that.
  ///
  /// - Parameters:
  ///   - retryAfter: how long this node is to be left alone.
  ///   - gateway: where to connect, HOST:PORT; empty for any other one.
  ///   - reconnectAfter: how long to wait before that. Those who know no go-away find it in the status.
  func goAway(_ reason: String, retryAfter: Duration, gateway: String, reconnectAfter: Duration) {
    guard session.state != .closed else { return }
    sayGoodbye(
      PushV1.GoAway(
        reason: reason, retryAfterMs: retryAfter.wholeMilliseconds, gateway: gateway,
        reconnectAfterMs: reconnectAfter.wholeMilliseconds))
    close(Status(.unavailable, reason, retryAfter: reconnectAfter))
  }

  func sayGoodbye(_ farewell: PushV1.GoAway) {
    call.send(EncodedMessage(PushV1.ServerMessage(payload: .goAway(farewell))))
  }

  // MARK: What the session decides

  private func perform(_ action: Session.Action) {
    switch action {
    case .none: break
    case .register(let opening):
      sessionID = Name.random()
      tags = opening.tags
      number = opening.stream
      cursor = InboxCursor(stated: opening.positions)
      statedInLog = opening.logPositions
      node.register(self, opening)
    case .welcome(let welcome): self.welcome(welcome)
    case .answerHeartbeat(let timestamp): answerHeartbeat(timestamp)
    case .acknowledge(let client, let acknowledgement):
      node.acknowledgementWaits.acknowledged(self, acknowledgement.messageIDs)
      node.acknowledged(client, acknowledgement)
      node.fleetDelivery.acknowledged(self, acknowledgement)
    case .report(let client, let status): node.reports.fileStatus(client, status)
    case .close(let status, let owned):
      node.streams.close(self, client: owned?.client)
      if let owned { node.release(owned) }
      leave()
      call.finish(status)
    case .release(let owned):
      node.streams.close(self, client: owned.client)
      node.release(owned)
      leave()
    }
  }

  /// The session is over: nobody waits for it any more.
  private func leave() {
    node.acknowledgementWaits.ended(self)
    dropBacklog()
  }

  private func welcome(_ welcome: Session.Welcome) {
    refreshedAt = node.loop.now
    guard node.streams.open(self, client: welcome.client, epoch: welcome.epoch) else { return replace() }
    node.metrics.registrations.increment()
    let answer = PushV1.Registered(
      sessionID: sessionID, nodeID: node.options.nodeID,
      heartbeatIntervalMs: node.options.heartbeatInterval.wholeMilliseconds,
      silenceLimitMs: node.options.silenceLimit.wholeMilliseconds, resumed: welcome.resumed)
    call.send(EncodedMessage(PushV1.ServerMessage(payload: .registered(answer))))
    // The registry has this session by now: who appends to the inbox later finds it, what was appended before is read.
    node.inboxDelivery.catchUp(self)
    node.fleetDelivery.opened(self)
  }

  private func answerHeartbeat(_ timestamp: Int64) {
    let answer = PushV1.HeartbeatReply(timestamp: timestamp, serverTimeMs: EventLoop.wallClockMilliseconds())
    let message = EncodedMessage(PushV1.ServerMessage(payload: .heartbeat(answer)))
    // Who doesn't read needs no sign of life, and could have any number of them queued.
    guard hasRoom(for: message.count) else { return }
    call.send(message)
  }
}
