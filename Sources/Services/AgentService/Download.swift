internal import Reactor

/// One file on its way to this endpoint: from a notice to a verified file under its name, or to a failure with a reason.
///
///     preparing ──prepared──► fetching ──every byte──► verifying ──right──► placing ──placed──► verified
///                               │  ▲                       │ wrong, once
///                        broken │  │ time                  ▼
///                               ▼  └──────────────── fetching from 0
///                            waiting                                    any: failed
///
/// No I/O: inputs are methods, each returns what is to be done. Times are nanoseconds of a monotonic clock. Bytes come in
/// order, so what is kept is one number, `kept`: the length of the prefix that was handed to the disk and the digest.
struct Download: Sendable {
  struct Limits: Sendable {
    /// The ceiling of the wait after the second break in a row (the first is followed up at once, on another gateway).
    var firstWait = Duration.seconds(1)
    var longestWait = Duration.seconds(30)
    /// A stream that brings nothing for so long counts as broken.
    var silence = Duration.seconds(30)
    /// A download without a single new byte for so long has failed.
    var giveUp = Duration.seconds(24 * 3600)
    /// Between two reports of progress.
    var reportInterval = Duration.milliseconds(500)
    /// How often a file with a wrong digest is fetched anew.
    var refetches = 1
  }

  enum Action: Sendable, Hashable {
    /// Call DownloadFile from this offset on; `gateway` counts up, so that each next call goes to another one.
    case fetch(offset: Int64, turn: Int)
    /// Hand the chunk over to disk and digest.
    case keep
    /// Cancel the call.
    case cancel
    /// Forget the kept bytes: the next fetch starts at 0.
    case discard
    /// Flush to the disk and finish the digest, then call `digested`.
    case finish
    /// Rename into place, then call `placed`.
    case place
    case report(Progress)
    /// Make what is kept safe, and record how much it is.
    case checkpoint
  }

  enum Progress: Sendable, Hashable {
    case downloading(kept: Int64)
    case verified(path: String, md5: String)
    case failed(reason: String, md5: String)

    var isFinal: Bool {
      if case .downloading = self { false } else { true }
    }
  }

  enum Phase: Sendable, Hashable {
    case preparing, fetching, waiting(until: Int64), verifying, placing(md5: String)
    case ended(Progress)
  }

  /// Why a call ended before the file did.
  enum Break: Sendable, Hashable {
    /// Another gateway or a later time may do better.
    case passing(String)
    /// No gateway will ever give this file.
    case lasting(String)
  }

  let size: Int64
  /// Lower-case hex; empty when the notice has none.
  let md5: String
  let limits: Limits
  private(set) var phase = Phase.preparing
  /// Bytes from the start of the file that were taken.
  private(set) var kept: Int64 = 0
  private var turn = 0
  private var breaks = 0
  private var refetches = 0
  private var backoff: Backoff
  /// When the last new byte came, and when the call began or anything came on it.
  private var lastProgress: Int64
  private var lastHeard: Int64
  private var lastReport = Int64.min / 2
  private var lastCheckpoint: Int64 = 0

  /// How many bytes are fetched between two checkpoints.
  static let checkpointBytes: Int64 = 20 << 20

  init(size: Int64, md5: String, limits: Limits = Limits(), seed: UInt64, now: Int64) {
    self.size = size
    self.md5 = md5
    self.limits = limits
    backoff = Backoff(first: limits.firstWait, longest: limits.longestWait, seed: seed)
    lastProgress = now
    lastHeard = now
  }

  /// When to call `timePassed`; nil for never.
  var wakeTime: Int64? {
    switch phase {
    case .waiting(let until): until
    case .fetching: lastHeard + limits.silence.nanoseconds
    case .preparing, .verifying, .placing, .ended: nil
    }
  }

  // MARK: Inputs

  /// The part file is open and this much of it is good.
  mutating func prepared(kept: Int64, now: Int64) -> [Action] {
    guard phase == .preparing else { return [] }
    guard size >= 0 else { return fail("the notice announces a negative size") }
    guard kept <= size else {
      return [.discard] + start(at: 0, now)
    }
    return start(at: kept, now)
  }

