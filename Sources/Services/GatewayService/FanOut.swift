internal import Bytes
internal import GRPC
internal import Reactor
internal import Routing
internal import Telemetry

/// Queues best-effort messages to tags and to all on every stream that is open. Belongs to the node's loop.
///
/// A pass takes all messages that wait and walks the streams, a slice of them per turn, so that a large fan-out doesn't
/// keep the loop from everything else. What comes meanwhile waits for the next pass. So messages keep their order, and a
/// backlog costs each stream one write and not one per message.
final class FanOut {
  private struct Message {
    let record: PushRecord
    let encoded: EncodedMessage
    /// Whom it is for; empty for everybody.
    let tags: [String: String]
    var written = 0

    /// What it holds of memory, about.
    var bytes: Int { record.message.count + FanOut.overheadBytes }

    func isFor(_ stream: ConnectStream) -> Bool { tags.isEmpty || stream.tags.matches(tags) }
  }

  /// What a message that waits takes beside its own bytes, about.
  static let overheadBytes = 512

  private unowned let node: GatewayNode
  private var waiting: [Message] = []
  private var waitingBytes = 0
  private var batch: [Message] = []
  private var streams: ArraySlice<ConnectStream> = []
  private var isRunning = false

  init(node: GatewayNode) {
    self.node = node
  }

  /// Takes a record in for every stream that has the tags and is open when its pass begins. Where records come faster than
  /// passes end, those past `maximumFanOutBytes` are dropped and counted.
  func add(_ record: PushRecord, to tags: [String: String]) {
    let message = Message(record: record, encoded: EncodedMessage(payload: record.message), tags: tags)
    guard waiting.isEmpty || waitingBytes + message.bytes <= node.options.maximumFanOutBytes else {
      return node.metrics.droppedFanOuts.increment()
    }
    waiting.append(message)
    waitingBytes += message.bytes
    guard !isRunning else { return }
    isRunning = true
    turn()
  }

  private func turn() {
    if batch.isEmpty {
      batch = waiting
      (waiting, waitingBytes) = ([], 0)
      streams = node.streams.all[...]
    }
    serveSlice()
    if streams.isEmpty { endPass() }
    isRunning = !batch.isEmpty || !waiting.isEmpty
    if isRunning { node.loop.schedule(after: .zero) { [weak self] in self?.turn() } }
  }

  private func serveSlice() {
    for stream in streams.prefix(GatewayLimits.streamsPerTurn) {
      for index in batch.indices where batch[index].isFor(stream) {
        if stream.send(batch[index].encoded, of: batch[index].record) == .written { batch[index].written += 1 }
      }
    }
    streams = streams.dropFirst(GatewayLimits.streamsPerTurn)
  }

  private func endPass() {
    for message in batch where message.written > 0 {
      node.metrics.delivered.increment(by: message.written)
      if !message.record.jobID.isEmpty {
        node.reports.written(message.record.jobID, count: message.written)
      }
    }
    batch = []
  }
}
