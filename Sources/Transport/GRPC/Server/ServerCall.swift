public import Bytes
public import HTTP2
internal import Reactor

/// What a call tells its handler, on the loop.
public protocol ServerStreamHandler: AnyObject {
  /// A message, while reading is on (`ServerCall.setReading`).
  func received(_ message: Bytes)
  /// The caller has sent all that it will.
  func requestsEnded()
  /// What was queued has fallen below the low mark (`Http2Stream.lowWaterBytes`).
  func writable()
  /// The call is over, whatever the cause: nothing is delivered and nothing sent any more. Called once, last.
  func closed()
}

/// One call on the server: messages in, messages and a status out. Belongs to its connection's loop.
public final class ServerCall: Http2StreamHandler {
  public let context: ServerContext
  private let stream: Http2Stream
  private let interceptors: [any ServerInterceptor]
  private var handler: (any ServerStreamHandler)?
  private var inbox: Inbox
  private var isReading = true
  /// Set by a story, which takes messages itself and is woken when there is one, and at their end.
  private var arrival: Wakeup?
  private var isDelivering = false
  private(set) var haveRequestsEnded = false
  private var isEndTold = false
  private var hasSentHeaders = false
  private var deadlineTimer: LoopTimer?
  private var status: Status?
  private var isClosed = false

  static let responseBlock = HeaderBlock([(":status", "200"), ("content-type", "application/grpc")])
  private static let okTrailers = HeaderBlock([("grpc-status", "0")])
  private static let noFields = HeaderBlock([])

  init(
    stream: Http2Stream, context: ServerContext, messageLimit: Int, interceptors: [any ServerInterceptor]
  ) {
    self.stream = stream
    self.context = context
    self.interceptors = interceptors
    inbox = Inbox(limit: messageLimit)
  }

  /// Asks the interceptors, then starts the method's handler.
  func begin(timeout: Duration?) {
    for interceptor in interceptors {
      do throws(Status) { try interceptor.callStarted(context) } catch { return finish(error) }
    }
    if let timeout {
      context.deadline = EventLoop.deadline(after: timeout, from: context.startedAt)
      // The timer holds the call until it fires or the call's end cancels it.
      deadlineTimer = context.loop.schedule(after: timeout) {
        self.end(with: Status(.deadlineExceeded, "the call's deadline of \(timeout) has passed"))
      }
    }
    handler = context.route.start(self)
  }

  // MARK: Sending

  /// Queues a message; it leaves at the end of the turn as far as the caller gave credit.
  public func send(_ message: EncodedMessage) {
    guard status == nil, !isClosed else { return }
    sendHeaders()
    stream.write(message.frame)
  }

  /// Sends the initial metadata now, ahead of the first message.
  public func sendHeaders() {
    guard !hasSentHeaders, !isClosed, status == nil else { return }
    hasSentHeaders = true
    stream.respond(ServerCall.responseBlock, context.initialMetadata.headerFields)
  }

  /// Bytes that are queued for want of credit or of the turn's end.
  public var pendingBytes: Int { stream.pendingBytes }

  /// Ends the call after what is queued. What comes afterwards is dropped.
  public func finish(_ status: Status) {
    guard self.status == nil, !isClosed else { return }
    self.status = status
    deadlineTimer?.cancel()
    stream.consume(inbox.drop())
    if hasSentHeaders, status.code == .ok, status.message.isEmpty, context.trailers.isEmpty {
      stream.end(ServerCall.okTrailers)
    } else {
      let fields = status.trailerFields(context.trailers)
      if hasSentHeaders {
        stream.end(ServerCall.noFields, fields)
      } else {
        stream.respondAndEnd(ServerCall.responseBlock, context.initialMetadata.headerFields + fields)
      }
    }
    for interceptor in interceptors { interceptor.callFinished(context, status) }
  }

  // MARK: Receiving

  /// Stops or goes on delivering messages; while stopped, the caller gets as far as its window.
  public func setReading(_ reading: Bool) {
    isReading = reading
    deliver()
  }

  /// Messages wait to be taken from now on.
  func pull(_ arrival: Wakeup) {
    isReading = false
    self.arrival = arrival
  }

  func take() -> Bytes? {
    guard let (payload, credit) = inbox.take() else { return nil }
    stream.consume(credit)
    return payload
  }

  /// Tells that somebody waits for the next message.
  func awaitMessage() { stream.consume(inbox.await()) }

  private func deliver() {
    if let arrival { return arrival.fire() }
    guard !isDelivering else { return }
    isDelivering = true
    while isReading, status == nil, !isClosed, let payload = take() { handler?.received(payload) }
    isDelivering = false
    guard isReading, status == nil, !isClosed else { return }
    if !haveRequestsEnded {
      awaitMessage()
    } else if !isEndTold {
      isEndTold = true
      handler?.requestsEnded()
    }
  }

  public func streamReceivedHeaders(_ headers: HeaderList) {}

  public func streamReceivedData(_ bytes: UnsafeRawBufferPointer) {
    guard status == nil else { return stream.consume(bytes.count) }
    do throws(Status) {
      stream.consume(try inbox.receive(bytes))
    } catch {
      stream.consume(bytes.count)
      return end(with: error)
    }
    deliver()
  }

  public func streamReceivedTrailers(_ trailers: HeaderList) {}

  public func streamReceivedEnd() {
    guard status == nil else { return }
    if inbox.isInsideMessage {
      return end(with: Status(.invalidArgument, "the stream ends inside a message"))
    }
    haveRequestsEnded = true
    deliver()
  }

  public func streamWritable() { handler?.writable() }

  /// Ends the call for a reason that the handler has to hear as a cancellation.
  private func end(with status: Status) {
    finish(status)
    context.cancel()
    close()
  }

  private func close() {
    let handler = self.handler
    self.handler = nil
    handler?.closed()
  }

  public func streamClosed(_ code: Http2ErrorCode) {
    isClosed = true
    deadlineTimer?.cancel()
    if status == nil {
      let status = Status(.cancelled, "the caller is gone")
      self.status = status
      for interceptor in interceptors { interceptor.callFinished(context, status) }
      context.cancel()
    }
    context.forgetCancelHandlers()
    close()
  }
}
