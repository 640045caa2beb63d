import GRPC
import HTTP2
import Reactor
import Schema

/// Endpoints that acknowledge what they get, spread evenly over gateways: each a connection of its own with one Connect
/// stream. Each checks that the texts come in order and that none is missing, and goes where a go-away sends it. Lives on
/// its loop.
///
/// A text begins with when it was sent, in monotonic ns, and a space; the rest is padding.
final class Endpoints {
  /// How long a read message waits to be acknowledged together with others of its endpoint.
  static let acknowledgementInterval: Duration = .milliseconds(20)
  /// Before an endpoint that was refused without a hint comes again.
  static let retryDelay: Duration = .milliseconds(200)

  /// One endpoint over its sessions.
  fileprivate final class Member {
    let id: String
    var gateway: HostPort
    /// What its gateway has asked for, and when it did.
    var farewell: PushV1.GoAway?
    var leftAt: Int64?
    var toldToWait: Int64 = 0
    var channel: Channel?
    var call: BidirectionalCall<PushV1.ClientMessage, PushV1.ServerMessage>?
    var position = PushV1.Position()
    var isUnacknowledged = false
    var texts = 0

    init(id: String, gateway: HostPort) {
      self.id = id
      self.gateway = gateway
    }
  }

  private let loop: EventLoop
  private let members: [Member]
  private let acknowledges: Bool
  private var dirty: [Member] = []
  private var acknowledgementTimer: LoopTimer?
  private var isClosing = false
  private let progress = Wakeup()
  private(set) var registered = 0
  private(set) var texts = 0
  /// Sessions that were refused or ended and had to come again.
  private(set) var retries = 0
  /// Messages that didn't name the one before them.
  private(set) var gaps = 0
  /// Messages that said that they come again.
  private(set) var redelivered = 0
  /// For each session that ended with a go-away: the delay that it named, in ms, and how long it was until the next
  /// session stood, in ns.
  var absences: [(told: Int64, away: Int64)] = []
  /// How long texts took from their sender, ns; kept while `measures`.
  private(set) var latencies: [Int64] = []
  var measures = false
  private var heartbeatAt: Int64 = 0
  static let heartbeatInterval: Duration = .seconds(10)

  init(loop: EventLoop, gateways: [HostPort], count: Int, prefix: String = "bench", acknowledges: Bool = true) {
    self.loop = loop
    self.acknowledges = acknowledges
    members = (0..<count).map { Member(id: "\(prefix)-\($0)", gateway: gateways[$0 % gateways.count]) }
  }

  var ids: [String] { members.map(\.id) }
  /// How many endpoints each gateway has, by the order of their addresses.
  var spread: [Int] {
    let counts = members.reduce(into: [:]) { $0[$1.gateway.description, default: 0] += 1 }
    return counts.sorted { $0.key < $1.key }.map(\.value)
  }
  /// The fewest texts that an endpoint has, and the most.
  var textsPerEndpoint: ClosedRange<Int> {
    let counts = members.map(\.texts)
    return (counts.min() ?? 0)...(counts.max() ?? 0)
  }

  // MARK: Sessions

  /// Connects and registers all, so many at a time.
  func open(atOnce: Int, within limit: Duration) async throws {
    isClosing = false
    registered = 0
    for start in stride(from: 0, to: members.count, by: atOnce) {
      let batch = members[start..<min(start + atOnce, members.count)]
      for member in batch { loop.spawn { await self.keepConnected(member) } }
      try await wait(within: limit, "registrations") { registered >= batch.endIndex }
    }
  }

  /// Closes all connections; what the endpoints know of their inboxes stays.
  func close() {
    isClosing = true
    acknowledgementTimer?.cancel()
    acknowledgementTimer = nil
    dirty = []
    for member in members {
      member.isUnacknowledged = false
      member.call?.cancel()
      member.channel?.close()
      (member.call, member.channel) = (nil, nil)
    }
  }

