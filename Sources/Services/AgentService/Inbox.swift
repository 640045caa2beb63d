/// Which messages this endpoint has had: each is handed over once, and acknowledged.
///
/// No I/O. Ids are remembered for the newest `Inbox.rememberedIDs` messages; numbered messages also by their place, which
/// is never forgotten.
struct Inbox: Sendable {
  /// How many message ids are kept to recognise a repetition by.
  static let rememberedIDs = 4096

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

  init(positions: [Source: Int64] = [:]) { self.positions = positions }

  /// Whether a message is new; false for a repetition, which is acknowledged but not handed over.
  mutating func take(_ label: Label) -> Bool {
    let known = !label.messageID.isEmpty && remembered.contains(label.messageID)
    remember(label.messageID)
    guard label.seq > 0 else { return !known }
    let reached = positions[label.source] ?? 0
    guard label.seq > reached else { return false }
    // A hole below stays a hole: the position waits until what is missing has come.
    if label.previous <= reached { positions[label.source] = label.seq }
    return !known
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
