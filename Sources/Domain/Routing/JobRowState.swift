/// How far a message has come with one client of its job. The numbers are those of `push.v1.JobTarget.State`.
public enum JobRowState: UInt8, Sendable, CaseIterable {
  case accepted = 1
  case routed = 2
  case written = 3
  case acknowledged = 4
  case downloading = 5
  case verified = 6
  case failed = 7
  case expired = 8
}

/// What a job brings, which decides what its good end is.
public enum JobKind: String, Sendable, CaseIterable {
  /// A text or an event: over when the client has acknowledged it.
  case message
  /// A file: over when the client has verified it.
  case file
}

/// A row's states and its steps.
///
///     from \ to      accepted routed written acknowledged downloading verified failed expired
///     accepted          •        •       •         •           f          f       •       •
///     routed                             •         •           f          f       •       •
///     written                                      •           f          f       •       •
///     acknowledged                                             f          f       f       f
///     downloading                                              f          f       f       f
///     verified
///     failed                                       m                      f
///     expired                                      m                      f
///
/// • for every kind, f for a file alone, m for a message alone. A report that comes late or twice is no step, and changes
/// nothing. What a client has is true whatever was said before: so FAILED and EXPIRED give way to the good end. Two steps
/// stay in their state: accepted, with a word about where the message waits, and downloading, with another percentage.
extension JobRowState {
  public func isEnd(of kind: JobKind) -> Bool {
    switch self {
    case .failed, .expired, .verified: true
    case .acknowledged: kind == .message
    case .accepted, .routed, .written, .downloading: false
    }
  }

  public func isGoodEnd(of kind: JobKind) -> Bool {
    self == (kind == .message ? .acknowledged : .verified)
  }

  /// Whether a row in this state takes the step.
  public func canBecome(_ next: JobRowState, of kind: JobKind) -> Bool {
    if (self == .failed || self == .expired), next.isGoodEnd(of: kind) { return true }
    if isEnd(of: kind) { return false }
    switch next {
    case .accepted: return self == .accepted
    case .routed, .written, .acknowledged: return next.rawValue > rawValue
    case .downloading, .verified: return kind == .file
    case .failed, .expired: return true
    }
  }

  /// The states from which a row takes the step to this one, as digits: what the ledger's script compares with.
  func predecessors(of kind: JobKind) -> String {
    JobRowState.allCases.filter { $0.canBecome(self, of: kind) }.map { String($0.rawValue) }.joined()
  }
}

/// The state of a whole job, which follows from its rows. The numbers are those of `push.v1.JobStatus.State`.
public enum JobState: UInt8, Sendable {
  case running = 1
  case succeeded = 2
  case failed = 3
  case cancelled = 4

  /// - Parameter counts: how many rows are in each state.
  public init(counts: [JobRowState: Int], kind: JobKind, isCancelled: Bool) {
    let open = counts.filter { !$0.key.isEnd(of: kind) }.reduce(0) { $0 + $1.value }
    let bad = (counts[.failed] ?? 0) + (counts[.expired] ?? 0)
    self = isCancelled ? .cancelled : open > 0 ? .running : bad > 0 ? .failed : .succeeded
  }

  public var isEnd: Bool { self != .running }
}
