internal import Reactor

/// When to try again, and when to give up. A value without I/O; time comes in, in monotonic nanoseconds.
///
///     input        then
///     progressed   failures = 0
///     failed       giveUp when nothing has moved since the first failure for the patience; else wait: drawn evenly from
///                  0 to a ceiling that doubles with every failure up to the longest pause, never less than what the
///                  server asked for
struct RetrySchedule: Sendable {
  enum Next: Hashable {
    /// Nanoseconds.
    case wait(Int64)
    case giveUp
  }

  private let first: Int64
  private let longest: Int64
  private let patience: Int64
  private(set) var failures = 0
  private var troubleSince: Int64?

  init(_ options: UploadOptions) {
    first = options.firstPause.nanoseconds
    longest = options.longestPause.nanoseconds
    patience = options.patience.nanoseconds
  }

  /// The ceiling of the next wait.
  var ceiling: Int64 {
    let (grown, overflow) = first.multipliedReportingOverflow(by: 1 << Int64(min(failures, 30)))
    return overflow ? longest : min(longest, grown)
  }

  mutating func progressed() {
    failures = 0
    troubleSince = nil
  }

  mutating func failed(
    now: Int64, askedFor: Duration? = nil, using random: inout some RandomNumberGenerator
  ) -> Next {
    let since = troubleSince ?? now
    troubleSince = since
    guard now - since < patience else { return .giveUp }
    let drawn = Int64.random(in: 0...max(0, ceiling), using: &random)
    failures += 1
    // No longer than until the patience ends: one more try is due then.
    let left = patience - (now - since)
    return .wait(min(left, max(drawn, askedFor?.nanoseconds ?? 0)))
  }

  mutating func failed(now: Int64, askedFor: Duration? = nil) -> Next {
    var random = SystemRandomNumberGenerator()
    return failed(now: now, askedFor: askedFor, using: &random)
  }
}
