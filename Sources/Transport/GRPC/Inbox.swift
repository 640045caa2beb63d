internal import Bytes
internal import HTTP2

/// The receiving half of a call on either side: cuts data into messages and gives credit back as they are taken.
///
/// Without a taker nothing is credited, so a sender gets as far as its window and stops. While a taker waits for a message
/// that isn't complete, its pieces are credited as they come, so that a message may be larger than the window.
struct Inbox {
  private struct Message {
    let payload: Bytes
    let owed: Int
  }
  private var deframer = Deframer()
  private var messages: [Message] = []
  private var head = 0
  private var creditedPartial = 0
  private let limit: Int
  /// Whether somebody waits for the next message.
  private var isAwaited = false

  init(limit: Int) { self.limit = limit }

  var hasMessage: Bool { head < messages.count }
  /// Whether the stream's end would cut a message in two.
  var isInsideMessage: Bool { deframer.partialBytes > 0 }

  /// Takes data in. - Returns: the credit that can be given back at once.
  mutating func receive(_ bytes: UnsafeRawBufferPointer) throws(Status) -> Int {
    try cut(bytes)
    if hasMessage { isAwaited = false }
    return isAwaited ? creditPartial() : 0
  }

  private mutating func cut(_ bytes: UnsafeRawBufferPointer) throws(Status) {
    // The closure can't reach into `self` while the deframer is being changed.
    var arrived = messages
    var credited = creditedPartial
    messages = []
    defer {
      messages = arrived
      creditedPartial = credited
    }
    try deframer.feed(bytes, limit: limit) { payload in
      arrived.append(Message(payload: payload, owed: payload.count + EncodedMessage.headerBytes - credited))
      credited = 0
    }
  }

  /// The next message and the credit that its being taken gives back.
  mutating func take() -> (payload: Bytes, credit: Int)? {
    guard head < messages.count else { return nil }
    let message = messages[head]
    // A taker that never catches up would keep all that it ever took.
    messages[head] = Message(payload: Bytes(), owed: 0)
    head += 1
    if head == messages.count {
      messages.removeAll(keepingCapacity: true)
      head = 0
    } else if head > 256 {
      messages.removeFirst(head)
      head = 0
    }
    return (message.payload, message.owed)
  }

  /// Somebody waits now. - Returns: the credit for the pieces that are here.
  mutating func await() -> Int {
    isAwaited = true
    return creditPartial()
  }

  /// Drops everything. - Returns: the credit for all that was held.
  mutating func drop() -> Int {
    let owed = messages[head...].reduce(0) { $0 + $1.owed } + creditPartial()
    messages = []
    head = 0
    return owed
  }

  private mutating func creditPartial() -> Int {
    let credit = deframer.partialBytes - creditedPartial
    creditedPartial = deframer.partialBytes
    return credit
  }
}
