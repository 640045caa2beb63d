internal import GRPC
internal import Reactor
internal import Routing

/// Pages of a channel's history: those who want the same one at about the same time read and encode it once. Belongs to the
/// node's loop.
final class ReplayPages {
  /// Pages that are kept for the next one who wants them.
  static let kept = 16

  final class Page {
    let page: ChannelPage
    let encoded: [EncodedMessage]

    init(_ page: ChannelPage) {
      self.page = page
      encoded = page.frames.map { FrameDraft.encoded($0, isLate: false) }
    }
  }

  private let channel: String
  private let store: Channels
  private var pages: [Channels.Start: Page] = [:]
  private var order: [Channels.Start] = []
  private var reading: Set<Channels.Start> = []
  private let read = Changes()

  init(channel: String, store: Channels) {
    self.channel = channel
    self.store = store
  }

  /// - Parameter ordinal: everything that arrived up to there has to be in the page, where its place is in it; an older page
  ///   is read again.
  func page(from start: Channels.Start, covering ordinal: Int64, seen: Int64) async throws(RoutingError) -> Page {
    while reading.contains(start) { await read.next() }
    if let known = pages[start], known.page.head.newest >= ordinal { return known }
    reading.insert(start)
    defer {
      reading.remove(start)
      read.signal()
    }
    let page = Page(try await store.read(channel, from: start, seen: max(seen, ordinal)))
    keep(page, start)
    return page
  }

  private func keep(_ page: Page, _ start: Channels.Start) {
    // The end of the history grows: whoever comes there reads it.
    guard page.page.isComplete == false else { return }
    if pages.updateValue(page, forKey: start) == nil { order.append(start) }
    if order.count > ReplayPages.kept { pages[order.removeFirst()] = nil }
  }

  func forget() {
    pages = [:]
    order = []
  }
}
