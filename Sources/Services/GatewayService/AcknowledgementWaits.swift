internal import Reactor

/// Calls that wait until a client has acknowledged a message. Belongs to the node's loop.
///
/// A wait belongs to the stream that took the message: its end is the wait's end. Waiting takes no look at the clock and no
/// poll: the acknowledgement itself resumes the call.
final class AcknowledgementWaits {
  enum End: Equatable {
    case acknowledged
    /// The time was over first.
    case late
    /// The stream has ended.
    case gone
    /// The caller gave up.
    case cancelled
  }

  /// One call that waits. It holds a slot from `begin` until `wait` has returned, or `drop`.
  final class Wait {
    fileprivate let stream: ObjectIdentifier
    fileprivate let messageID: String
    fileprivate var end: End?
    fileprivate let wakeup = Wakeup()

    fileprivate init(_ stream: ObjectIdentifier, _ messageID: String) {
      self.stream = stream
      self.messageID = messageID
    }
  }

  private let loop: EventLoop
  private let limit: Int
  private var byStream: [ObjectIdentifier: [Wait]] = [:]
  private(set) var count = 0

  /// - Parameter limit: calls that wait at once.
  init(loop: EventLoop, limit: Int) {
    self.loop = loop
    self.limit = limit
  }

  /// Takes a slot, ahead of the message. - Returns: nil when none is free.
  func begin(_ stream: AnyObject, _ messageID: String) -> Wait? {
    guard count < limit else { return nil }
    count += 1
    let wait = Wait(ObjectIdentifier(stream), messageID)
    byStream[wait.stream, default: []].append(wait)
    return wait
  }

  /// Waits until a moment, in monotonic ns; the cancellation of the story ends it, too.
  func wait(_ wait: Wait, until deadline: Int64) async -> End {
    let left = Duration.nanoseconds(max(0, deadline &- EventLoop.monotonicNanoseconds()))
    let timer = loop.schedule(after: left) { [self] in end(wait, .late) }
    while wait.end == nil {
      await loop.cancellable {
        await wait.wakeup.wait()
      } onCancel: { [self] in
        end(wait, .cancelled)
      }
    }
    timer.cancel()
    return wait.end ?? .late
  }

  /// Gives a slot back that nobody waits in.
  func drop(_ wait: Wait) { end(wait, .gone) }

  /// A client has acknowledged messages on its stream.
  func acknowledged(_ stream: AnyObject, _ messageIDs: some Collection<String>) {
    guard count > 0, let waits = byStream[ObjectIdentifier(stream)] else { return }
    for wait in waits where messageIDs.contains(wait.messageID) { end(wait, .acknowledged) }
  }

  /// A stream is over.
  func ended(_ stream: AnyObject) {
    guard count > 0, let waits = byStream[ObjectIdentifier(stream)] else { return }
    for wait in waits { end(wait, .gone) }
  }

  private func end(_ wait: Wait, _ end: End) {
    guard wait.end == nil else { return }
    wait.end = end
    count -= 1
    byStream[wait.stream]?.removeAll { $0 === wait }
    if byStream[wait.stream]?.isEmpty == true { byStream[wait.stream] = nil }
    wait.wakeup.fire()
  }
}
