internal import Bytes
internal import FileStore
internal import GRPC
internal import Protobuf
internal import Reactor
internal import Routing
internal import Schema
internal import Telemetry

/// `BroadcastService`: frames in, and the channels that have subscribers on this node. Belongs to the node's loop.
final class ChannelFeeds {
  /// Channels with subscribers on one node; a subscription to one more is RESOURCE_EXHAUSTED.
  static let maximumFeeds = 10_000
  /// Channels of which the newest ordinal is remembered that was published here; past that all are forgotten.
  static let maximumPublished = 10_000
  /// How often each channel is compared with the store: a lost hint costs that much time, and no frame.
  static let lookInterval: Duration = .seconds(1)
  static let defaultChannel = "default"

  let loop: EventLoop
  let store: Channels
  let metrics: ChannelMetrics
  let log: Logger
  private let publisher: Publisher
  private var feeds: [String: ChannelFeed] = [:]
  private var published: [String: Int64] = [:]
  private var isDraining = false
  private var timer: LoopTimer?

  init(store: Channels, publisher: Publisher, loop: EventLoop, metrics: ChannelMetrics, log: Logger) {
    self.store = store
    self.publisher = publisher
    self.loop = loop
    self.metrics = metrics
    self.log = log
  }

  // MARK: Publishing

  /// Keeps a frame, and tells every node of it.
  func publish(_ frame: BroadcastV1.Frame) async throws -> BroadcastV1.PublishResponse {
    let draft = try FrameDraft(frame)
    let (channel, seen) = (draft.channel, newest(of: draft.channel))
    let appended = try await translated { () async throws(RoutingError) in
      try await store.append(
        channel, key: draft.key, id: draft.id, timestamp: frame.timestamp, digest: draft.digest, frame: draft.payload,
        seen: seen)
    }
    switch appended {
    case .duplicate(let place):
      return BroadcastV1.PublishResponse(
        ordinal: place.ordinal, id: draft.id, duplicate: true, seqNo: place.key.seqNo)
    case .kept(let place):
      announce(place, draft)
      return BroadcastV1.PublishResponse(ordinal: place.ordinal, id: draft.id, seqNo: place.key.seqNo)
    }
  }

  /// The store has the frame: the record is a hint, and the publisher doesn't wait for it.
  private func announce(_ place: StoredPlace, _ draft: FrameDraft) {
    metrics.published.increment()
    if published.count >= ChannelFeeds.maximumPublished { published = [:] }
    published[draft.channel] = max(place.ordinal, published[draft.channel] ?? 0)
    feeds[draft.channel]?.hinted(place, draft.payload)
    let record = PushRecord(channel: draft.channel, place: place, frame: draft.payload)
    publisher.broadcast(record) { [log] error in
      if let error { log.debug("frame not announced", ["channel": draft.channel, "error": error.message]) }
    }
  }

  private func newest(of channel: String) -> Int64 {
    max(feeds[channel]?.newest ?? 0, published[channel] ?? 0)
  }

  // MARK: Subscribing

  /// A new `Subscribe` stream.
  func subscribe(_ call: ServerCall) -> any ServerStreamHandler { ChannelSubscriber(call, feeds: self) }

  /// The feed that a subscriber joins; `leave` has to follow.
  func join(_ subscriber: ChannelSubscriber, _ channel: String) throws(Status) -> ChannelFeed {
    guard !isDraining else { throw ChannelFeeds.draining }
    if feeds[channel] == nil {
      guard feeds.count < ChannelFeeds.maximumFeeds else {
        throw Status(
          .resourceExhausted, "This node follows \(feeds.count) channels, as many as it may.", retryAfter: .seconds(1))
      }
      feeds[channel] = ChannelFeed(channel, feeds: self)
      if timer == nil { lookLater() }
    }
    guard let feed = feeds[channel] else { throw ChannelFeeds.draining }
    feed.add(subscriber)
    metrics.subscribers.add(1)
    return feed
  }

  func leave(_ subscriber: ChannelSubscriber, _ feed: ChannelFeed) {
    feed.remove(subscriber)
    metrics.subscribers.add(-1)
    if feed.isEmpty, feeds[feed.name] === feed { feeds[feed.name] = nil }
  }

  // MARK: What the node tells

  /// A record of `client-broadcast` has come.
  func hinted(_ record: PushRecord) {
    guard case .channel(let name) = record.target, let feed = feeds[name], let place = record.storedPlace else {
      return
    }
    feed.hinted(place, record.message)
  }

  private func lookLater() {
    timer = loop.schedule(after: ChannelFeeds.lookInterval) { [weak self] in
      guard let self, !isDraining else { return }
      timer = nil
      lookAtAll()
      if !feeds.isEmpty { lookLater() }
    }
  }

  /// Compares every channel with the store; also when records may have been passed over.
  func lookAtAll() { for feed in feeds.values { feed.look() } }

  static let draining = Status(.unavailable, "This node is shutting down.", retryAfter: .seconds(1))

  /// Tells every subscriber to go elsewhere, and takes no more.
  func drain() {
    isDraining = true
    timer?.cancel()
    for feed in feeds.values { feed.end(ChannelFeeds.draining) }
  }
}

/// What a gateway counts of its channels.
struct ChannelMetrics {
  let subscribers: Gauge
  let published: Counter
  let written: Counter
  let late: Counter
  let skipped: Counter
  let breaks: Counter

  init(_ registry: MetricsRegistry) {
    subscribers = registry.gauge("fleetpush_channel_subscribers", "Subscriptions on this node.")
    published = registry.counter("fleetpush_frames_published_total", "Frames published here.")
    written = registry.counter("fleetpush_frames_written_total", "Frames written to subscribers.")
    late = registry.counter("fleetpush_frames_late_total", "Frames written behind one that stands after them.")
    skipped = registry.counter(
      "fleetpush_frames_skipped_total", "Times that slow subscribers skipped frames, as they had asked for.")
    breaks = registry.counter(
      "fleetpush_channel_breaks_total", "Subscriptions ended because frames are missing that can't be had.")
  }
}
