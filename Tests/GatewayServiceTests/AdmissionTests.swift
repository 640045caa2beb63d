import Reactor
import Testing

@testable import GatewayService

@Suite struct AdmissionTests {
  static func admission(_ rate: Double, burst: Int) -> Admission {
    var limits = AdmissionLimits()
    (limits.rate, limits.burst) = (Rate(perSecond: rate), burst)
    return Admission(limits)
  }

  static let second: Int64 = 1_000_000_000

  @Test func aBurstIsLetInAndThenTheRate() {
    var admission = Self.admission(100, burst: 10)
    var admitted = 0
    for _ in 0..<50 where admission.ask(now: 0) == .admit { admitted += 1 }
    #expect(admitted == 10)
    // One every 10 ms from then on, whoever asks how often.
    for millisecond in 1...1000 as ClosedRange<Int64> where admission.ask(now: millisecond * 1_000_000) == .admit {
      admitted += 1
    }
    #expect(admitted == 110)
    // After a quiet time a burst again, and not more.
    admitted = 0
    for _ in 0..<50 where admission.ask(now: 100 * Self.second) == .admit { admitted += 1 }
    #expect(admitted == 10)
  }

  /// Ten thousand at once, each of whom comes back when it was told to.
  @Test(arguments: [1, 2, 3] as [UInt64]) func aStormIsSpreadAndWhoComesAtItsSlotIsLetIn(_ seed: UInt64) {
    var random = Lehmer(state: seed &+ 0x9E37_79B9_7F4A_7C15)
    var admission = Self.admission(2000, burst: 2000)
    var asking: [Int64: Int] = [0: 10_000]
    var (refusals, perSecond) = (0, [Int64: Int]())
    var last: Int64 = 0
    while let time = asking.keys.min(), let count = asking.removeValue(forKey: time) {
      for _ in 0..<count {
        switch admission.ask(now: time, using: &random) {
        case .admit:
          perSecond[time / Self.second, default: 0] += 1
          last = time
        case .comeBack(let delay):
          refusals += 1
          asking[time + delay.nanoseconds, default: 0] += 1
        }
      }
    }
    #expect(perSecond.values.reduce(0, +) == 10_000)
    // Eight thousand were refused once, and hardly anyone twice.
    #expect(refusals >= 8000 && refusals < 8100)
    #expect(perSecond.filter { $0.key > 0 }.values.allSatisfy { $0 <= 2100 })
    #expect(last < 5 * Self.second)
  }

  @Test func nobodyIsToldToWaitLongerThanTheLimit() {
    var admission = Self.admission(1, burst: 1)
    #expect(admission.ask(now: 0) == .admit)
    for number in 0..<1000 {
      guard case .comeBack(let delay) = admission.ask(now: 0) else {
        Issue.record("let in")
        return
      }
      #expect(delay <= Admission.longestWait + Admission.jitter && delay >= Admission.shortestWait)
      if number > 100 { #expect(delay >= Admission.longestWait / 2) }
    }
  }

  /// A generator that gives the same numbers for the same state.
  struct Lehmer: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return state ^ (state >> 29)
    }
  }
}

@Suite struct DrainPaceTests {
  static let second: Int64 = 1_000_000_000

  @Test func theRateIsKept() {
    var pace = DrainPace(rate: Rate(perSecond: 500), within: .seconds(10), now: 0)
    var told = 0
    for tick in 1...50 as ClosedRange<Int64> { told += pace.due(now: tick * 20_000_000) }
    #expect((500...501).contains(told))
    // A loop that was busy for long doesn't send all away that it missed.
    #expect(pace.due(now: 5 * Self.second) <= 101)
    #expect(!pace.hasEnded(now: 10 * Self.second - 1) && pace.hasEnded(now: 10 * Self.second))
    pace.change(rate: Rate(perSecond: 1), within: .seconds(1), now: 10 * Self.second)
    #expect(!pace.hasEnded(now: 10 * Self.second) && pace.hasEnded(now: 11 * Self.second))
  }

  @Test func aSlowRateTellsTheFirstOneAtOnce() {
    var pace = DrainPace(rate: Rate(perSecond: 0.5), within: .seconds(60), now: 0)
    var told: [Int64] = []
    for tick in 0...300 as ClosedRange<Int64> where pace.due(now: tick * 20_000_000) == 1 { told.append(tick * 20) }
    #expect(told.count == 4 && told[0] == 0)
    for (time, expected) in zip(told, [0, 2000, 4000, 6000] as [Int64]) { #expect(abs(time - expected) <= 40) }
  }
}
