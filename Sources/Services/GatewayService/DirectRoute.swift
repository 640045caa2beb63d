internal import Bytes
internal import GRPC
internal import Reactor
internal import Routing
internal import Schema
internal import Telemetry

/// The direct route: hands records to the nodes that they are for by calls, and takes those of other nodes.
///
/// Belongs to the node's loop. All that comes for one node while a call to it is under way shares the next call. A call
/// that fails, fails all that waits behind it: what is kept is in the inboxes.
final class DirectRoute: RecordCarrier, InternalV1.RecordServiceHandler {
  /// Records that wait for one node at most; past that they are refused.
  static let maximumWaiting = 100_000
  static let maximumRecordsPerCall = 1000
  /// A larger single record still goes, by itself.
  static let maximumBytesPerCall = 2 << 20
  static let timeout: Duration = .seconds(3)

  private struct Entry {
    let record: Bytes
    let then: (RoutingError?) -> Void
  }

  /// What waits for one node; it lives as long as something does.
  private final class Line {
    let node: NodeRecord
    var waiting: [Entry] = []

    init(_ node: NodeRecord) { self.node = node }

    func takeBatch() -> ArraySlice<Entry> {
      var bytes = 0
      let rest = waiting.prefix(DirectRoute.maximumRecordsPerCall)
      let count = rest.firstIndex { entry in
        bytes += entry.record.count
        return bytes > DirectRoute.maximumBytesPerCall
      }
      let batch = rest.prefix(max(1, count ?? rest.count))
      waiting.removeFirst(batch.count)
      return batch
    }
  }

  private unowned let node: GatewayNode
  private let channels: NodeChannels
  private var lines: [String: Line] = [:]

  init(node: GatewayNode, channels: NodeChannels) {
    self.node = node
    self.channels = channels
  }

  // MARK: Out

  func carry(_ record: PushRecord, to target: NodeRecord, then: @escaping (RoutingError?) -> Void) {
    guard target.id != node.options.nodeID else {
      node.delivery.deliver(record)
      return then(nil)
    }
    let entry = Entry(record: record.encoded(), then: then)
    // A node that has started anew may have another address.
    let key = "\(target.id) \(target.address)"
    if let line = lines[key] {
      guard line.waiting.count < DirectRoute.maximumWaiting else {
        return then(RoutingError(.exhausted, "Too many records wait for node \(target.id)."))
      }
      return line.waiting.append(entry)
    }
    let line = Line(target)
    line.waiting.append(entry)
    lines[key] = line
    node.loop.spawn { [self] in
      while !line.waiting.isEmpty { await send(line) }
      lines[key] = nil
    }
  }

  private func send(_ line: Line) async {
    let batch = line.takeBatch()
    do {
      guard let channel = channels.channel(to: line.node.address) else {
        throw Status(.unavailable, "its address can't be read")
      }
      _ = try await channel.unary(
        InternalV1.RecordService.deliver,
        InternalV1.DeliverRequest(nodeID: line.node.id, records: batch.map(\.record)),
        options: CallOptions(timeout: DirectRoute.timeout))
      node.metrics.directSent.increment(by: batch.count)
      for entry in batch { entry.then(nil) }
    } catch {
      let failed = Array(batch) + line.waiting
      line.waiting = []
      let reason = RoutingError(.unavailable, "Node \(line.node.id) did not take the record: \(error).")
      node.log.debug("records not taken", ["node": line.node.id, "count": failed.count, "error": "\(error)"])
      for entry in failed { entry.then(reason) }
    }
  }

  // MARK: In

  func deliver(
    _ request: InternalV1.DeliverRequest, _ context: ServerContext
  ) async throws -> InternalV1.DeliverResponse {
    guard request.nodeID == node.options.nodeID else {
      throw Status(.failedPrecondition, "This is node \(node.options.nodeID), another one than the records are for.")
    }
    guard request.records.count <= DirectRoute.maximumRecordsPerCall else {
      throw Status(.invalidArgument, "A call takes at most \(DirectRoute.maximumRecordsPerCall) records.")
    }
    for bytes in request.records {
      do throws(RoutingError) {
        var record = try PushRecord(encoded: bytes)
        guard case .client = record.target else { throw RoutingError(.corrupt, "The record is for no single client.") }
        record.route = .direct
        node.delivery.deliver(record)
      } catch {
        node.metrics.malformed.increment()
        node.log.warning("record dropped", ["error": error.message])
      }
    }
    node.metrics.directReceived.increment(by: request.records.count)
    return InternalV1.DeliverResponse()
  }
}
