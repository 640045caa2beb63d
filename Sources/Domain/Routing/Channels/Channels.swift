public import Bytes
internal import Reactor
public import Redis

/// The channels in Redis: frames in the order of their keys, and in the order of their arrival.
///
/// Belongs to its loop. Every call is one Lua call, which sees one state of the channel.
public final class Channels {
  /// What a channel keeps; past that its oldest arrivals go.
  public struct Retention: Sendable {
    public var frames = 1_000_000
    public var bytes = 1 << 30
    /// nil for any age.
    public var age: Duration? = .seconds(7 * 24 * 3600)

    public init() {}
  }

  /// A channel that nobody has published to for so long is gone.
  public static let lifetime: Duration = .seconds(30 * 24 * 3600)
  /// A frame's buffer in bytes at most.
  public static let maximumFrameBytes = 1 << 20
  /// Frames of one page at most.
  public static let pageFrames = 500
  /// Bytes of one page at most; a single frame may be longer.
  public static let pageBytes = 512 << 10

  private let store: Store
  private let retention: Retention

  public init(_ redis: RedisClient, retention: Retention = Retention()) {
    store = Store(redis)
    self.retention = retention
  }

  /// What has become of a frame that was published.
  public enum Appended: Equatable, Sendable {
    case kept(StoredPlace)
    /// Its id was there, with the same content.
    case duplicate(StoredPlace)
  }

  /// Appends a frame, once.
  ///
  /// - Parameters:
  ///   - key: where it stands; with nil its seq_no is the highest one of the channel, plus one.
  ///   - seen: the newest ordinal of the channel that the caller knows; 0 for none.
  ///   - digest: of everything that two frames of the same id have to agree in.
  /// - Throws: `.conflict` when the id stands with another content; `.exhausted` when there is no next seq_no.
  public func append(
    _ channel: String, key: FrameKey?, id: String, timestamp: Int64, digest: String, frame: Bytes, seen: Int64
  ) async throws(RoutingError) -> Appended {
    let answer = try await store.one(
      .script(
        ChannelScripts.append, keys: Channels.keys(of: channel),
        [
          .integer(seen), .string(Name.random()), .bytes(key?.encoded ?? Bytes()), .string(id),
          .bytes(FrameKey.encodedTimestamp(timestamp)), .string(digest), .bytes(frame),
          .integer(Int64(retention.frames)), .integer(Int64(retention.bytes)), .integer(age),
          .integer(Channels.lifetime.wholeMilliseconds),
        ])
    ).elements
    switch (answer.first?.number ?? -1, answer.count) {
    case (0, 5): return .kept(try Channels.place(answer[1...]))
    case (1, 5): return .duplicate(try Channels.place(answer[1...]))
    case (2, 1): throw RoutingError(.conflict, "A frame with this id stands already, with another content.")
    case (3, 1): throw RoutingError(.exhausted, "The channel's highest seq_no leaves no next one to give.")
    default: throw Channels.unreadable
    }
  }

  /// How a channel stands. Looking at one that isn't there makes it, so that its epoch is known before its first frame.
  public func look(_ channel: String, seen: Int64) async throws(RoutingError) -> ChannelHead {
    let answer = try await store.one(
      .script(
        ChannelScripts.look, keys: Channels.keys(of: channel),
        [.integer(seen), .string(Name.random()), .integer(age)])
    ).elements
    guard answer.count == 6 else { throw Channels.unreadable }
    return try Channels.head(answer)
  }

  /// Where a page by key begins.
  public enum Start: Hashable, Sendable {
    /// At the first frame of this seq_no, or above.
    case seqNo(Int64)
    /// Behind a frame.
    case after(FrameKey)

    var argument: Bytes {
      switch self {
      case .seqNo(let seqNo): Bytes([UInt8(ascii: "[")] + FrameKey.start(at: seqNo).withUnsafeBytes { [UInt8]($0) })
      case .after(let key): Bytes([UInt8(ascii: "(")] + key.encoded.withUnsafeBytes { [UInt8]($0) })
      }
    }
  }

  /// Reads a page in the order of the channel.
  public func read(_ channel: String, from start: Start, seen: Int64) async throws(RoutingError) -> ChannelPage {
    try await read(ChannelScripts.readByKey, channel, from: .bytes(start.argument), seen)
  }

  /// Reads a page in the order of arrival.
  public func read(_ channel: String, after ordinal: Int64, seen: Int64) async throws(RoutingError) -> ChannelPage {
    try await read(ChannelScripts.readByOrdinal, channel, from: .integer(ordinal), seen)
  }

