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

  /// Sessions that read the log by themselves at once.
  static let readsAtOnce = 32

  private unowned let node: GatewayNode
  private let log: FleetLog
  private let pageReads = Turnstile(places: readsAtOnce)
  let tail: FleetTail
  private var isReading = false
  private var isReadDue = false
  private var reads = 0
  private var readsDone = 0
  private var lookedAt: Int64 = 0
  private var isLooking = false
  private var waiting: ArraySlice<ConnectStream> = []
  private var isPassRunning = false
  private var isPassDue = false

  init(node: GatewayNode, log: FleetLog) {
    self.node = node
    self.log = log
    tail = FleetTail(maximumEntries: node.options.fleetTailEntries, maximumBytes: node.options.fleetTailBytes)
  }

  // MARK: The log

  /// Reads the newest part of the log, before the node lets clients in.
  func load() async throws(RoutingError) {
    try await read()
    lookedAt = node.loop.now
  }

  /// A hint has come.
  func received(_ record: PushRecord, at place: InboxPlace) {
    guard place.inboxID != tail.logID || place.seq > tail.head else { return }
    guard place.inboxID == tail.logID, place.previous == tail.head else { return catchUp() }
    tail.append(place.seq, record)
    serveAll()
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
    serveAll()
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

  /// Serves every stream, a slice of them per turn.
  private func serveAll() {
    isPassDue = true
    guard !isPassRunning else { return }
    isPassRunning = true
    turn()
  }

  private func turn() {
    if waiting.isEmpty {
      isPassDue = false
      waiting = node.streams.all[...]
    }
    for stream in waiting.prefix(GatewayLimits.streamsPerTurn) { serve(stream) }
    waiting = waiting.dropFirst(GatewayLimits.streamsPerTurn)
    isPassRunning = !waiting.isEmpty || isPassDue
    if isPassRunning { node.loop.schedule(after: .zero) { [unowned self] in turn() } }
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
  private func give(_ entry: FleetEntry, to stream: ConnectStream, isMember: Bool, now: Int64) -> Bool {
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

  // MARK: What is below the tail

  private func readPages(for stream: ConnectStream) {
    stream.isReadingLog = true
    node.loop.spawn { [self] in
      let isServed = await readPage(for: stream)
      stream.isReadingLog = false
      if isServed { serve(stream) }
    }
  }

  /// - Returns: whether to go on.
  private func readPage(for stream: ConnectStream) async -> Bool {
    guard let client = stream.session.client, stream.hasRoom(for: 0), !stream.fleet.isWindowFull else { return false }
    // All of that stood in the log before it is read.
    let below = max(tail.floor, stream.fleet.judged)
    do throws(RoutingError) {
      let page = try await readPage(after: stream.fleet.covered)
      guard stream.session.epoch != nil else { return false }
      guard page.head.logID == stream.fleet.logID else {
        catchUp()
        return false
      }
      if stream.fleet.covered < page.head.trimmed { tellGap(stream, upTo: page.head.trimmed) }
      let members = try await members(of: page, client, stream)
      guard stream.session.epoch != nil else { return false }
      let now = EventLoop.wallClockMilliseconds()
      for (entry, isMember) in zip(page.entries, members) {
        let entry = FleetEntry(seq: entry.seq, record: entry.record)
        guard give(entry, to: stream, isMember: isMember, now: now) else { return false }
      }
      stream.fleet.passed(page.isComplete ? max(page.end, below) : page.end)
      return true
    } catch {
      node.log.warning("the fleet's log not read", ["client": client, "error": error.message])
      return (try? await node.loop.sleep(for: FleetDelivery.retryDelay)) != nil
    }
  }

  private func readPage(after seq: Int64) async throws(RoutingError) -> FleetLog.Page {
    await pageReads.enter()
    defer { pageReads.leave() }
    return try await log.read(after: seq)
  }

  /// For which entries of a page a client is a member: by its tags, or by its rows where the tags were others then.
  private func members(
    of page: FleetLog.Page, _ client: String, _ stream: ConnectStream
  ) async throws(RoutingError) -> [Bool] {
    let entries = page.entries.map { FleetEntry(seq: $0.seq, record: $0.record) }
    var members = entries.map { stream.tags.matches($0.tags) }
    let doubtful = entries.indices.filter { entries[$0].seq <= stream.fleet.judged && !entries[$0].tags.isEmpty }
    guard !doubtful.isEmpty else { return members }
    let rows = try await node.ledger.haveRows(doubtful.map { entries[$0].record.jobID }, of: client)
    for (index, hasRow) in zip(doubtful, rows) { members[index] = hasRow }
    return members
  }

  /// Tells a client that messages are gone which it perhaps should have had.
  private func tellGap(_ stream: ConnectStream, upTo seq: Int64) {
    node.metrics.fleetLogGaps.increment()
    let event = PushV1.NotifyEvent(
      type: "gap",
      details:
        "Messages to tags or to all, published up to \(seq / 1_000_000) s since the epoch, were removed before this "
        + "client had them; some may have been for it.")
    stream.call.send(EncodedMessage(PushV1.ServerMessage(payload: .event(event))))
    stream.fleet.passed(seq)
    settle(stream)
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
