/// Which messages this endpoint has had: each is handed over once, and acknowledged.
///
/// No I/O. Ids are remembered for the newest `Inbox.rememberedIDs` messages, of which the newest `Inbox.keptIDs` outlive
/// the process; numbered messages also by their place, which is never forgotten.
struct Inbox: Sendable {
  /// How many message ids are kept to recognise a repetition by.
  static let rememberedIDs = 4096
  /// How many of them are written down, for the case that the server's inbox is a new one after a restart.
  static let keptIDs = 256

  /// A source of numbered messages: the inbox, or a log.
  struct Source: Sendable, Hashable {
    var name: String
    var inboxID: String
  }

  /// What a message says of its place; `seq` is 0 for best effort.
  struct Label: Sendable, Hashable {
    var messageID: String
    var source = Source(name: "", inboxID: "")
    var seq: Int64 = 0
    var previous: Int64 = 0
  }

  /// Every numbered message up to this one was had, by source.
  private(set) var positions: [Source: Int64]
  private var remembered: Set<String> = []
  private var order: [String] = []
  private var oldest = 0

  /// - Parameter ids: those of an earlier run, the oldest first.
  init(positions: [Source: Int64] = [:], ids: [String] = []) {
    self.positions = positions
    for id in ids { remember(id) }
  }

  /// The newest ids, the oldest of them first.
  var newestIDs: [String] { Array((order[oldest...] + order[..<oldest]).suffix(Self.keptIDs)) }

  /// Whether a message is new; false for a repetition, which is acknowledged but not handed over.
  mutating func take(_ label: Label) -> Bool {
    let known = !label.messageID.isEmpty && remembered.contains(label.messageID)
    remember(label.messageID)
    guard label.seq > 0 else { return !known }
    let reached = positions[label.source] ?? 0
    guard label.seq > reached else { return false }
    // A hole below stays a hole: the position waits until what is missing has come.
    if label.previous <= reached { advance(label.source, to: label.seq) }
    return !known
  }

  /// An inbox whose id has changed never comes back: where this endpoint was in the old one is of no more use.
  private mutating func advance(_ source: Source, to seq: Int64) {
    if positions[source] == nil {
      for other in positions.keys where other.name == source.name { positions[other] = nil }
    }
    positions[source] = seq
  }

  private mutating func remember(_ id: String) {
    guard !id.isEmpty, remembered.insert(id).inserted else { return }
    if order.count < Self.rememberedIDs {
      order.append(id)
    } else {
      remembered.remove(order[oldest])
      order[oldest] = id
      oldest = (oldest + 1) % Self.rememberedIDs
    }
  }
}
