internal import Routing

/// How far one session is with its client's inbox.
///
///     behind ──page, nothing follows──► live
///        ▲                                │ a message whose predecessor the session hasn't covered, another inbox,
///        └────────────────────────────────┘ a head above what is covered, no room on the stream
///
/// | in                              | behind                      | live                                 |
/// |---------------------------------|-----------------------------|--------------------------------------|
/// | poke: its predecessor covered   | remember it                 | write                                |
/// | poke: at or below what is covered | remember it               | nothing                              |
/// | poke: a jump, another inbox     | remember it                 | behind: read                         |
/// | page                            | write what is above covered |                                      |
/// | its end, nothing remembered above | live                      |                                      |
/// | head of the inbox               | nothing                     | behind where it is above, or of another inbox |
///
/// `covered` is what the session need not read any more: written, or expired, or acknowledged before. `written` is what
/// the client was given last, which the next message names as the one before it: so each message that the client gets
/// proves that nothing is missing below it. A value without I/O.
struct InboxCursor: Equatable {
  enum Phase: Equatable { case behind, live }

  enum Verdict: Equatable {
    case write
    case drop
    case read
  }

  /// What a message is labelled with.
  struct Label: Equatable {
    var inboxID: String
    var seq: Int64
    var previous: Int64
    var redelivered: Bool
  }

  private(set) var phase = Phase.behind
  /// Empty when there is none.
  private(set) var inboxID = ""
  private(set) var covered: Int64 = 0
  private(set) var written: Int64 = 0
  /// Sessions before this one have written up to there.
  private var writtenBefore: Int64 = 0
  /// The newest poke since the last read began.
  private var poked: InboxPosition?
  private let stated: [InboxPosition]
  private var hasRead = false

  /// - Parameter stated: where the client says that it stands.
  init(stated: [InboxPosition] = []) { self.stated = stated }

  /// Where the next read goes on.
  var positions: [InboxPosition] {
    guard hasRead else { return stated }
    return inboxID.isEmpty ? [] : [InboxPosition(inboxID: inboxID, seq: covered)]
  }

  // MARK: Live

  /// A message has come from elsewhere; with `.write` it is the next one, to be labelled by `wrote`.
  mutating func poked(_ place: InboxPlace) -> Verdict {
    if phase == .behind {
      if poked?.inboxID != place.inboxID || poked?.seq ?? 0 < place.seq {
        poked = InboxPosition(inboxID: place.inboxID, seq: place.seq)
      }
      return .drop
    }
    if place.inboxID != inboxID {
      // With nothing before it in its inbox, there is nothing to read.
      guard inboxID.isEmpty, place.previous == 0 else { return fallBehind() }
      inboxID = place.inboxID
      (covered, written) = (0, 0)
      return .write
    }
    if place.seq <= covered { return .drop }
    return place.previous <= covered ? .write : fallBehind()
  }

  /// The inbox's newest seq, as a look at it has shown. - Returns: whether to read.
  mutating func saw(head: InboxPosition) -> Bool {
    guard phase == .live, head.inboxID != inboxID || head.seq > covered else { return false }
    return fallBehind() == .read
  }

  /// The stream has no room: what follows waits in the inbox.
  mutating func fallBehind() -> Verdict {
    phase = .behind
    return .read
  }

  /// Takes what lies before a message for covered, unread. Only for a node without replay.
  mutating func jump(to place: InboxPlace) {
    (inboxID, covered, written) = (place.inboxID, place.previous, place.previous)
  }

  /// A message goes out: says what it is labelled with.
  mutating func wrote(_ seq: Int64) -> Label {
    let label = Label(inboxID: inboxID, seq: seq, previous: written, redelivered: seq <= writtenBefore)
    (covered, written) = (seq, seq)
    return label
  }

  // MARK: Reading

  mutating func beganReading() {
    phase = .behind
    poked = nil
  }

  /// A page has come; its messages above `covered` are to be written, in order.
  /// - Returns: whether it is the first one, which begins where the client says that it stands.
  @discardableResult
  mutating func began(_ page: InboxPage) -> Bool {
    let isFirst = !hasRead
    if !hasRead || page.inboxID != inboxID {
      inboxID = page.inboxID
      (covered, written, writtenBefore) = (page.position, page.position, page.written)
    }
    hasRead = true
    return isFirst
  }

  /// All messages of the page are written. - Returns: whether to read on.
  mutating func ended(_ page: InboxPage) -> Bool {
    guard page.isComplete else { return true }
    covered = max(covered, page.head)
    if let poked, poked.inboxID != inboxID || poked.seq > covered { return true }
    phase = .live
    return false
  }
}
