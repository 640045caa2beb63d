internal import GRPC
internal import Reactor
internal import Routing
internal import Safeguards
internal import Schema
internal import Telemetry

/// What the parts of one gateway share. Belongs to its loop.
final class GatewayNode {
  let options: GatewayOptions
  let loop: EventLoop
  let registry: Registry
  let ledger: JobLedger
  let publisher: Publisher
  let metrics: GatewayMetrics
  let log: Logger
  let streams: ClientStreams
  let reports: LedgerReports
  let lease: NodeLease
  let settlements: InboxSettlements
  let releases: SessionReleases
  let channelFeeds: ChannelFeeds
  private let deadlines: JobDeadlines
  private(set) lazy var drain = NodeDrain(node: self)
  private var admission: Admission
  let acknowledgementWaits: AcknowledgementWaits
  private let inboxes: Inboxes
  private(set) lazy var inboxDelivery = InboxDelivery(node: self, inboxes: inboxes)
  private(set) lazy var fleetDelivery = FleetDelivery(node: self, log: FleetLog(registry))
  private(set) lazy var delivery = Delivery(node: self)
  private var isSweeping = false
  private var isRefreshing = false
  /// How often all sessions were to be vouched for anew.
  private var verifications = 0
  private var isShuttingDown = false

  init(
    options: GatewayOptions, loop: EventLoop, registry: Registry, ledger: JobLedger, publisher: Publisher,
    channelFeeds: ChannelFeeds, metrics: GatewayMetrics, log: Logger
  ) {
    self.options = options
    self.loop = loop
    self.registry = registry
    self.ledger = ledger
    self.publisher = publisher
    self.metrics = metrics
    self.log = log
    streams = ClientStreams(metrics: metrics)
    admission = Admission(options.admission)
    reports = LedgerReports(ledger: ledger, loop: loop, nodeID: options.nodeID, metrics: metrics, log: log)
    lease = NodeLease(registry: registry, options: options, loop: loop, metrics: metrics, log: log)
    releases = SessionReleases(registry: registry, loop: loop, log: log)
    deadlines = JobDeadlines(ledger: ledger, loop: loop, log: log)
    inboxes = Inboxes(registry)
    settlements = InboxSettlements(inboxes: inboxes, reports: reports, loop: loop, metrics: metrics, log: log)
    acknowledgementWaits = AcknowledgementWaits(loop: loop, limit: GatewayLimits.acknowledgementWaits)
    self.channelFeeds = channelFeeds
    lease.clientCount = { [unowned self] in streams.clientCount }
  }

  // MARK: Sessions

  /// A new `Connect` stream.
  func connect(_ call: ServerCall) -> any ServerStreamHandler {
    let stream = ConnectStream(call, node: self)
    streams.add(stream)
    return stream
  }

  /// Asks the registry for a session.
  func register(_ stream: ConnectStream, _ opening: Session.Opening) {
    guard !isShuttingDown, let epoch = lease.epoch else {
      return stream.close(Status(.unavailable, "This node takes no clients at present.", retryAfter: .seconds(1)))
    }
    guard !drain.isUnderWay else {
      metrics.refusedByDrain.increment()
      return drain.refuse(stream)
    }
    if case .comeBack(let delay) = admission.ask(now: loop.now) {
      metrics.refusedByRate.increment()
      // To this node again: its slot is here, and where the others stand nobody has asked.
      return stream.goAway(
        "Too many clients come at once.", retryAfter: delay, gateway: lease.address, reconnectAfter: delay)
    }
    metrics.admitted.increment()
    let registration = SessionRegistration(
      client: opening.client, node: options.nodeID, nodeEpoch: epoch, session: stream.sessionID,
      lastSession: opening.lastSession, peer: stream.peer, tags: opening.tags, stream: opening.stream,
      logID: fleetDelivery.tail.logID, logHead: fleetDelivery.tail.newest)
    loop.spawn { [self] in
      do throws(RoutingError) {
        let answer = try await registry.register(registration)
        guard answer.newerStream == 0 else { return stream.cameLate(newer: answer.newerStream) }
        stream.registered(answer, client: opening.client)
        // Vouched for in an epoch that has ended meanwhile: due at once.
        if lease.epoch != epoch { stream.refreshedAt = 0 }
        await tellPreviousNode(of: opening.client, answer)
      } catch {
        log.warning("client not registered", ["client": opening.client, "error": error.message])
        stream.close(Status(.unavailable, "The session can't be registered now.", retryAfter: .seconds(1)))
      }
    }
  }

  /// Tells the node that held the client before that it has moved. Only a hint: without it that node finds out when it
  /// refreshes the session.
  private func tellPreviousNode(of client: String, _ answer: Registered) async {
    guard !answer.previousNode.isEmpty, answer.previousNode != options.nodeID,
      let nodes = try? await registry.nodes(named: [answer.previousNode]), let node = nodes[answer.previousNode]
    else { return }
    let record = PushRecord(target: .moved(client: client, epoch: answer.epoch))
    publisher.produce(record, to: node) { [log] error in
      if let error { log.debug("previous node not told", ["client": client, "error": error.message]) }
    }
  }

  /// Says that a client is away.
  func release(_ owned: Session.Owned) { releases.add(owned) }

  // MARK: What clients have

