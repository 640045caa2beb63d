internal import Bytes
internal import GRPC
internal import Protobuf
internal import Reactor
internal import Routing
internal import Schema
internal import Telemetry

/// One `Subscribe` stream: carries out what its `Subscription` decides. Belongs to the node's loop; lives as long as its
/// call.
final class ChannelSubscriber: ServerStreamHandler {
  /// Bytes queued for one subscriber at most; past that it waits in the channel, and its policy says for how long.
  static let maximumQueuedBytes = 256 << 10
  /// The longest reorder window.
  static let maximumWindow: Duration = .seconds(60)
  /// Where the gap certificate stands in the initial metadata.
  static let certificateName = "x-gap-certificate-bin"

  private let call: ServerCall
  private let feeds: ChannelFeeds
  private var feed: ChannelFeed?
  private var subscription = Subscription(start: 0)
  private var policy = BroadcastV1.SubscribeRequest.SlowReader.disconnect
  private var isReading = false
  private var hasStalled = false
  private var isOver = false
  private var timer: LoopTimer?
  /// Where it stands among the feed's subscribers; kept by the feed.
  var index = -1

  init(_ call: ServerCall, feeds: ChannelFeeds) {
    self.call = call
    self.feeds = feeds
  }

  // MARK: What the call tells

  func received(_ message: Bytes) {
    guard feed == nil, !isOver else { return finish(Status(.invalidArgument, "A subscription is one request.")) }
    do {
      try begin(try BroadcastV1.SubscribeRequest(serialized: message))
    } catch let error as ProtobufError {
      finish(Status(.invalidArgument, "The message is no SubscribeRequest: \(error.message)."))
    } catch {
      finish(Status(error))
    }
  }

  private func begin(_ request: BroadcastV1.SubscribeRequest) throws {
    let channel = request.channel.isEmpty ? ChannelFeeds.defaultChannel : request.channel
    do throws(RoutingError) { try Name.validate(channel, as: "channel") } catch { throw Status(error) }
    let window = Duration.milliseconds(Int64(request.reorderWindowMs))
    guard window >= .zero, window <= Self.maximumWindow else {
      throw Status(.invalidArgument, "The reorder window is negative, or longer than \(Self.maximumWindow).")
    }
    if case .unrecognized = request.slowReader {
      throw Status(.invalidArgument, "The policy for a slow reader is none of ours.")
    }
    policy = request.slowReader
    subscription = Subscription(start: request.replaySeqNoStart, reorderWindow: window)
    feed = try feeds.join(self, channel)
    advance()
  }

  func requestsEnded() {
    if feed == nil { finish(Status(.invalidArgument, "The call ended without a SubscribeRequest.")) }
  }

  func writable() { advance() }

  func closed() {
    isOver = true
    timer?.cancel()
    leave()
  }

  private func leave() {
    guard let feed else { return }
    self.feed = nil
    feeds.leave(self, feed)
  }

  // MARK: What the feed tells

  /// Ends the stream with a status.
  func finish(_ status: Status) {
    guard !isOver else { return }
    isOver = true
    timer?.cancel()
    call.finish(status)
  }

  func breakOff(_ reason: ChannelBreak) {
    guard !isOver else { return }
    feeds.metrics.breaks.increment()
    var head = subscription.certificate?.head ?? ChannelHead(epoch: "", newest: 0)
    head.newest = subscription.position
    let sentence =
      switch reason {
      case .epochChanged: "The channel's store has lost frames; subscribe again for what there is."
      case .truncated: "Frames that were still to come have been trimmed; subscribe again for what there is."
      }
    let certificate = BroadcastV1.GapCertificate(head, isTruncated: reason == .truncated)
    finish(Status(.dataLoss, sentence, details: certificate.serialized()))
  }

  /// Goes on as far as there is something to write, and room for it.
  func advance() {
    guard !isOver, !isReading, let feed else { return }
    guard subscription.phase == .live else { return read(feed) }
    guard let tail = feed.tail else { return }
    guard let frames = tail.frames(after: subscription.position) else { return fallBehind(feed, tail) }
    if hasStalled, policy == .conflate, frames.count > 1, hasRoom, let last = frames.last {
      skip(to: last.previous)
      return advance()
    }
    for frame in frames {
      guard hasRoom else { return hasStalled = true }
      guard take(frame, feed) else { return }
    }
    hasStalled = false
  }

