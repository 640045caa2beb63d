import Testing

@testable import AgentService

private let second: Int64 = 1_000_000_000

@Suite struct SessionTests {
  func session(_ gateways: Int = 2, last: String? = nil, seed: UInt64 = 7) -> Session {
    Session(gatewayCount: gateways, lastSessionID: last, seed: seed, now: 0)
  }

  /// A session that is live on gateway 0 since second 0.
  func live(_ gateways: Int = 2, _ terms: Session.Terms = .init(sessionID: "s1")) -> Session {
    var session = session(gateways)
    _ = session.timePassed(now: 0)
    _ = session.registered(attempt: 1, terms, now: 0)
    return session
  }

  @Test func theFirstReachableGatewayIsTaken() {
    var session = session(3)
    #expect(session.timePassed(now: 0) == [.open(gateway: 0, attempt: 1, .register)])
    #expect(
      session.ended(attempt: 1, reason: "refused", now: 1)
        == [.offline("refused"), .open(gateway: 1, attempt: 2, .register)])
    #expect(session.registered(attempt: 2, .init(sessionID: "s1"), now: 2) == [.online(gateway: 1, sessionID: "s1")])
    #expect(session.liveGateway == 1)
    // What the first stream still says is nobody's business.
    #expect(session.ended(attempt: 1, reason: "late", now: 3).isEmpty)
    #expect(session.registered(attempt: 1, .init(sessionID: "s0"), now: 3).isEmpty)
    #expect(session.liveGateway == 1)
  }

  @Test func waitsGrowWithJitterUpToTheCap() {
    var ceilings: [Int64] = []
    for seed in 0..<200 as Range<UInt64> {
      var session = session(1, seed: seed)
      var now: Int64 = 0
      for round in 0..<8 {
        guard case .waiting(let until, _) = session.phase else { return }
        now = max(now, until)
        #expect(session.timePassed(now: now).count == 1)
        _ = session.ended(attempt: round + 1, reason: "refused", now: now)
        guard case .waiting(let until, _) = session.phase else { return }
        if ceilings.count <= round { ceilings.append(0) }
        ceilings[round] = max(ceilings[round], until - now)
      }
    }
    for (ceiling, expected) in zip(ceilings, [3, 6, 12, 24, 48, 60, 60, 60] as [Int64]) {
      #expect(ceiling <= expected * second && ceiling > expected * second * 9 / 10)
    }
  }

  @Test func theSameSeedGivesTheSameRun() {
    var (a, b) = (session(1, seed: 3), session(1, seed: 3))
    for _ in 0..<5 {
      _ = (a.timePassed(now: .max / 2), b.timePassed(now: .max / 2))
    }
    #expect(a.phase == b.phase)
  }

  @Test func heartbeatsAreSentInTheIntervalThatTheGatewayNames() {
    var session = live(2, .init(sessionID: "s", heartbeatMilliseconds: 2000, silenceMilliseconds: 6000))
    #expect(session.wakeTime == 2 * second)
    #expect(session.timePassed(now: 2 * second) == [.sendHeartbeat])
    session.heard(attempt: 1, now: 3 * second)
    #expect(session.timePassed(now: 4 * second) == [.sendHeartbeat])
    #expect(session.timePassed(now: 4 * second).isEmpty)
    #expect(live().wakeTime == 10 * second)
  }

  @Test func aSilentGatewayIsLeftForTheNextOne() {
    var session = live()
    for time in [10, 20] as [Int64] { _ = session.timePassed(now: time * second) }
    let actions = session.timePassed(now: 30 * second)
    #expect(actions == [.close(attempt: 1), .offline("the gateway was silent for too long")])
    guard case .waiting(let until, let next) = session.phase else {
      Issue.record("not waiting")
      return
    }
    #expect(next == 1 && until <= 33 * second)
    #expect(session.timePassed(now: until) == [.open(gateway: 1, attempt: 2, .reconnect(lastSessionID: "s1"))])
  }

  @Test func aGatewayThatDoesNotAnswerIsLeft() {
    var session = session()
    _ = session.timePassed(now: 0)
    #expect(
      session.timePassed(now: 10 * second) == [
        .close(attempt: 1), .offline("the gateway did not answer in time"), .open(gateway: 1, attempt: 2, .register),
      ])
  }

  @Test func aGoAwayIsObeyed() {
    var session = live()
    let actions = session.goAway(
      attempt: 1, .init(reason: "draining", retryAfterMilliseconds: 60_000), now: second)
    #expect(actions == [.close(attempt: 1), .offline("the gateway asked to go: draining")])
    // The other one is down, and the first is left alone for its minute.
    #expect(session.timePassed(now: 5 * second) == [.open(gateway: 1, attempt: 2, .reconnect(lastSessionID: "s1"))])
    #expect(session.ended(attempt: 2, reason: "refused", now: 5 * second) == [.offline("refused")])
    #expect(session.timePassed(now: 50 * second) == [.open(gateway: 1, attempt: 3, .reconnect(lastSessionID: "s1"))])
    _ = session.ended(attempt: 3, reason: "refused", now: 50 * second)
    #expect(
      session.timePassed(now: 100 * second).first == .open(gateway: 0, attempt: 4, .reconnect(lastSessionID: "s1")))
  }

  @Test func aGoAwayThatNamesAGatewayAndATimeIsObeyedToTheLetter() {
    var session = live(3)
    let farewell = Session.Farewell(
      reason: "draining", retryAfterMilliseconds: 10_000, reconnectAfterMilliseconds: 120, gateway: 2)
    #expect(
      session.goAway(attempt: 1, farewell, now: second)
        == [.close(attempt: 1), .offline("the gateway asked to go: draining")])
    #expect(session.wakeTime == second + 120_000_000)
    #expect(
      session.timePassed(now: second + 120_000_000) == [.open(gateway: 2, attempt: 2, .reconnect(lastSessionID: "s1"))])
    // The stream that was closed says nothing more that counts.
    #expect(session.ended(attempt: 1, reason: "UNAVAILABLE", now: 2 * second).isEmpty)
  }

  @Test func aGatewayThatIsNotOurOwnIsNotFollowed() {
    var session = live(2)
    _ = session.goAway(
      attempt: 1, .init(reason: "draining", retryAfterMilliseconds: 10_000, reconnectAfterMilliseconds: 200), now: 0)
    #expect(session.wakeTime == second / 5)
    #expect(session.timePassed(now: second / 5) == [.open(gateway: 1, attempt: 2, .reconnect(lastSessionID: "s1"))])
  }

  @Test func aFullGatewayIsAskedAgainAtTheTimeThatItNames() {
    var session = session(2)
    _ = session.timePassed(now: 0)
    let farewell = Session.Farewell(
      reason: "too many", retryAfterMilliseconds: 4000, reconnectAfterMilliseconds: 4000, gateway: 0)
    _ = session.goAway(attempt: 1, farewell, now: 0)
    #expect(session.wakeTime == 4 * second)
    #expect(session.timePassed(now: 4 * second) == [.open(gateway: 0, attempt: 2, .register)])
    // At once would be a tight loop, for ever would be the end of this agent.
    _ = session.goAway(attempt: 2, .init(reason: "", gateway: 0), now: 4 * second)
    #expect(session.wakeTime == 4 * second + 50_000_000)
    _ = session.timePassed(now: 5 * second)
    _ = session.goAway(attempt: 3, .init(reason: "", reconnectAfterMilliseconds: .max), now: 5 * second)
    #expect(session.wakeTime == 3605 * second)
  }

  @Test func aStatusWithARetryDelayLeavesItsGatewayAlone() {
    var session = session(2)
    _ = session.timePassed(now: 0)
    #expect(
      session.ended(attempt: 1, reason: "full", retryAfter: .seconds(100), now: 0).last
        == .open(gateway: 1, attempt: 2, .register))
    _ = session.ended(attempt: 2, reason: "refused", now: 0)
    #expect(session.timePassed(now: 50 * second) == [.open(gateway: 1, attempt: 3, .register)])
  }

  @Test func aReplacedClientStaysAway() {
    var session = live()
    let actions = session.goAway(attempt: 1, .init(reason: "taken over", isReplaced: true), now: 1)
    #expect(actions == [.close(attempt: 1), .stop("the same client id came again elsewhere: taken over")])
    #expect(session.wakeTime == nil)
    #expect(session.timePassed(now: .max).isEmpty)
  }

  @Test func aRefusalOfWhatTheClientIsEndsIt() {
    var session = session()
    _ = session.timePassed(now: 0)
    #expect(session.ended(attempt: 1, reason: "bad id", isFinal: true, now: 1) == [.stop("bad id")])
  }

  @Test func aGatewayThatDropsItsClientsMeetsGrowingWaits() {
    var session = session(1)
    var longest: Int64 = 0
    var now: Int64 = 0
    for attempt in 1...30 {
      now = session.wakeTime ?? now
      _ = session.timePassed(now: now)
      _ = session.registered(attempt: attempt, .init(sessionID: "s"), now: now)
      _ = session.ended(attempt: attempt, reason: "reset", now: now)
      longest = max(longest, (session.wakeTime ?? now) - now)
    }
    #expect(longest > 20 * second)
  }

  @Test func aSessionOfAnEarlierRunIsNamed() {
    var session = session(1, last: "old")
    #expect(session.timePassed(now: 0) == [.open(gateway: 0, attempt: 1, .reconnect(lastSessionID: "old"))])
  }
}
