internal import Reactor

/// The endpoint's side of `Connect`: which gateway to try, when to wait, when a stream counts as dead.
///
///     waiting ──time──► opening ──registered──► live
///        ▲  ▲             │ failed: the next gateway at once, after a whole round a wait
///        │  └─────────────┘                      │ ended, silent, go-away
///        └───────────────────────────────────────┘
///     a go-away that says when and where to connect is obeyed to the letter, without a wait of our own
///     stopped: a go-away said that this client came again elsewhere, or the server refuses what this client is.
///
/// No I/O: inputs are methods, each returns what is to be done; `wakeTime` says when to call `timePassed`. Times are
/// nanoseconds of a monotonic clock. A stream is known by its attempt number, so what an older one still says is dropped.
struct Session: Sendable {
  struct Limits: Sendable {
    /// How often a heartbeat is sent, unless the gateway asks for another interval.
    var heartbeat = Duration.seconds(10)
    /// A stream on which the server says nothing for so long is closed.
    var silence = Duration.seconds(30)
    /// A stream on which no `Registered` came by then is closed.
    var opening = Duration.seconds(10)
    /// The ceiling of the first wait, and of the longest one.
    var firstWait = Duration.seconds(3)
    var longestWait = Duration.seconds(60)
    /// How long a gateway that sent a go-away without a time is left alone.
    var leaveAlone = Duration.seconds(10)
    /// The longest time that a gateway may tell us to stay away.
    var longestAbsence = Duration.seconds(3600)
    /// A gateway that sends us away before it has registered us is obeyed no sooner than this: two that send a client to
    /// and fro don't meet a tight loop.
    var shortestAbsence = Duration.milliseconds(50)
  }

  /// The first message of a stream.
  enum Hello: Sendable, Hashable {
    case register
    case reconnect(lastSessionID: String)
  }

  enum Action: Sendable, Hashable {
    /// Open a stream to this gateway of the list and say hello.
    case open(gateway: Int, attempt: Int, Hello)
    case sendHeartbeat
    /// Close the stream; nothing of it matters any more.
    case close(attempt: Int)
    /// The session stands.
    case online(gateway: Int, sessionID: String)
    /// The session is over; the reason is a sentence.
    case offline(String)
    /// This agent shall not come again; the reason is a sentence.
    case stop(String)
  }

  /// What the server says of itself in `Registered`; 0 where it says nothing.
  struct Terms: Sendable, Hashable {
    var sessionID: String
    var heartbeatMilliseconds: Int64 = 0
    var silenceMilliseconds: Int64 = 0
  }

  enum Phase: Sendable, Hashable {
    case waiting(until: Int64, next: Int)
    case opening(gateway: Int, deadline: Int64, tried: Int)
    case live(gateway: Int, since: Int64, lastHeard: Int64, nextHeartbeat: Int64)
    case stopped
  }

  let gatewayCount: Int
  let limits: Limits
  private(set) var phase: Phase
  private(set) var lastSessionID: String?
  private var attempt = 0
  private var backoff: Backoff
  private var heartbeat: Int64
  private var silence: Int64
  /// Until when each gateway is left alone, as it has asked for.
  private var leftAloneUntil: [Int64]

  /// - Precondition: there is at least one gateway.
  init(gatewayCount: Int, lastSessionID: String?, limits: Limits = Limits(), seed: UInt64, now: Int64) {
    precondition(gatewayCount > 0, "no gateway")
    self.gatewayCount = gatewayCount
    self.limits = limits
    self.lastSessionID = lastSessionID
    phase = .waiting(until: now, next: 0)
    backoff = Backoff(first: limits.firstWait, longest: limits.longestWait, seed: seed)
    heartbeat = limits.heartbeat.nanoseconds
    silence = limits.silence.nanoseconds
    leftAloneUntil = Array(repeating: Int64.min, count: gatewayCount)
  }

  /// The gateway whose stream is open and registered.
  var liveGateway: Int? {
    if case .live(let gateway, _, _, _) = phase { gateway } else { nil }
  }

  /// When to call `timePassed`; nil for never.
  var wakeTime: Int64? {
    switch phase {
    case .waiting(let until, _): until
    case .opening(_, let deadline, _): deadline
    case .live(_, _, let lastHeard, let nextHeartbeat): min(lastHeard + silence, nextHeartbeat)
    case .stopped: nil
    }
  }

  // MARK: Inputs

  mutating func timePassed(now: Int64) -> [Action] {
    switch phase {
    case .waiting(let until, let next) where now >= until:
      return open(from: next, tried: 0, now)
    case .opening(_, let deadline, _) where now >= deadline:
      return [.close(attempt: attempt)] + lost("the gateway did not answer in time", now)
    case .live(_, _, let lastHeard, _) where now - lastHeard >= silence:
      return [.close(attempt: attempt)] + lost("the gateway was silent for too long", now)
    case .live(let gateway, let since, let lastHeard, let nextHeartbeat) where now >= nextHeartbeat:
      phase = .live(gateway: gateway, since: since, lastHeard: lastHeard, nextHeartbeat: now + heartbeat)
      return [.sendHeartbeat]
    default:
      return []
    }
  }

  /// Anything came on the stream.
  mutating func heard(attempt: Int, now: Int64) {
    guard attempt == self.attempt, case .live(let gateway, let since, _, let nextHeartbeat) = phase else { return }
    phase = .live(gateway: gateway, since: since, lastHeard: now, nextHeartbeat: nextHeartbeat)
  }

