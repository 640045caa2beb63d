internal import Bytes
internal import GRPC
internal import Protobuf
internal import Reactor
internal import Routing
internal import Safeguards
internal import Schema
internal import Telemetry

/// Brings what stands in inboxes to the sessions of this node. Belongs to its loop.
final class InboxDelivery {
  /// Before an inbox that could not be read is read again.
  static let retryDelay: Duration = .seconds(1)
  static let source = "inbox"
  /// Inboxes that are read at once. When thousands of clients come back, Redis would be busy with their inboxes for seconds,
  /// and leases and registrations stand behind them in the queue.
  static let readsAtOnce = 32

  private unowned let node: GatewayNode
  private let inboxes: Inboxes
  private let reads = Turnstile(places: readsAtOnce)

  init(node: GatewayNode, inboxes: Inboxes) {
    self.node = node
    self.inboxes = inboxes
  }

  /// A record has come for a client of this node.
  func deliver(_ record: PushRecord, at place: InboxPlace, to stream: ConnectStream) {
    guard node.options.safeguards.contains(.replay) else { return writeAlone(record, at: place, to: stream) }
    switch stream.cursor.poked(place) {
    case .drop: break
    case .read: catchUp(stream)
    case .write:
      guard stream.hasRoom(for: record.message.count) else {
        _ = stream.cursor.fallBehind()
        if record.slowReader == .disconnect { stream.disconnect() }
        return
      }
      write(record.message, record.messageID, place.seq, to: stream)
    }
  }

  /// What is left of an inbox without its replay: what comes while the client is here.
  private func writeAlone(_ record: PushRecord, at place: InboxPlace, to stream: ConnectStream) {
    stream.cursor.jump(to: place)
    write(record.message, record.messageID, place.seq, to: stream)
  }

  /// An inbox has been looked at.
  func saw(head: InboxPosition, of stream: ConnectStream) {
    guard stream.cursor.saw(head: head) else { return }
    node.metrics.inboxRepairs.increment()
    catchUp(stream)
  }

  /// Reads the inbox of a session that is behind, until it is live or its stream has no more room.
  func catchUp(_ stream: ConnectStream) {
    guard !stream.isReadingInbox, stream.cursor.phase == .behind, stream.session.epoch != nil,
      node.options.safeguards.contains(.replay)
    else { return }
    stream.isReadingInbox = true
    node.loop.spawn { [self] in
      while await readPage(for: stream) {}
      stream.isReadingInbox = false
    }
  }

  /// - Returns: whether to read on.
  private func readPage(for stream: ConnectStream) async -> Bool {
    guard let client = stream.session.client, stream.session.epoch != nil, stream.hasRoom(for: 0) else { return false }
    do throws(RoutingError) {
      let page = try await read(client, for: stream)
      guard stream.session.epoch != nil else { return false }
      return write(page, to: stream)
    } catch {
      node.log.warning("inbox not read", ["client": client, "error": error.message])
      return (try? await node.loop.sleep(for: InboxDelivery.retryDelay)) != nil
    }
  }

  private func read(_ client: String, for stream: ConnectStream) async throws(RoutingError) -> InboxPage {
    await reads.enter()
    defer { reads.leave() }
    stream.cursor.beganReading()
    return try await inboxes.read(client, after: stream.cursor.positions)
  }

  private func write(_ page: InboxPage, to stream: ConnectStream) -> Bool {
    let isFirst = stream.cursor.began(page)
    // What the client says that it has when it comes, it has acknowledged. A later page begins where the session has written.
    if isFirst, page.position > 0 { settle(stream, page) }
    for message in page.messages where message.seq > stream.cursor.covered {
      // `writable` goes on here.
      guard stream.hasRoom(for: message.message.count) else { return false }
      write(message.message, message.messageID, message.seq, to: stream)
      guard stream.session.epoch != nil else { return false }
    }
    return stream.cursor.ended(page)
  }

  private func write(_ message: Bytes, _ messageID: String, _ seq: Int64, to stream: ConnectStream) {
    let label = stream.cursor.wrote(seq)
    stream.call.send(InboxDelivery.labelled(message, label, source: InboxDelivery.source))
    node.metrics.delivered.increment()
    if label.redelivered { node.metrics.redelivered.increment() }
    let isEnough = !stream.session.acknowledges
    settle(stream, acknowledged: isEnough ? seq : 0, written: seq)
    if let client = stream.session.client, let id = MessageID(messageID) {
      node.reports.written(id.job, client, acknowledges: stream.session.acknowledges)
    }
  }

  private func settle(_ stream: ConnectStream, _ page: InboxPage) {
    guard let client = stream.session.client else { return }
    for id in page.had.compactMap(MessageID.init) { node.reports.acknowledged(id.job, client) }
    var settlement = Settlement(client: client, inboxID: page.inboxID)
    settlement.acknowledged = page.position
    node.settlements.add(settlement, reported: page.had)
  }

  private func settle(_ stream: ConnectStream, acknowledged: Int64 = 0, written: Int64 = 0) {
    guard let client = stream.session.client else { return }
    var settlement = Settlement(client: client, inboxID: stream.cursor.inboxID)
    (settlement.acknowledged, settlement.written) = (acknowledged, written)
    node.settlements.add(settlement)
  }

  /// A message with its place. Fields of a message may stand in any order, and parts of it may be joined: so the label
  /// goes behind the publisher's bytes.
  static func labelled(_ message: Bytes, _ label: InboxCursor.Label, source: String) -> EncodedMessage {
    let suffix = PushV1.ServerMessage(
      source: source, seq: label.seq, prevSeq: label.previous, inboxID: label.inboxID, redelivered: label.redelivered
    ).serialized()
    return EncodedMessage(
      payload: Bytes(capacity: message.count + suffix.count) { memory in
        memory.copyMemory(from: message.unsafeMemory)
        UnsafeMutableRawBufferPointer(rebasing: memory[message.count...]).copyMemory(from: suffix.unsafeMemory)
        return memory.count
      })
  }
}
