internal import Reactor

/// Waits with full jitter: each is drawn evenly from 0 to a ceiling that doubles with every failure, up to a cap.
struct Backoff: Sendable {
  let first: Duration
  let longest: Duration
  private(set) var failures = 0
  private var random: SplitMix64

  /// - Parameter seed: of the draws; the same seed gives the same waits.
  init(first: Duration, longest: Duration, seed: UInt64) {
    self.first = first
    self.longest = longest
    random = SplitMix64(state: seed)
  }

  /// The ceiling of the next wait.
  var ceiling: Duration { min(longest, first * (1 << min(failures, 20))) }

  /// The next wait, in nanoseconds.
  mutating func next() -> Int64 {
    let wait = Int64.random(in: 0...max(0, ceiling.nanoseconds), using: &random)
    failures += 1
    return wait
  }

  mutating func reset() { failures = 0 }
}

/// Steele, Lea and Flood's generator: small, and good enough to spread waits.
struct SplitMix64: RandomNumberGenerator, Sendable {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}