  mutating func registered(attempt: Int, _ terms: Terms, now: Int64) -> [Action] {
    guard attempt == self.attempt, case .opening(let gateway, _, _) = phase else { return [] }
    lastSessionID = terms.sessionID
    // A gateway may ask for less or for more, within what keeps a NAT's mapping and a server alive.
    heartbeat = Self.agreed(terms.heartbeatMilliseconds, limits.heartbeat)
    silence = Self.agreed(terms.silenceMilliseconds, limits.silence)
    phase = .live(gateway: gateway, since: now, lastHeard: now, nextHeartbeat: now + heartbeat)
    return [.online(gateway: gateway, sessionID: terms.sessionID)]
  }

  /// What a go-away asks for.
  struct Farewell: Sendable, Hashable {
    var reason: String
    /// How long this gateway is to be left alone; 0 for our own limit.
    var retryAfterMilliseconds: Int64 = 0
    /// The same client has come again elsewhere.
    var isReplaced = false
    /// When to connect, to `gateway` or else to the next one; 0 without a gateway for our own back-off.
    var reconnectAfterMilliseconds: Int64 = 0
    /// The gateway to go to, if it is one of the list.
    var gateway: Int?
  }

  mutating func goAway(attempt: Int, _ farewell: Farewell, now: Int64) -> [Action] {
    guard attempt == self.attempt, let gateway = openGateway else { return [] }
    if farewell.isReplaced {
      return [.close(attempt: attempt)] + stop("the same client id came again elsewhere: \(farewell.reason)")
    }
    let pause = absence(farewell.retryAfterMilliseconds) ?? limits.leaveAlone.nanoseconds
    leftAloneUntil[gateway] = now + pause
    let reason = "the gateway asked to go: \(farewell.reason)"
    guard farewell.gateway != nil || farewell.reconnectAfterMilliseconds > 0 else {
      return [.close(attempt: attempt)] + lost(reason, now)
    }
    var wait = absence(farewell.reconnectAfterMilliseconds) ?? 0
    if case .opening = phase { wait = max(wait, limits.shortestAbsence.nanoseconds) }
    // One that calls us back is not left alone any longer than it says.
    if farewell.gateway == gateway { leftAloneUntil[gateway] = now + wait }
    phase = .waiting(until: now + wait, next: farewell.gateway ?? (gateway + 1) % gatewayCount)
    return [.close(attempt: attempt), .offline(reason)]
  }

  private func absence(_ milliseconds: Int64) -> Int64? {
    guard milliseconds > 0 else { return nil }
    return min(milliseconds, limits.longestAbsence.wholeMilliseconds) * 1_000_000
  }

  /// The stream could not be opened, or has ended.
  /// - Parameters:
  ///   - isFinal: the server refuses what this client is; trying again would not help.
  ///   - retryAfter: how long the server wants to be left alone, if it says so.
  mutating func ended(
    attempt: Int, reason: String, isFinal: Bool = false, retryAfter: Duration? = nil, now: Int64
  ) -> [Action] {
    guard attempt == self.attempt, let gateway = openGateway else { return [] }
    if isFinal { return stop(reason) }
    if let pause = retryAfter.flatMap({ absence($0.wholeMilliseconds) }) { leftAloneUntil[gateway] = now + pause }
    return lost(reason, now)
  }

  // MARK: Transitions

  private var openGateway: Int? {
    switch phase {
    case .opening(let gateway, _, _), .live(let gateway, _, _, _): gateway
    case .waiting, .stopped: nil
    }
  }

  private mutating func stop(_ reason: String) -> [Action] {
    phase = .stopped
    return [.stop(reason)]
  }

  private mutating func lost(_ reason: String, _ now: Int64) -> [Action] {
    switch phase {
    case .opening(let gateway, _, let tried):
      return [.offline(reason)] + open(from: (gateway + 1) % gatewayCount, tried: tried + 1, now)
    case .live(let gateway, let since, _, _):
      // A gateway that takes clients and drops them at once has to meet growing waits, too.
      if now - since >= limits.heartbeat.nanoseconds { backoff.reset() }
      phase = .waiting(until: now + backoff.next(), next: (gateway + 1) % gatewayCount)
      return [.offline(reason)]
    case .waiting, .stopped:
      return []
    }
  }

  /// Opens a stream to the first gateway from `start` on that may be asked, or waits when all were tried.
  private mutating func open(from start: Int, tried: Int, _ now: Int64) -> [Action] {
    var tried = tried
    var gateway = start
    while tried < gatewayCount, leftAloneUntil[gateway] > now {
      gateway = (gateway + 1) % gatewayCount
      tried += 1
    }
    guard tried < gatewayCount else {
      // A new round begins at the head of the list; the first gateways are the preferred ones.
      phase = .waiting(until: now + backoff.next(), next: 0)
      return []
    }
    attempt += 1
    phase = .opening(gateway: gateway, deadline: now + limits.opening.nanoseconds, tried: tried)
    return [.open(gateway: gateway, attempt: attempt, lastSessionID.map { .reconnect(lastSessionID: $0) } ?? .register)]
  }

  private static func agreed(_ milliseconds: Int64, _ usual: Duration) -> Int64 {
    milliseconds > 0 ? min(max(milliseconds, 100), 300_000) * 1_000_000 : usual.nanoseconds
  }
}
