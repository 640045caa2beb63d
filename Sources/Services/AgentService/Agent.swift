internal import FoundationEssentials
internal import GRPC
public import Reactor
internal import Safeguards
internal import Schema
public import Telemetry

/// An endpoint of the fleet: stays connected to one of its gateways, prints messages, fetches files.
///
/// Belongs to its loop.
///
///     let agent = Agent(loop: loop, options: options, log: log)
///     let signals = try Signals(loop: loop) { _ in agent.stop() }
///     return await agent.run()
public final class Agent {
  /// How long it may take to stop: to write down how far each download is.
  static let stopLimit = Duration.seconds(5)
  /// The session's id is written down at most this often. What was handed over is written down before it is acknowledged.
  static let saveInterval = Duration.seconds(1)
  /// Numbers of streams are below this; a larger one says nothing.
  static let streamNumbers: Int64 = 1 << 53
  /// Message ids that one acknowledgement names at most.
  static let acknowledgedIDs = 1000

  private let loop: EventLoop
  private let options: AgentOptions
  private let log: Logger
  private let arrivals: Arrivals
  private let pool = BlockingPool(threads: Downloads.maximumConcurrent, name: "files")
  private var session: Session
  private var inbox = Inbox()
  private var link: GatewayLink?
  /// Of the newest stream: it grows, also over restarts, as the clock does.
  private var streamNumber: Int64 = 0
  private var timer: LoopTimer?
  private var saveTimer: LoopTimer?
  /// Handed over and not yet acknowledged, and the sources whose positions have moved: the next writing covers them.
  private var handedOver: [String] = []
  private var reached: Set<Inbox.Source> = []
  private var isSaveDue = false
  private var isSaving = false
  private let saved = Wakeup()
  private var directory: AgentDirectory?
  private var downloads: Downloads?
  private let finished = Wakeup()
  private var exitCode: Int32?

  /// - Precondition: `options` names at least one gateway.
  public convenience init(loop: EventLoop, options: AgentOptions, log: Logger) {
    self.init(loop: loop, options: options, log: log, arrivals: Arrivals(asJSON: options.printsJSON))
  }

  /// - Parameter output: takes each line of what arrives, with its newline, in place of standard output.
  public convenience init(
    loop: EventLoop, options: AgentOptions, log: Logger, output: @escaping @Sendable ([UInt8]) -> Void
  ) {
    self.init(loop: loop, options: options, log: log, arrivals: Arrivals(asJSON: options.printsJSON, write: output))
  }

  init(loop: EventLoop, options: AgentOptions, log: Logger, arrivals: Arrivals) {
    self.loop = loop
    self.options = options
    self.log = log.with(["client": options.clientID])
    self.arrivals = arrivals
    session = Session(gatewayCount: options.gateways.count, lastSessionID: nil, seed: 0, now: 0)
  }

  /// Runs until `stop`, or until this agent can't go on.
  ///
  /// - Returns: the exit code: 0 after `stop`, 1 when the directory can't be used, another agent took the client id over,
  ///   or the server refuses the id.
  public func run() async -> Int32 {
    do {
      try await open()
    } catch {
      log.error("the directory can't be used", ["directory": options.directory, "reason": "\(error)"])
      return 1
    }
    if exitCode == nil { perform([]) }
    while exitCode == nil { await finished.wait() }
    await shutDown()
    return exitCode ?? 0
  }

  /// Makes `run` return 0. On the loop.
  public func stop() { finish(0) }

  // MARK: Starting and stopping

  private func open() async throws {
    let options = self.options
    let now = EventLoop.wallClockMilliseconds()
    let (directory, state, records) = try await pool.run {
      let directory = try AgentDirectory(at: options.directory)
      return (directory, directory.loadState(clientID: options.clientID), directory.loadRecords(now: now))
    }
    self.directory = directory
    session = Session(
      gatewayCount: options.gateways.count, lastSessionID: state?.lastSessionID, limits: options.session,
      seed: .random(in: 0 ... .max), now: EventLoop.monotonicNanoseconds())
    var positions: [Inbox.Source: Int64] = [:]
    for position in state?.positions ?? [] {
      positions[Inbox.Source(name: position.source, inboxID: position.inboxID)] = position.seq
    }
    inbox = Inbox(positions: positions, ids: state?.messageIDs ?? [])
    let context = DownloadContext(
      loop: loop, pool: pool, directory: directory, gateways: options.gateways, limits: options.download, log: log)
    context.liveGateway = { [unowned self] in session.liveGateway }
    context.report = { [unowned self] status in send(.fileStatus(status)) }
    context.ended = { [unowned self] record in show(record) }
    let downloads = Downloads(context)
    self.downloads = downloads
    downloads.restore(records)
  }

  private func finish(_ code: Int32) {
    guard exitCode == nil else { return }
    exitCode = code
    finished.fire()
  }