  /// The file stands in place already, with the announced size.
  mutating func found(path: String, md5 found: String) -> [Action] {
    guard phase == .preparing else { return [] }
    kept = size
    return end(.verified(path: path, md5: found))
  }

  mutating func chunk(offset: Int64, length: Int64, isLast: Bool, now: Int64) -> [Action] {
    guard phase == .fetching else { return [] }
    lastHeard = now
    guard length == 0 || offset == kept else {
      return [.cancel] + broken(.passing("a chunk at \(offset) came instead of one at \(kept)"), now)
    }
    guard length <= size - kept else { return [.cancel] + fail("the file is longer than announced") }
    var actions: [Action] = []
    if length > 0 {
      kept += length
      lastProgress = now
      breaks = 0
      backoff.reset()
      actions.append(.keep)
    }
    if kept == size {
      phase = .verifying
      return actions + [.finish]
    }
    if isLast { return actions + fail("the file is shorter than announced: it ends at \(kept) of \(size)") }
    if kept - lastCheckpoint >= Self.checkpointBytes {
      lastCheckpoint = kept
      actions.append(.checkpoint)
    }
    return actions + progress(now)
  }

  /// The call has ended, with its last chunk or before.
  mutating func callEnded(_ reason: Break, now: Int64) -> [Action] {
    guard phase == .fetching else { return [] }
    return broken(reason, now)
  }

  mutating func digested(_ computed: String, now: Int64) -> [Action] {
    guard phase == .verifying else { return [] }
    if md5.isEmpty || md5 == computed {
      phase = .placing(md5: computed)
      return [.place]
    }
    guard refetches < limits.refetches else {
      return [.discard] + fail("the MD5 is \(computed) instead of \(md5)", md5: computed)
    }
    refetches += 1
    return [.discard] + start(at: 0, now)
  }

  mutating func placed(path: String) -> [Action] {
    guard case .placing(let md5) = phase else { return [] }
    return end(.verified(path: path, md5: md5))
  }

  /// The endpoint itself can't go on: its disk, its permissions.
  mutating func localFailure(_ reason: String) -> [Action] {
    if case .ended = phase { return [] }
    return (phase == .fetching ? [.cancel] : []) + fail(reason)
  }

  mutating func timePassed(now: Int64) -> [Action] {
    switch phase {
    case .waiting(let until) where now >= until: start(at: kept, now)
    case .fetching where now - lastHeard >= limits.silence.nanoseconds:
      [.cancel] + broken(.passing("the gateway sent nothing for too long"), now)
    default: []
    }
  }

  // MARK: Transitions

  private mutating func start(at offset: Int64, _ now: Int64) -> [Action] {
    kept = offset
    lastCheckpoint = offset
    if kept == size {
      phase = .verifying
      return [.finish]
    }
    phase = .fetching
    let fetch = Action.fetch(offset: offset, turn: turn)
    turn += 1
    lastHeard = now
    return progress(now) + [fetch]
  }

  private mutating func broken(_ reason: Break, _ now: Int64) -> [Action] {
    switch reason {
    case .lasting(let reason): return fail(reason)
    case .passing(let reason):
      guard now - lastProgress < limits.giveUp.nanoseconds else {
        return fail("no byte came for \(limits.giveUp.components.seconds) s: \(reason)")
      }
      breaks += 1
      phase = .waiting(until: breaks == 1 ? now : now + backoff.next())
      return [.checkpoint]
    }
  }

  private mutating func progress(_ now: Int64) -> [Action] {
    guard now - lastReport >= limits.reportInterval.nanoseconds else { return [] }
    lastReport = now
    return [.report(.downloading(kept: kept))]
  }

  private mutating func fail(_ reason: String, md5: String = "") -> [Action] {
    end(.failed(reason: reason, md5: md5))
  }

  private mutating func end(_ result: Progress) -> [Action] {
    phase = .ended(result)
    return [.report(result)]
  }
}
