internal import GRPC
internal import Reactor
internal import Routing
internal import Schema
internal import Telemetry

/// What lies below the part of the log that is in memory: the session that needs it reads it from Redis, page by page.
extension FleetDelivery {
  /// Sessions that read the log by themselves at once.
  static let readsAtOnce = 32

  func readPages(for stream: ConnectStream) {
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
}
