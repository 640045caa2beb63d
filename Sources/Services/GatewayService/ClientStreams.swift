internal import Telemetry

/// The streams of a node, and which of them holds which client. Belongs to the node's loop.
///
/// Streams know their place in the array, so that one that ends leaves at once; a fan-out walks the array.
final class ClientStreams {
  private(set) var all: [ConnectStream] = []
  private var byClient: [String: ConnectStream] = [:]
  private let metrics: GatewayMetrics

  init(metrics: GatewayMetrics) {
    self.metrics = metrics
  }

  var clientCount: Int { byClient.count }

  subscript(client: String) -> ConnectStream? { byClient[client] }

  func add(_ stream: ConnectStream) {
    stream.position = all.count
    all.append(stream)
    metrics.streams.set(all.count)
  }

  func remove(_ stream: ConnectStream) {
    let position = stream.position
    guard position >= 0 else { return }
    stream.position = -1
    let last = all.removeLast()
    if last !== stream {
      all[position] = last
      last.position = position
    }
    metrics.streams.set(all.count)
  }

  /// Gives a client to a stream whose session has just begun; an older stream of the client is told and closed.
  ///
  /// - Returns: false when a session with a higher epoch has been here before.
  func open(_ stream: ConnectStream, client: String, epoch: Int64) -> Bool {
    if let other = byClient[client], other !== stream {
      guard (other.session.epoch ?? 0) < epoch else { return false }
      byClient[client] = stream
      other.replace()
    }
    byClient[client] = stream
    metrics.clients.set(byClient.count)
    return true
  }

  /// Takes a client away from a stream, unless another one has it by now.
  func close(_ stream: ConnectStream, client: String?) {
    guard let client, byClient[client] === stream else { return }
    byClient[client] = nil
    metrics.clients.set(byClient.count)
  }
}
