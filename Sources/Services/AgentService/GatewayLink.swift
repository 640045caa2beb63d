internal import GRPC
internal import Reactor
internal import Schema

/// One `Connect` stream to one gateway, on a connection of its own, so that file bytes never stand in the way of a
/// heartbeat. Belongs to its loop.
final class GatewayLink {
  /// How many messages wait for the stream at most; past that reports of progress are dropped, and anything else ends
  /// the stream.
  static let maximumQueued = 1024

  let attempt: Int
  private let loop: EventLoop
  private let channel: Channel
  private var call: BidirectionalCall<PushV1.ClientMessage, PushV1.ServerMessage>?
  private var queue: [PushV1.ClientMessage] = []
  private var isSending = false
  private var isClosed = false

  init(loop: EventLoop, attempt: Int, target: HostPort) {
    self.loop = loop
    self.attempt = attempt
    channel = Channel(loop: loop, target: target)
  }

  /// Opens the stream, says hello and hands over what comes until the stream ends.
  ///
  /// - Throws: the `Status` that the stream ended with.
  func run(
    hello: PushV1.ClientMessage, received: (PushV1.ServerMessage) async -> Void
  ) async throws {
    defer { close() }
    let call = try await PushV1.PushServiceClient(channel).connect()
    guard !isClosed else { return call.cancel() }
    self.call = call
    queue.insert(hello, at: 0)
    startSending()
    while !isClosed, let message = try await call.next() { await received(message) }
  }

  /// Queues a message behind the ones before.
  func send(_ message: PushV1.ClientMessage) {
    guard !isClosed else { return }
    guard queue.count < Self.maximumQueued else {
      if case .fileStatus(let status)? = message.payload, status.state == .downloading { return }
      return close()
    }
    queue.append(message)
    startSending()
  }

  /// Ends the stream; nothing more is handed over.
  func close() {
    guard !isClosed else { return }
    isClosed = true
    queue = []
    call?.cancel()
    channel.close()
  }

  private func startSending() {
    guard call != nil, !isSending else { return }
    isSending = true
    loop.spawn { await self.sendQueued() }
  }

  private func sendQueued() async {
    defer { isSending = false }
    while !queue.isEmpty, let call {
      // A send fails only when the stream is over, which `next` reports.
      do { try await call.send(queue.removeFirst()) } catch { return }
    }
  }
}