  private var hasRoom: Bool { call.pendingBytes < ChannelSubscriber.maximumQueuedBytes }

  /// - Returns: whether the stream goes on.
  private func take(_ frame: StoredFrame, _ feed: ChannelFeed) -> Bool {
    switch subscription.arrived(frame, now: feeds.loop.now) {
    case .success(let outputs):
      write(outputs, feed)
      setTimer()
      return !isOver
    case .failure(let broken):
      breakOff(broken.reason)
      return false
    }
  }

  private func write(_ outputs: [Subscription.Output], _ feed: ChannelFeed) {
    for output in outputs {
      call.send(output.isLate ? FrameDraft.encoded(output.frame, isLate: true) : feed.encoded(output.frame))
      if output.isLate { feeds.metrics.late.increment() }
    }
    feeds.metrics.written.increment(by: outputs.count)
  }

  // MARK: Slow readers

  /// What comes next is not in memory any more.
  private func fallBehind(_ feed: ChannelFeed, _ tail: ChannelTail) {
    switch policy {
    case .disconnect where hasStalled:
      finish(
        Status(
          .resourceExhausted,
          "The subscriber reads too slowly: it is more than \(ChannelTail.maximumBytes) bytes behind.",
          retryAfter: .seconds(1)))
    case .dropOldest where hasStalled, .conflate where hasStalled:
      skip(to: tail.floor)
      advance()
    default: read(feed)
    }
  }

  private func skip(to ordinal: Int64) {
    subscription.skip(to: ordinal)
    feeds.metrics.skipped.increment()
  }

  // MARK: Reading from the store

  private func read(_ feed: ChannelFeed) {
    isReading = true
    feeds.loop.spawn { [self] in
      while !isOver, hasRoom, await readPage(feed) {}
      isReading = false
      advance()
    }
  }

  /// - Returns: whether to read on.
  private func readPage(_ feed: ChannelFeed) async -> Bool {
    do throws(RoutingError) {
      guard subscription.phase == .replaying else {
        return caughtUp(try await feed.page(after: subscription.position), feed)
      }
      return replayed(
        try await feed.page(from: subscription.nextPage, covering: subscription.position), feed)
    } catch {
      feeds.log.warning("channel not read", ["channel": feed.name, "error": error.message])
      return (try? await feeds.loop.sleep(for: ChannelFeed.retryDelay)) != nil
    }
  }

  private func replayed(_ page: ReplayPages.Page, _ feed: ChannelFeed) -> Bool {
    guard !isOver else { return false }
    let isFirst = subscription.certificate == nil
    switch subscription.replayed(page.page) {
    case .failure(let broken):
      breakOff(broken.reason)
      return false
    case .success(let outputs):
      if isFirst { certify() }
      // Outputs are the page's frames without those that come live.
      var encoded = zip(page.page.frames, page.encoded).makeIterator()
      for output in outputs {
        while let (frame, message) = encoded.next() {
          guard frame.ordinal == output.frame.ordinal else { continue }
          call.send(message)
          break
        }
      }
      feeds.metrics.written.increment(by: outputs.count)
      return subscription.phase == .replaying
    }
  }

  /// The certificate goes ahead of the first frame.
  private func certify() {
    guard let certificate = subscription.certificate else { return }
    let wire = BroadcastV1.GapCertificate(certificate.head, isTruncated: certificate.isTruncated)
    call.context.initialMetadata.append(Self.certificateName, binary: wire.serialized())
    call.sendHeaders()
  }

  private func caughtUp(_ page: ChannelPage, _ feed: ChannelFeed) -> Bool {
    guard !isOver else { return false }
    if let reason = subscription.misses(page) {
      breakOff(reason)
      return false
    }
    for frame in page.frames where !take(frame, feed) { return false }
    // What follows is in memory, or will be read again.
    return feed.tail.map { $0.frames(after: subscription.position) == nil } ?? false
  }

  // MARK: The reorder window

  private func setTimer() {
    timer?.cancel()
    guard let deadline = subscription.deadline else { return }
    timer = feeds.loop.schedule(after: .nanoseconds(max(0, deadline - feeds.loop.now))) { [weak self] in
      guard let self, let feed, !isOver else { return }
      write(subscription.timePassed(now: feeds.loop.now), feed)
      setTimer()
    }
  }
}