  private func shutDown() async {
    timer?.cancel()
    saveTimer?.cancel()
    link?.close()
    link = nil
    // A disk that hangs must not keep the process: what is on it is good, only the newest offsets may be missing.
    let ended = Wakeup()
    let limit = loop.schedule(after: Self.stopLimit) { [log] in
      log.error("the disk takes too long; leaving without the newest offsets")
      ended.fire()
    }
    loop.spawn {
      await self.downloads?.stop()
      self.save()
      while self.isSaving { await self.saved.wait() }
      ended.fire()
    }
    await ended.wait()
    limit.cancel()
    directory?.unlock()
  }

  // MARK: The session

  private func perform(_ actions: [Session.Action]) {
    for action in actions {
      switch action {
      case .open(let gateway, let attempt, let hello): open(gateway, attempt, hello)
      case .sendHeartbeat: send(.heartbeat(heartbeat))
      case .close(let attempt):
        if link?.attempt == attempt {
          link?.close()
          link = nil
        }
      case .online(let gateway, let sessionID):
        log.info("online", ["gateway": options.gateways[gateway].description, "session": sessionID])
        downloads?.retell()
        saveSoon()
      case .offline(let reason): log.warning("offline", ["reason": reason])
      case .stop(let reason):
        log.error("stopping", ["reason": reason])
        finish(1)
      }
    }
    schedule()
  }

  private func schedule() {
    timer?.cancel()
    guard exitCode == nil, let wake = session.wakeTime else { return }
    let delay = Duration.nanoseconds(max(0, wake - EventLoop.monotonicNanoseconds()))
    timer = loop.schedule(after: delay) { [unowned self] in
      perform(session.timePassed(now: EventLoop.monotonicNanoseconds()))
    }
  }

  private func open(_ gateway: Int, _ attempt: Int, _ hello: Session.Hello) {
    let link = GatewayLink(loop: loop, attempt: attempt, target: options.gateways[gateway])
    self.link = link
    let first = PushV1.ClientMessage(payload: payload(hello))
    loop.spawn {
      var reason = "the gateway ended the stream"
      var isFinal = false
      var retryAfter: Duration?
      do {
        try await link.run(hello: first) { await self.received($0, attempt) }
      } catch {
        let status = Status(error)
        reason = status.description
        isFinal = status.code == .invalidArgument
        retryAfter = status.retryAfter
      }
      guard self.exitCode == nil else { return }
      if self.link === link { self.link = nil }
      self.perform(
        self.session.ended(
          attempt: attempt, reason: reason, isFinal: isFinal, retryAfter: retryAfter,
          now: EventLoop.monotonicNanoseconds()))
    }
  }

  private func payload(_ hello: Session.Hello) -> PushV1.ClientMessage.Payload {
    // What is below these positions doesn't come again.
    let known = options.safeguards.contains(.dedupe) ? inbox.positions : [:]
    let positions = known.map { source, seq in
      PushV1.Position(source: source.name, inboxID: source.inboxID, seq: seq)
    }
    streamNumber = max(streamNumber + 1, EventLoop.wallClockMilliseconds() * 1000)
    switch hello {
    case .register:
      return .register(
        .init(
          clientID: options.clientID, tags: options.tags, acknowledges: true, positions: positions,
          streamNumber: streamNumber))
    case .reconnect(let lastSessionID):
      return .reconnect(
        .init(
          clientID: options.clientID, lastSessionID: lastSessionID, tags: options.tags, acknowledges: true,
          positions: positions, streamNumber: streamNumber))
    }
  }

  private var heartbeat: PushV1.Heartbeat {
    .init(clientID: options.clientID, timestamp: EventLoop.wallClockMilliseconds())
  }

  private func send(_ payload: PushV1.ClientMessage.Payload) {
    guard session.liveGateway != nil else { return }
    link?.send(PushV1.ClientMessage(payload: payload))
  }

  // MARK: What comes

  private func received(_ message: PushV1.ServerMessage, _ attempt: Int) async {
    let now = EventLoop.monotonicNanoseconds()
    session.heard(attempt: attempt, now: now)
    switch message.payload {
    case .registered(let answer):
      let terms = Session.Terms(
        sessionID: answer.sessionID, heartbeatMilliseconds: answer.heartbeatIntervalMs,
        silenceMilliseconds: answer.silenceLimitMs)
      perform(session.registered(attempt: attempt, terms, now: now))
    case .goAway(let notice):
      // This machine's clock is behind the one that the client id was used with before: the next stream counts.
      if notice.newerStream < Self.streamNumbers { streamNumber = max(streamNumber, notice.newerStream) }
      let farewell = Session.Farewell(
        reason: notice.reason, retryAfterMilliseconds: notice.retryAfterMs, isReplaced: notice.replaced,
        reconnectAfterMilliseconds: notice.reconnectAfterMs,
        // Where it goes is the owner's decision, so an address that isn't among the configured ones is not followed.
        gateway: options.gateways.firstIndex { $0.description == notice.gateway })
      perform(session.goAway(attempt: attempt, farewell, now: now))
    case .heartbeat: break
    case .text(let text): take(message) { show(text, message) }
    case .event(let event): take(message) { show(event, message) }
    case .fileNotice(let notice): await take(notice, message)
    case nil: log.debug("a message of an unknown kind", ["message": message.messageID])
    }
  }

