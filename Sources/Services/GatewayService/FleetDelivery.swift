internal import Bytes
internal import GRPC
internal import Reactor
internal import Routing
internal import Schema
internal import Telemetry

/// Brings the fleet's log to the sessions of this node. Belongs to its loop.
///
/// A record on `client-broadcast` is a hint: what follows the newest entry that is known is taken into `FleetTail`, anything
/// else has the log read. Streams are served by their place in the log, a slice of them per turn, while there is room.
final class FleetDelivery {
  /// Before a log that could not be read is read again.
  static let retryDelay: Duration = .seconds(1)

  unowned let node: GatewayNode
  let log: FleetLog
  let pageReads = Turnstile(places: readsAtOnce)
  let tail: FleetTail
  private var isReading = false
  private var isReadDue = false
  private var reads = 0
  private var readsDone = 0
  private var lookedAt: Int64 = 0
  private var isLooking = false
  private lazy var pass = SlicedPass(
    loop: node.loop, slice: GatewayLimits.streamsPerTurn, over: { [unowned node] in node.streams.all },
    visit: { [unowned self] in serve($0) })

  init(node: GatewayNode, log: FleetLog) {
    self.node = node
    self.log = log
    tail = FleetTail(maximumEntries: node.options.fleetTailEntries, maximumBytes: node.options.fleetTailBytes)
  }

  // MARK: The log

  /// Reads the newest part of the log, before the node lets clients in.
  func load() async throws(RoutingError) {
    // Hints come already; one that tells of more has the log read behind this.
    isReading = true
    defer {
      isReading = false
      if isReadDue { catchUp() }
    }
    try await read()
    lookedAt = node.loop.now
  }

  /// A hint has come.
  ///
  /// - Parameter isCancelled: its job was cancelled before: the hint is late.
  func received(_ record: PushRecord, at place: InboxPlace, isCancelled: Bool) {
    guard place.inboxID != tail.logID || place.seq > tail.head else { return }
    guard place.inboxID == tail.logID, place.previous == tail.head else { return catchUp() }
    tail.append(place.seq, record)
    if isCancelled { tail.withdraw(record.jobID) }
    pass.run()
  }

  /// Nothing more of a job is to be delivered.
  func cancelled(_ job: String) { tail.withdraw(job) }

  /// Looks, every so often, whether a hint was lost.
  func look(now: Int64) {
    guard !isLooking, now &- lookedAt >= node.options.refreshInterval.nanoseconds else { return }
    lookedAt = now
    isLooking = true
    node.loop.spawn { [self] in
      if let head = try? await log.head(), isBehind(head) {
        node.metrics.fleetLogRepairs.increment()
        catchUp()
      }
      isLooking = false
    }
  }

  private func isBehind(_ head: FleetLog.Head) -> Bool {
    !head.logID.isEmpty && (head.logID != tail.logID || head.seq > tail.head || head.withdrawn != tail.withdrawn)
  }

  /// Reads what the log has above what is known.
  func catchUp() {
    isReadDue = true
    guard !isReading else { return }
    isReading = true
    node.loop.spawn { [self] in
      while isReadDue {
        isReadDue = false
        do throws(RoutingError) { try await read() } catch {
          node.log.warning("the fleet's log not read", ["error": error.message])
          isReadDue = true
          try? await node.loop.sleep(for: FleetDelivery.retryDelay)
        }
      }
      isReading = false
    }
  }

  private func read() async throws(RoutingError) {
    reads += 1
    let number = reads
    let head = try await log.head()
    if !head.logID.isEmpty, head.logID != tail.logID || head.withdrawn != tail.withdrawn {
      let (head, start) = try await log.findTail(
        entries: node.options.fleetTailEntries, bytes: node.options.fleetTailBytes)
      tail.reset(head.logID, after: start, newest: head.seq, withdrawn: head.withdrawn)
    }
    while !tail.logID.isEmpty {
      let page = try await log.read(after: tail.head)
      // Another life of the log, which the next read finds.
      guard page.head.logID == tail.logID else { break }
      for (seq, record) in page.entries { tail.append(seq, record) }
      tail.advance(to: page.end)
      if page.isComplete { break }
    }
    readsDone = max(readsDone, number)
    pass.run()
  }

