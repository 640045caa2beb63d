public import Reactor

/// How many registrations a node lets in.
public struct AdmissionLimits: Sendable {
  public var rate = Rate(perSecond: 2000)
  /// How many may come at once after a quiet time.
  public var burst = 2000

  public init() {}
}

/// Decides which registrations are let in now, and when the others come back.
///
///     ask ──► let in, while the bucket has tokens (`rate` a second, `burst` at most)
///         └─► come back: each gets the next slot of a second schedule, with a little jitter
///
/// Slots are given at nine tenths of the rate and a little later than the next token, so that who comes at its slot finds
/// a token also while a few others come unasked. Who would have to wait longer than `longestWait` is told a random time
/// in the second half of it and asks again then.
///
/// A value without I/O: the time goes in, in monotonic ns.
struct Admission {
  /// Before the first slot.
  static let shortestWait: Duration = .milliseconds(250)
  static let longestWait: Duration = .seconds(60)
  static let jitter: Duration = .milliseconds(100)

  enum Decision: Equatable {
    case admit
    case comeBack(after: Duration)
  }

  private let interval: Int64
  private let tolerance: Int64
  private let slotInterval: Int64
  /// When the bucket is full again: the virtual schedule of the generic cell rate algorithm.
  private var fullAt: Int64 = .min
  private var nextSlot: Int64 = .min

  init(_ limits: AdmissionLimits) {
    interval = limits.rate.interval
    tolerance = interval.multipliedReportingOverflow(by: Int64(max(1, limits.burst))).partialValue
    slotInterval = interval + interval / 9
  }

  mutating func ask(now: Int64) -> Decision {
    var random = SystemRandomNumberGenerator()
    return ask(now: now, using: &random)
  }

  mutating func ask(now: Int64, using random: inout some RandomNumberGenerator) -> Decision {
    let full = max(fullAt, now) + interval
    if full - now <= tolerance {
      fullAt = full
      return .admit
    }
    let longest = Admission.longestWait.nanoseconds
    let slot = max(nextSlot, now + Admission.shortestWait.nanoseconds)
    guard slot - now <= longest else {
      return .comeBack(after: .nanoseconds(Int64.random(in: longest / 2...longest, using: &random)))
    }
    nextSlot = slot + slotInterval
    let jitter = Int64.random(in: 0..<Admission.jitter.nanoseconds, using: &random)
    return .comeBack(after: .nanoseconds(slot - now + jitter))
  }
}
