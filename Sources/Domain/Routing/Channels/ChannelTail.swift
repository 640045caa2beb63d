public import Bytes

/// The newest part of a channel, as a node that has subscribers of it keeps it in memory.
///
///     stale ──page, nothing follows──► following
///       ▲                                 │ a hint that jumps, a head above what is known
///       └─────────────────────────────────┘
///
/// | in                                            | verdict                                                 |
/// |-----------------------------------------------|---------------------------------------------------------|
/// | hint: its predecessor is the newest           | `appended`                                              |
/// | hint: at or below the newest                  | `known`                                                 |
/// | hint: a jump                                  | `read`: the log knows what lies between                 |
/// | hint: above the newest, its predecessor below | `broken`: the store has lost frames that were here      |
/// | hint: of another epoch                        | `look`: it is late, or the store has begun anew         |
/// | head or page: of another epoch                | `broken`                                                |
/// | head: above the newest                        | `read`                                                  |
/// | page: frames between were trimmed, or the one before its first was lost | `broken`                      |
///
/// A value without I/O. After `broken` whoever follows is told, and a new tail begins.
public struct ChannelTail: Sendable {
  /// Bytes of frames that are kept in memory at most; subscribers further behind read from the store.
  public static let maximumBytes = 8 << 20

  public enum Verdict: Equatable, Sendable {
    case appended
    case known
    /// Read from the store, after `newest`.
    case read
    /// Ask the store how the channel stands.
    case look
    case broken(ChannelBreak)
  }

  public let epoch: String
  /// Everything up to this ordinal is known.
  public private(set) var newest: Int64
  /// Everything above this ordinal is in memory.
  public private(set) var floor: Int64
  private var frames: [StoredFrame] = []
  private var first = 0
  private var bytes = 0
  private let maximumBytes: Int

  /// Follows a channel from its present head on.
  public init(head: ChannelHead, maximumBytes: Int = maximumBytes) {
    epoch = head.epoch
    newest = head.newest
    floor = head.newest
    self.maximumBytes = maximumBytes
  }

  /// The frames after an ordinal, in the order of arrival; nil when not all of them are in memory.
  public func frames(after ordinal: Int64) -> ArraySlice<StoredFrame>? {
    guard ordinal >= floor else { return nil }
    var (low, high) = (first, frames.count)
    while low < high {
      let middle = (low + high) / 2
      if frames[middle].ordinal <= ordinal { low = middle + 1 } else { high = middle }
    }
    return frames[low...]
  }

  /// A frame has been announced.
  public mutating func hinted(_ place: StoredPlace, _ frame: Bytes) -> Verdict {
    guard place.epoch == epoch else { return .look }
    guard place.ordinal > newest else { return .known }
    guard place.previous >= newest else { return .broken(.epochChanged) }
    guard place.previous == newest else { return .read }
    append(StoredFrame(key: place.key, ordinal: place.ordinal, previous: place.previous, frame: frame))
    newest = place.ordinal
    return .appended
  }

  /// The store says how the channel stands.
  public func saw(_ head: ChannelHead) -> Verdict {
    guard head.epoch == epoch, head.newest >= newest else { return .broken(.epochChanged) }
    return head.newest > newest ? .read : .known
  }

  /// The store was read after `newest`, by arrival. - Returns: `appended`, or `read` when more follows.
  public mutating func read(_ page: ChannelPage) -> Verdict {
    guard page.head.epoch == epoch, page.head.newest >= newest else { return .broken(.epochChanged) }
    guard page.head.trimmed <= newest else { return .broken(.truncated) }
    for frame in page.frames where frame.ordinal > newest {
      guard frame.previous == newest else { return .broken(.epochChanged) }
      append(frame)
      newest = frame.ordinal
    }
    guard page.isComplete else { return .read }
    newest = max(newest, page.head.newest)
    return .appended
  }

  private mutating func append(_ frame: StoredFrame) {
    frames.append(frame)
    bytes += frame.frame.count
    while bytes > maximumBytes, first < frames.count {
      bytes -= frames[first].frame.count
      floor = frames[first].ordinal
      first += 1
    }
    guard first > 1024, first > frames.count / 2 else { return }
    frames.removeFirst(first)
    first = 0
  }
}

/// Why a subscription can't go on without saying so.
public enum ChannelBreak: Equatable, Sendable {
  /// The store has lost frames, or the channel was made anew.
  case epochChanged
  /// Retention has taken out frames that were still to come.
  case truncated
}