  // MARK: Sessions

  /// A session has begun.
  func opened(_ stream: ConnectStream) {
    let stored = stream.fleet.storedLogID
    if !stored.isEmpty, stored != tail.logID {
      // The cursor knows another log than this node: one of them is of an earlier life.
      stream.awaitedRead = reads + 1
      catchUp()
    }
    serve(stream)
  }

  /// Writes what the log has for a client above its place, while there is room.
  func serve(_ stream: ConnectStream) {
    guard !tail.logID.isEmpty, !stream.isReadingLog, stream.awaitedRead <= readsDone,
      stream.session.epoch != nil
    else { return }
    if stream.fleet.logID != tail.logID { stream.fleet.begin(tail.logID, newest: tail.newest) }
    guard stream.fleet.covered < tail.head else { return }
    if stream.fleet.covered < max(tail.floor, stream.fleet.judged) { return readPages(for: stream) }
    let now = EventLoop.wallClockMilliseconds()
    for entry in tail.entries(after: stream.fleet.covered) {
      guard give(entry, to: stream, isMember: stream.tags.matches(entry.tags), now: now) else { return }
    }
    stream.fleet.passed(tail.head)
  }

  /// - Returns: whether the stream can be given the next entry.
  func give(_ entry: FleetEntry, to stream: ConnectStream, isMember: Bool, now: Int64) -> Bool {
    guard isMember, !entry.isWithdrawn, !entry.isExpired(at: now), let client = stream.session.client else {
      stream.fleet.passed(entry.seq)
      return stream.session.epoch != nil
    }
    switch stream.fleet.verdict(on: entry.seq) {
    case .acknowledged:
      stream.fleet.passed(entry.seq)
      node.reports.acknowledged(entry.record.jobID, client)
    case .wait: return false
    case .write:
      guard stream.hasRoom(for: entry.record.message.count) else {
        if entry.record.slowReader == .disconnect, entry.seq == tail.head { stream.disconnect() }
        return false
      }
      let acknowledges = stream.session.acknowledges
      let label = stream.fleet.wrote(entry.seq, job: entry.record.jobID, isAcknowledged: !acknowledges)
      stream.call.send(entry.encoded(label))
      node.metrics.delivered.increment()
      if label.redelivered { node.metrics.redelivered.increment() }
      node.reports.written(entry.record.jobID, client, acknowledges: acknowledges)
      settle(stream, force: true)
    }
    return true
  }

  // MARK: What clients have

  /// A client has acknowledged something.
  func acknowledged(_ stream: ConnectStream, _ acknowledgement: PushV1.Acknowledgement) {
    guard let client = stream.session.client else { return }
    var jobs: [String] = []
    if let position = acknowledgement.position, position.source == FleetLog.source {
      jobs = stream.fleet.acknowledged(upTo: position.seq, in: position.inboxID)
    }
    let named = acknowledgement.messageIDs.prefix(GatewayLimits.acknowledgedIDs)
      .compactMap { MessageID($0) }.filter { $0.client == nil }.map(\.job)
    jobs += stream.fleet.acknowledged(jobs: Set(named))
    for job in jobs { node.reports.acknowledged(job, client) }
    settle(stream)
    // There may be room in the window again.
    serve(stream)
  }

  /// Tells the client's cursor how far it is; with `force` also how far was written.
  func settle(_ stream: ConnectStream, force: Bool = false) {
    guard let client = stream.session.client, let done = stream.fleet.settlement(force: force) else { return }
    var settlement = Settlement(client: client, source: .fleet, inboxID: stream.fleet.logID ?? "")
    (settlement.acknowledged, settlement.written) = (done, stream.fleet.written)
    node.settlements.add(settlement)
  }
}
