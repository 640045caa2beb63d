internal import GRPC

/// Best-effort messages that a stream holds back while its client reads too slowly, the oldest first.
///
/// A value without I/O. `ConnectStream` bounds it and feeds the call from it.
struct Backlog {
  struct Held {
    let message: EncodedMessage
    /// Empty without a job.
    let job: String
    /// Whose row tells what becomes of the message; nil in a job without rows.
    let client: String?
  }

  private var queue: [Held?] = []
  private var head = 0
  private(set) var bytes = 0

  var isEmpty: Bool { head == queue.count }
  var count: Int { queue.count - head }

  mutating func append(_ held: Held) {
    queue.append(held)
    bytes += held.message.count
  }

  mutating func popFirst() -> Held? {
    guard head < queue.count, let held = queue[head] else { return nil }
    queue[head] = nil
    head += 1
    bytes -= held.message.count
    if head == queue.count {
      self = Backlog()
    } else if head >= 256, head * 2 >= queue.count {
      queue.removeFirst(head)
      head = 0
    }
    return held
  }
}