  private func keepConnected(_ member: Member) async {
    while !isClosing {
      var delay = Endpoints.retryDelay
      do { try await session(of: member) } catch let status as Status {
        delay = status.retryAfter ?? delay
      } catch {}
      guard !isClosing else { return }
      retries += 1
      if let farewell = member.farewell {
        member.farewell = nil
        delay = .milliseconds(farewell.reconnectAfterMs)
        if let gateway = HostPort(farewell.gateway) { member.gateway = gateway }
      }
      // As the gateway has said, or as an agent backs off.
      try? await loop.sleep(for: delay)
    }
  }

  private func session(of member: Member) async throws {
    var options = ChannelOptions()
    options.http2.keepaliveInterval = nil
    let channel = Channel(loop: loop, target: member.gateway, options: options)
    member.channel = channel
    defer { channel.close() }
    let call = try await PushV1.PushServiceClient(channel).connect()
    let positions = member.position.seq > 0 ? [member.position] : []
    try await call.send(
      PushV1.ClientMessage(
        payload: .register(
          PushV1.RegisterRequest(clientID: member.id, acknowledges: acknowledges, positions: positions))))
    member.call = call
    while let message = try await call.next() { take(message, member) }
  }

  private func take(_ message: PushV1.ServerMessage, _ member: Member) {
    switch message.payload {
    case .registered:
      registered += 1
      if let leftAt = member.leftAt {
        absences.append((member.toldToWait, EventLoop.monotonicNanoseconds() - leftAt))
        member.leftAt = nil
      }
    case .goAway(let farewell):
      member.farewell = farewell
      guard member.leftAt == nil else { return }
      (member.leftAt, member.toldToWait) = (EventLoop.monotonicNanoseconds(), farewell.reconnectAfterMs)
    case .text(let text):
      texts += 1
      member.texts += 1
      if message.redelivered { redelivered += 1 }
      if measures, let sent = Int64(text.content.prefix { $0 != " " }) {
        latencies.append(EventLoop.monotonicNanoseconds() - sent)
      }
      if message.seq > 0 { note(message, member) }
    default: return
    }
    progress.fire()
  }

  private func note(_ message: PushV1.ServerMessage, _ member: Member) {
    let isSame = member.position.inboxID == message.inboxID
    if isSame ? message.prevSeq > member.position.seq || message.seq <= member.position.seq : message.prevSeq != 0 {
      gaps += 1
    }
    member.position = PushV1.Position(source: message.source, inboxID: message.inboxID, seq: message.seq)
    guard acknowledges, !member.isUnacknowledged else { return }
    member.isUnacknowledged = true
    dirty.append(member)
    guard acknowledgementTimer == nil else { return }
    acknowledgementTimer = loop.schedule(after: Endpoints.acknowledgementInterval) { [self] in
      acknowledgementTimer = nil
      let batch = dirty
      dirty = []
      loop.spawn { await self.acknowledge(batch) }
    }
  }

  private func acknowledge(_ batch: [Member]) async {
    for member in batch where member.isUnacknowledged {
      member.isUnacknowledged = false
      // One whose session is over says it with the next.
      try? await member.call?.send(
        PushV1.ClientMessage(payload: .ack(PushV1.Acknowledgement(position: member.position))))
    }
  }

  /// Says that all endpoints still live, when that is due.
  func heartbeatIfDue() async {
    if loop.now - heartbeatAt >= Endpoints.heartbeatInterval.nanoseconds { await heartbeat() }
  }

  func heartbeat() async {
    heartbeatAt = loop.now
    for member in members {
      let heartbeat = PushV1.Heartbeat(clientID: member.id, timestamp: EventLoop.wallClockMilliseconds())
      try? await member.call?.send(PushV1.ClientMessage(payload: .heartbeat(heartbeat)))
    }
  }

  // MARK: Waiting

  /// - Throws: `BenchError` past the limit.
  func wait(within limit: Duration, _ what: String, until done: () -> Bool) async throws {
    try await progress.wait(
      within: limit, on: loop, for: "\(what): \(registered) registered, \(texts) texts", until: done)
  }
}