  /// Rows of jobs take their step, and inboxes let go what was acknowledged.
  func acknowledged(_ client: String, _ acknowledgement: PushV1.Acknowledgement) {
    reports.acknowledged(client, acknowledgement)
    var settlement = Settlement(client: client, inboxID: "")
    if let position = acknowledgement.position, position.source == InboxDelivery.source, position.seq > 0 {
      guard Name.isValid(position.inboxID) else { return }
      settlement.inboxID = position.inboxID
      settlement.acknowledged = position.seq
    } else {
      settlement.messageIDs = acknowledgement.messageIDs.prefix(GatewayLimits.acknowledgedIDs)
        .filter { isInInbox($0, of: client) }
    }
    guard settlement.acknowledged > 0 || !settlement.messageIDs.isEmpty else { return }
    settlements.add(settlement, reported: acknowledgement.messageIDs.prefix(GatewayLimits.acknowledgedIDs))
  }

  /// Whether an id may be one of the client's inbox: those of jobs name their client, those without a job (`PushToClient`)
  /// are any text. One of the fleet's log is a job's id alone.
  private func isInInbox(_ messageID: String, of client: String) -> Bool {
    guard let id = MessageID(messageID) else { return !messageID.isEmpty }
    return id.client == client
  }

  // MARK: The sweep

  /// Looks every second through the streams, for silence and for sessions whose records are due, and for jobs that are.
  func startSweeping() {
    isSweeping = true
    loop.schedule(after: GatewayLimits.sweepInterval) { [weak self] in
      guard let self, isSweeping else { return }
      sweep()
      startSweeping()
    }
  }

  private func sweep() {
    let now = loop.now
    // A stream that closes leaves the array: so a copy is walked.
    for stream in streams.all { stream.tick(now: now) }
    if options.safeguards.contains(.sweep) {
      refreshDue(now: now)
      fleetDelivery.look(now: now)
    }
    deadlines.look()
  }

  /// Vouches for every session at once, in the node's present epoch, and looks at every inbox: what was to tell of a
  /// message may have been lost.
  func verifyAll() {
    guard options.safeguards.contains(.verification) else { return }
    verifications += 1
    for stream in streams.all { stream.refreshedAt = 0 }
    refreshDue(now: loop.now)
    fleetDelivery.catchUp()
    channelFeeds.lookAtAll()
  }

  private func refreshDue(now: Int64) {
    guard !isRefreshing, let epoch = lease.epoch else { return }
    let limit = now &- options.refreshInterval.nanoseconds
    let due = streams.all.lazy.filter { $0.refreshedAt <= limit && $0.session.epoch != nil }
      .prefix(GatewayLimits.refreshesPerSweep)
    let batch = Array(due)
    guard !batch.isEmpty else { return }
    isRefreshing = true
    let verification = verifications
    loop.spawn { [self] in
      await refresh(batch, nodeEpoch: epoch)
      isRefreshing = false
      let isOvertaken = verification != verifications
      // What was found out before all were to be vouched for anew doesn't count.
      if isOvertaken { for stream in batch { stream.refreshedAt = 0 } }
      // A full batch: there are more that are due.
      if isOvertaken || batch.count == GatewayLimits.refreshesPerSweep { refreshDue(now: loop.now) }
    }
  }

  private func refresh(_ batch: [ConnectStream], nodeEpoch: Int64) async {
    let skew = EventLoop.wallClockMilliseconds() - loop.now / 1_000_000
    let sessions = batch.compactMap { stream -> (ConnectStream, Registry.Refresh)? in
      guard let client = stream.session.client, let epoch = stream.session.epoch else { return nil }
      let lastActive = stream.session.lastHeard / 1_000_000 + skew
      return (stream, Registry.Refresh(client: client, epoch: epoch, lastActive: lastActive))
    }
    let answers = await registry.refresh(sessions.map(\.1), nodeEpoch: nodeEpoch)
    for ((stream, session), answer) in zip(sessions, answers) {
      // The session may have ended, or been renewed, meanwhile.
      guard stream.session.epoch == session.epoch else { continue }
      switch answer {
      case .success(let refreshed):
        switch refreshed.ownership {
        case .held:
          stream.refreshedAt = loop.now
          inboxDelivery.saw(head: refreshed.inbox, of: stream)
          fleetDelivery.settle(stream)
        case .lost: stream.replace()
        case .absent:
          if options.safeguards.contains(.restoring) { await restore(stream, session.client, nodeEpoch) }
        }
      case .failure(let error): log.debug("session not refreshed", ["client": session.client, "error": error.message])
      }
    }
  }

  /// Writes a session's record anew: Redis has lost it.
  private func restore(_ stream: ConnectStream, _ client: String, _ nodeEpoch: Int64) async {
    var registration = SessionRegistration(
      client: client, node: options.nodeID, nodeEpoch: nodeEpoch, session: stream.sessionID,
      lastSession: "", peer: stream.peer, tags: stream.tags, stream: stream.number,
      logID: stream.fleet.logID ?? fleetDelivery.tail.logID,
      logHead: stream.fleet.logID == nil ? fleetDelivery.tail.newest : stream.fleet.done)
    registration.isRestored = true
    guard let answer = try? await registry.register(registration) else { return }
    guard answer.newerStream == 0 else { return stream.replace() }
    stream.renewed(client: client, epoch: answer.epoch)
    // Who writes to the client finds it again; the next look at its inbox is due at once.
    stream.refreshedAt = 0
  }

  // MARK: The end

  /// Tells every client to go elsewhere, closes the streams, and says in the registry that they are away.
  func shutDown(_ reason: String) {
    isShuttingDown = true
    isSweeping = false
    drain.stop()
    for stream in streams.all {
      stream.goAway(
        reason, retryAfter: options.drainRetry, gateway: drain.goal(), reconnectAfter: drain.reconnectDelay())
    }
  }
}
