internal import Bytes
internal import GRPC
internal import Protobuf
internal import Reactor
internal import Routing
internal import Schema
internal import Telemetry

/// One channel on this node: its newest part in memory, its subscribers, and the pages that they share. Belongs to the
/// node's loop.
final class ChannelFeed {
  /// Subscribers that one turn of the loop serves.
  static let subscribersPerTurn = 512
  /// Encoded frames that wait for the next subscriber to want them, too.
  static let keptEncodings = 512
  /// Before a store that didn't answer is asked again.
  static let retryDelay: Duration = .seconds(1)

  let name: String
  private let feeds: ChannelFeeds
  private(set) var subscribers: [ChannelSubscriber] = []
  private(set) var tail: ChannelTail?
  private let pages: ReplayPages
  private var encodings: [Int64: EncodedMessage] = [:]
  private var isReading = false
  private var isLooking = false
  private lazy var pass = SlicedPass(
    loop: feeds.loop, slice: ChannelFeed.subscribersPerTurn, over: { [unowned self] in subscribers },
    visit: { $0.advance() })

  init(_ name: String, feeds: ChannelFeeds) {
    self.name = name
    self.feeds = feeds
    pages = ReplayPages(channel: name, store: feeds.store)
  }

  var isEmpty: Bool { subscribers.isEmpty }
  var newest: Int64 { tail?.newest ?? 0 }

  func add(_ subscriber: ChannelSubscriber) {
    subscriber.index = subscribers.count
    subscribers.append(subscriber)
  }

  func remove(_ subscriber: ChannelSubscriber) {
    let index = subscriber.index
    guard index >= 0 else { return }
    subscriber.index = -1
    let last = subscribers.removeLast()
    if last !== subscriber {
      subscribers[index] = last
      last.index = index
    }
  }

  func end(_ status: Status) { for subscriber in subscribers { subscriber.finish(status) } }

  // MARK: The newest part

  /// A frame has been published.
  func hinted(_ place: StoredPlace, _ frame: Bytes) {
    guard tail != nil, let verdict = tail?.hinted(place, frame) else { return }
    take(verdict)
  }

  /// A page says how the channel stands.
  func learned(_ head: ChannelHead) {
    guard let tail else { return self.tail = ChannelTail(head: head) }
    take(tail.saw(head))
  }

  /// Compares the newest part with the store.
  func look() {
    guard !isLooking, tail != nil else { return }
    isLooking = true
    feeds.loop.spawn { [self] in
      do throws(RoutingError) {
        let head = try await feeds.store.look(name, seen: newest)
        isLooking = false
        learned(head)
      } catch {
        isLooking = false
        feeds.log.debug("channel not compared", ["channel": name, "error": error.message])
      }
    }
  }

  private func take(_ verdict: ChannelTail.Verdict) {
    switch verdict {
    case .known: break
    case .appended: pass.run()
    case .look: look()
    case .read: read()
    case .broken(let reason): breakOff(reason)
    }
  }

  private func read() {
    guard !isReading else { return }
    isReading = true
    feeds.loop.spawn { [self] in
      var verdict = ChannelTail.Verdict.read
      while verdict == .read, let before = tail {
        do throws(RoutingError) {
          let page = try await feeds.store.read(name, after: before.newest, seen: before.newest)
          // Hints may have come meanwhile, and a break.
          guard tail?.epoch == before.epoch, newest == before.newest else { continue }
          verdict = tail?.read(page) ?? .known
        } catch {
          // The next look comes here again.
          feeds.log.warning("channel not read", ["channel": name, "error": error.message])
          verdict = .known
        }
      }
      isReading = false
      take(verdict)
    }
  }

  /// Frames are missing that can't be had: every subscriber is told, and comes again for what there is.
  private func breakOff(_ reason: ChannelBreak) {
    feeds.log.warning("channel broken", ["channel": name, "reason": "\(reason)", "subscribers": subscribers.count])
    tail = nil
    encodings = [:]
    pages.forget()
    for subscriber in subscribers { subscriber.breakOff(reason) }
  }

  // MARK: Serving

  /// A frame of the newest part, encoded once for all.
  func encoded(_ frame: StoredFrame) -> EncodedMessage {
    if let known = encodings[frame.ordinal] { return known }
    if encodings.count >= ChannelFeed.keptEncodings { encodings = [:] }
    let encoded = FrameDraft.encoded(frame, isLate: false)
    encodings[frame.ordinal] = encoded
    return encoded
  }

  // MARK: Replay

  /// A page of the history, which subscribers that want the same one share.
  func page(from start: Channels.Start, covering ordinal: Int64) async throws(RoutingError) -> ReplayPages.Page {
    let page = try await pages.page(from: start, covering: ordinal, seen: newest)
    learned(page.page.head)
    return page
  }

  /// Frames that are not in memory any more.
  func page(after ordinal: Int64) async throws(RoutingError) -> ChannelPage {
    try await feeds.store.read(name, after: ordinal, seen: max(newest, ordinal))
  }
}
