import GRPC
import HTTP2
import Reactor
import Schema

/// Endpoints of a load test: each a connection of its own with one Connect stream, as agents have. Lives on its loop.
final class Fleet {
  typealias Call = BidirectionalCall<PushV1.ClientMessage, PushV1.ServerMessage>

  let ids: [String]
  private let loop: EventLoop
  private let gateway: HostPort
  private var members: [Member] = []
  private var failure: (any Error)?
  private let progress = Wakeup()
  private var registered = 0
  /// Texts that arrived on any stream.
  private(set) var deliveries = 0
  private var awaited = Int.max

  private struct Member {
    let channel: Channel
    let call: Call
  }

  /// Connections that are being opened at the same time.
  static let opensAtOnce = 100
  /// Registrations and deliveries that don't come within this time end the run with an error.
  static let patience = Duration.seconds(60)

  init(loop: EventLoop, gateway: HostPort, count: Int) {
    self.loop = loop
    self.gateway = gateway
    ids = (0..<count).map { "bench-\($0)" }
  }

  /// Opens and registers all.
  func open() async throws {
    var next = 0
    while next < ids.count {
      let batch = ids[next..<min(next + Fleet.opensAtOnce, ids.count)]
      next += batch.count
      let goal = next
      for id in batch { loop.spawn { await self.open(id) } }
      try await wait("registrations") { self.registered >= goal }
    }
  }

  /// One that is told when to come back comes back then.
  private func open(_ id: String) async {
    var delay: Duration?
    repeat {
      if let delay { try? await loop.sleep(for: delay) }
      delay = await session(of: id)
    } while delay != nil
  }

  /// - Returns: when to come back, if it was refused.
  private func session(of id: String) async -> Duration? {
    var isRegistered = false
    do {
      var options = ChannelOptions()
      options.http2.keepaliveInterval = nil
      let channel = Channel(loop: loop, target: gateway, options: options)
      let call = try await PushV1.PushServiceClient(channel).connect()
      try await call.send(PushV1.ClientMessage(payload: .register(PushV1.RegisterRequest(clientID: id))))
      members.append(Member(channel: channel, call: call))
      while let message = try await call.next() {
        if case .registered = message.payload { isRegistered = true }
        take(message)
      }
      throw BenchError("the server ended the stream of \(id)")
    } catch {
      if !isRegistered, let delay = (error as? Status)?.retryAfter { return delay }
      if failure == nil { failure = error }
      progress.fire()
      return nil
    }
  }

  private func take(_ message: PushV1.ServerMessage) {
    switch message.payload {
    case .registered:
      registered += 1
      progress.fire()
    case .text:
      deliveries += 1
      if deliveries >= awaited { progress.fire() }
    default: break
    }
  }

  /// Says that all endpoints still live, as they do every ten seconds.
  func heartbeat() async throws {
    for (id, member) in zip(ids, members) {
      try await member.call.send(
        PushV1.ClientMessage(
          payload: .heartbeat(PushV1.Heartbeat(clientID: id, timestamp: EventLoop.wallClockMilliseconds()))))
    }
  }

  /// Waits until so many texts have arrived since the fleet was opened.
  func awaitDeliveries(_ count: Int) async throws {
    awaited = count
    try await wait("\(count) deliveries, \(deliveries) came") { self.deliveries >= count }
  }

  private func wait(_ what: String, until done: () -> Bool) async throws {
    try await progress.wait(within: Fleet.patience, on: loop, for: what) {
      if done() { return true }
      if let failure { throw failure }
      return false
    }
  }

  func close() {
    for member in members {
      member.call.cancel()
      member.channel.close()
    }
    members = []
  }
}