  private func read(
    _ script: RedisScript, _ channel: String, from start: RedisArgument, _ seen: Int64
  ) async throws(RoutingError) -> ChannelPage {
    let answer = try await store.one(
      .script(
        script, keys: Channels.keys(of: channel),
        [
          .integer(seen), .string(Name.random()), start, .integer(Int64(Channels.pageFrames)),
          .integer(Int64(Channels.pageBytes)),
        ])
    ).elements
    guard answer.count >= 5, answer.count % 4 == 1 else { throw Channels.unreadable }
    var page = ChannelPage(head: try Channels.head(answer), isComplete: answer[4].number == 1, frames: [])
    page.frames.reserveCapacity(answer.count / 4)
    for index in stride(from: 5, to: answer.count, by: 4) {
      guard let key = FrameKey(encoded: answer[index].asBytes ?? Bytes()) else { throw Channels.unreadable }
      page.frames.append(
        StoredFrame(
          key: key, ordinal: answer[index + 1].number, previous: answer[index + 2].number,
          frame: answer[index + 3].asBytes ?? Bytes()))
    }
    return page
  }

  private var age: Int64 { retention.age?.wholeMilliseconds ?? 0 }

  private static let unreadable = RoutingError(.corrupt, "Redis answered for a channel with something else.")

  private static func place(_ answer: ArraySlice<RedisValue>) throws(RoutingError) -> StoredPlace {
    let values = Array(answer)
    guard let key = FrameKey(encoded: values[3].asBytes ?? Bytes()) else { throw unreadable }
    return StoredPlace(epoch: values[0].text, ordinal: values[1].number, previous: values[2].number, key: key)
  }

  private static func head(_ answer: [RedisValue]) throws(RoutingError) -> ChannelHead {
    var head = ChannelHead(epoch: answer[0].text, newest: answer[1].number)
    head.trimmed = answer[2].number
    head.floor = FrameKey(encoded: answer[3].asBytes ?? Bytes())
    if answer.count == 6 {
      head.lowest = FrameKey(encoded: answer[4].asBytes ?? Bytes())
      head.highest = FrameKey(encoded: answer[5].asBytes ?? Bytes())
    }
    return head
  }

  private static func keys(of channel: String) -> [RedisArgument] {
    let key = Key.channel(channel)
    return [.string(key)] + [":log", ":frames", ":ids", ":state"].map { .string(key + $0) }
  }
}

extension FrameKey {
  static func encodedTimestamp(_ timestamp: Int64) -> Bytes { start(at: timestamp) }
}

/// Where a frame stands in its channel.
public struct StoredPlace: Equatable, Sendable {
  /// New with each life of the channel.
  public var epoch: String
  /// Grows with each arrival, with gaps.
  public var ordinal: Int64
  /// The arrival before it; 0 for the first one.
  public var previous: Int64
  public var key: FrameKey
}

/// A frame as the channel keeps it.
public struct StoredFrame: Hashable, Sendable {
  public var key: FrameKey
  public var ordinal: Int64
  /// The arrival before it, kept still or not; 0 for the first one.
  public var previous: Int64
  /// A `broadcast.v1.Frame`.
  public var frame: Bytes

  public init(key: FrameKey, ordinal: Int64, previous: Int64, frame: Bytes) {
    self.key = key
    self.ordinal = ordinal
    self.previous = previous
    self.frame = frame
  }
}

/// How a channel stands.
public struct ChannelHead: Equatable, Sendable {
  /// New with each life of the channel, and when Redis has lost its newest frames.
  public var epoch: String
  /// The newest ordinal; 0 while nothing was published.
  public var newest: Int64
  /// The newest arrival that retention has taken out; 0 for none.
  public var trimmed: Int64 = 0
  /// The highest frame that retention has taken out: below it, frames may be missing.
  public var floor: FrameKey?
  /// Of what is kept.
  public var lowest: FrameKey?
  /// Of what is kept.
  public var highest: FrameKey?

  public init(epoch: String, newest: Int64) {
    self.epoch = epoch
    self.newest = newest
  }
}

/// A piece of a channel, in one of its orders, with how the channel stood when it was read.
public struct ChannelPage: Sendable {
  public var head: ChannelHead
  /// Nothing follows.
  public var isComplete: Bool
  public var frames: [StoredFrame]

  public init(head: ChannelHead, isComplete: Bool, frames: [StoredFrame]) {
    self.head = head
    self.isComplete = isComplete
    self.frames = frames
  }
}