  private func label(_ message: PushV1.ServerMessage) -> Inbox.Label {
    Inbox.Label(
      messageID: message.messageID, source: .init(name: message.source, inboxID: message.inboxID),
      seq: message.seq, previous: message.prevSeq)
  }

  private func take(_ message: PushV1.ServerMessage, _ handOver: () -> Void) {
    let isNew = inbox.take(label(message))
    if isNew || !options.safeguards.contains(.dedupe) { handOver() }
    acknowledge(message)
  }

  /// The next message is taken only when this notice is on record, so that no acknowledgement goes past it.
  private func take(_ notice: PushV1.FileNotice, _ message: PushV1.ServerMessage) async {
    let origin = DownloadRecord.Notice(
      jobID: message.jobID, messageID: message.messageID, noticedAt: EventLoop.wallClockMilliseconds())
    do {
      try await downloads?.accept(notice, from: origin)
    } catch {
      log.error("a notice can't be written down; it is to come again", ["file": notice.fileID, "reason": "\(error)"])
      return
    }
    _ = inbox.take(label(message))
    acknowledge(message)
  }

  /// Acknowledges a message that was handed over, when that is written down: after a crash in between it comes again, and
  /// after one that comes later its id is known. Messages that come while one writing is under way share the next one.
  private func acknowledge(_ message: PushV1.ServerMessage) {
    let source = Inbox.Source(name: message.source, inboxID: message.inboxID)
    if message.seq > 0, inbox.positions[source] != nil { reached.insert(source) }
    // Past the limit the positions alone have to do.
    if !message.messageID.isEmpty, handedOver.count < Self.acknowledgedIDs { handedOver.append(message.messageID) }
    if !reached.isEmpty || !handedOver.isEmpty { save() }
  }

  private func show(_ text: PushV1.TextMessage, _ message: PushV1.ServerMessage) {
    var arrival = Arrivals.Arrival("text")
    arrival.content = text.content
    arrival.label(message)
    arrivals.print(arrival)
  }

  private func show(_ event: PushV1.NotifyEvent, _ message: PushV1.ServerMessage) {
    var arrival = Arrivals.Arrival("event")
    arrival.type = event.type
    arrival.details = event.details
    arrival.label(message)
    arrivals.print(arrival)
  }

  private func show(_ record: DownloadRecord) {
    guard let ending = record.ending else { return }
    var arrival = Arrivals.Arrival(ending.error.isEmpty ? "file" : "failed")
    arrival.name = record.name
    arrival.size = record.size
    arrival.jobID = record.notices.last?.jobID
    arrival.messageID = record.notices.last?.messageID
    arrival.durationMilliseconds = record.notices.last.map { ending.endedAt - $0.noticedAt }
    if ending.error.isEmpty { arrival.path = ending.path } else { arrival.error = ending.error }
    if !ending.md5.isEmpty { arrival.md5 = ending.md5 }
    arrivals.print(arrival)
  }

  // MARK: State

  private func saveSoon() {
    guard saveTimer == nil else { return }
    saveTimer = loop.schedule(after: Self.saveInterval) { [unowned self] in
      saveTimer = nil
      save()
    }
  }

  /// Writes the state down, one time after the other, and then acknowledges what it covers.
  private func save() {
    isSaveDue = true
    guard !isSaving else { return }
    isSaving = true
    loop.spawn {
      while self.isSaveDue { await self.saveState() }
      self.isSaving = false
      self.saved.fire()
    }
  }

  private func saveState() async {
    isSaveDue = false
    guard let directory else { return }
    let (ids, sources) = (handedOver, reached)
    (handedOver, reached) = ([], [])
    var state = AgentState(clientID: options.clientID, lastSessionID: session.lastSessionID)
    for (source, seq) in inbox.positions {
      state.positions.append(.init(source: source.name, inboxID: source.inboxID, seq: seq))
    }
    state.positions.sort { ($0.source, $0.inboxID) < ($1.source, $1.inboxID) }
    state.messageIDs = inbox.newestIDs
    let snapshot = state
    do { try await pool.run { try directory.save(snapshot) } } catch {
      // What is not acknowledged comes again.
      return log.warning("the session can't be written down", ["reason": "\(error)"])
    }
    var acks = snapshot.positions.filter { sources.contains(.init(name: $0.source, inboxID: $0.inboxID)) }.map {
      PushV1.Acknowledgement(position: .init(source: $0.source, inboxID: $0.inboxID, seq: $0.seq))
    }
    if acks.isEmpty, !ids.isEmpty { acks.append(PushV1.Acknowledgement()) }
    if !acks.isEmpty { acks[0].messageIDs = ids }
    for ack in acks { send(.ack(ack)) }
  }
}

extension Arrivals.Arrival {
  mutating func label(_ message: PushV1.ServerMessage) {
    if !message.messageID.isEmpty { messageID = message.messageID }
    if !message.jobID.isEmpty { jobID = message.jobID }
    if message.redelivered { redelivered = true }
  }
}
