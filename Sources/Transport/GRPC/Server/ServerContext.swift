internal import HTTP2
public import Reactor

/// What a handler knows of its call, and what it may add to the answer. Belongs to the call's loop.
public final class ServerContext {
  public let loop: EventLoop
  /// The method as the router knows it.
  public let route: Route
  private let headers: HeaderList
  private unowned let connection: Http2Connection
  /// When the caller gives up, in monotonic nanoseconds; nil: never.
  public internal(set) var deadline: Int64?
  /// Whether the call is over for the caller: cancelled, disconnected, past its deadline.
  public internal(set) var isCancelled = false
  /// Goes out with the first message; afterwards a change has no effect.
  public var initialMetadata = Metadata()
  /// Goes out with the status.
  public var trailers = Metadata()
  private var cancelHandlers: [() -> Void] = []
  /// When the call began, in monotonic nanoseconds.
  public let startedAt: Int64

  init(route: Route, headers: HeaderList, connection: Http2Connection) {
    self.loop = connection.loop
    self.route = route
    self.headers = headers
    self.connection = connection
    startedAt = connection.loop.now
    peer = connection.peer
  }

  /// The caller's address.
  public let peer: SocketAddress?

  /// What the caller sent, without HTTP's and gRPC's own fields.
  public lazy var metadata = Metadata(headers)

  /// Calls `work` on the loop when the call is cancelled; at once if it is.
  public func onCancel(_ work: @escaping () -> Void) {
    if isCancelled { work() } else { cancelHandlers.append(work) }
  }

  func cancel() {
    guard !isCancelled else { return }
    isCancelled = true
    let handlers = cancelHandlers
    cancelHandlers = []
    for handler in handlers { handler() }
  }

  func forgetCancelHandlers() { cancelHandlers = [] }
}
