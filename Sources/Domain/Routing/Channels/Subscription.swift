internal import Reactor

/// What one subscriber of a channel has had, and what comes next.
///
///     replaying ──page, nothing follows──► live
///         │ another epoch, a trim above what was replayed   │ another epoch, a trim above its place
///         └──────────────────────► broken ◄─────────────────┘
///
/// The first page fixes N, the channel's newest ordinal at that moment. What had arrived by then is replayed in the order of
/// keys, page by page; frames that arrive meanwhile stand among the keys, too, and are passed over: their ordinals are above
/// N. Then comes what arrived after N, in the order of arrival. So nothing is missing between the two, and nothing comes
/// twice. A live frame whose key is below one that was delivered is late; with a reorder window a frame is held for that
/// long first, to let those before it overtake it.
///
/// A value without I/O: pages, frames and the time go in, frames to be written come out.
public struct Subscription: Sendable {
  /// Frames that a reorder window holds at most; past that those with the lowest keys go out early.
  public static let maximumHeld = 10_000

  public struct Output: Equatable, Sendable {
    public var frame: StoredFrame
    /// A frame with a higher key was delivered before.
    public var isLate: Bool
  }

  public enum Phase: Equatable, Sendable { case replaying, live }

  /// What a replay can't show, known with its first page.
  public struct Certificate: Equatable, Sendable {
    public var head: ChannelHead
    /// Frames that were asked for may be gone, up to the floor of the head: taken out before, or while they are replayed.
    public var isTruncated: Bool
  }

  public private(set) var phase = Phase.replaying
  public private(set) var certificate: Certificate?
  /// Everything that arrived up to there is done with. Set by the first page.
  public private(set) var position: Int64 = 0
  private let start: Int64
  private let window: Duration
  private var cursor: FrameKey?
  private var highest: FrameKey?
  private var floorTold: FrameKey?
  private var held: [(key: FrameKey, frame: StoredFrame, deadline: Int64)] = []

  /// - Parameter start: the lowest seq_no wanted.
  public init(start: Int64, reorderWindow: Duration = .zero) {
    self.start = start
    window = reorderWindow
  }

  // MARK: Replay

  /// Where the next page of the replay begins.
  public var nextPage: Channels.Start { cursor.map { .after($0) } ?? .seqNo(start) }

  /// A page has come, read from `nextPage`.
  ///
  /// - Returns: what is to be written, in order.
  public mutating func replayed(_ page: ChannelPage) -> Result<[Output], Broken> {
    if let certificate {
      guard page.head.epoch == certificate.head.epoch, page.head.newest >= position else {
        return .failure(Broken(.epochChanged))
      }
      if let floor = page.head.floor, floorTold.map({ floor > $0 }) ?? true, cursor.map({ floor > $0 }) ?? true,
        floor.seqNo >= start
      {
        return .failure(Broken(.truncated))
      }
    } else {
      let isTruncated = page.head.floor.map { $0.seqNo >= start } ?? false
      certificate = Certificate(head: page.head, isTruncated: isTruncated)
      position = page.head.newest
      floorTold = page.head.floor
    }
    var outputs: [Output] = []
    for frame in page.frames {
      cursor = frame.key
      guard frame.ordinal <= position else { continue }
      highest = frame.key
      outputs.append(Output(frame: frame, isLate: false))
    }
    if page.isComplete { phase = .live }
    return .success(outputs)
  }

  public struct Broken: Error, Equatable, Sendable {
    public var reason: ChannelBreak

    public init(_ reason: ChannelBreak) { self.reason = reason }
  }

  // MARK: Live

  /// Frames that are in no memory any more were read from the store after `position`, by arrival: whether all are there.
  public func misses(_ page: ChannelPage) -> ChannelBreak? {
    guard page.head.epoch == certificate?.head.epoch, page.head.newest >= position else { return .epochChanged }
    return page.head.trimmed > position ? .truncated : nil
  }

  /// The next arrival after `position`; one at or below it is passed over.
  public mutating func arrived(_ frame: StoredFrame, now: Int64) -> Result<[Output], Broken> {
    guard frame.ordinal > position else { return .success([]) }
    // What was the newest when this subscriber came has been lost since, and others have come in its place.
    guard frame.previous == position else { return .failure(Broken(.epochChanged)) }
    position = frame.ordinal
    return .success(taken(frame, now))
  }

  private mutating func taken(_ frame: StoredFrame, _ now: Int64) -> [Output] {
    guard frame.key.seqNo >= start else { return [] }
    if let highest, frame.key < highest { return [Output(frame: frame, isLate: true)] }
    guard window > .zero else {
      highest = frame.key
      return [Output(frame: frame, isLate: false)]
    }
    let place = held.firstIndex { frame.key < $0.key } ?? held.count
    held.insert((frame.key, frame, now + window.nanoseconds), at: place)
    return held.count > Subscription.maximumHeld ? release(1) : []
  }

  /// When `timePassed` is due, monotonic ns; nil while nothing is held.
  public var deadline: Int64? { held.lazy.map(\.deadline).min() }

  /// Lets out what was held long enough, and what stands before it.
  public mutating func timePassed(now: Int64) -> [Output] {
    release((held.lastIndex { $0.deadline <= now } ?? -1) + 1)
  }

  private mutating func release(_ count: Int) -> [Output] {
    guard count > 0 else { return [] }
    let outputs = held.prefix(count).map { Output(frame: $0.frame, isLate: false) }
    held.removeFirst(count)
    highest = outputs.last?.frame.key
    return outputs
  }

  /// Everything after `position` that arrived up to an ordinal is left out: the subscriber asked for that when it is slow.
  public mutating func skip(to ordinal: Int64) { position = max(position, ordinal) }
}
