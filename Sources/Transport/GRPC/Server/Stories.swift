internal import Bytes
internal import HTTP2
public import Protobuf
internal import Reactor

/// A handler that is a story: an async function that reads requests, writes responses, and ends with a status.
final class StoryHandler<Q: Message, R: Message>: ServerStreamHandler {
  private let requests: RequestStream<Q>
  private let responses: ResponseWriter<R>
  private var task: Task<Void, Never>?

  init(
    _ call: ServerCall,
    _ body: @escaping (RequestStream<Q>, ResponseWriter<R>, ServerContext) async throws -> Void
  ) {
    requests = RequestStream(call)
    responses = ResponseWriter(call)
    call.pull(requests.arrival)
    let (requests, responses, context) = (requests, responses, call.context)
    task = context.loop.spawn {
      do {
        try await body(requests, responses, context)
        call.finish(.ok)
      } catch {
        call.finish(Status(error))
      }
    }
  }

  func received(_ message: Bytes) {}
  func requestsEnded() {}
  func writable() { responses.wake() }

  func closed() {
    requests.fail()
    responses.fail()
    task?.cancel()
    task = nil
  }
}

/// The story of a call with one request and one response: nothing but a task, started when the request is there.
final class UnaryHandler<Q: Message, R: Message>: ServerStreamHandler {
  private let call: ServerCall
  private let body: (Q, ServerContext) async throws -> R
  private var request: Bytes?
  private var task: Task<Void, Never>?

  init(_ call: ServerCall, _ body: @escaping (Q, ServerContext) async throws -> R) {
    self.call = call
    self.body = body
  }

  func received(_ message: Bytes) {
    guard request == nil else {
      return call.finish(Status(.invalidArgument, "the call has more than one request message"))
    }
    request = message
  }

  func requestsEnded() {
    guard let payload = request else {
      return call.finish(Status(.invalidArgument, "the call has no request message"))
    }
    let request: Q
    do throws(ProtobufError) { request = try Q(serialized: payload) } catch {
      return call.finish(Status(.invalidArgument, "the request is not a \(Q.fullName): \(error)"))
    }
    let (call, body) = (call, body)
    task = call.context.loop.spawn {
      do {
        call.send(EncodedMessage(try await body(request, call.context)))
        call.finish(.ok)
      } catch {
        call.finish(Status(error))
      }
    }
  }

  func writable() {}

  func closed() {
    task?.cancel()
    task = nil
  }
}

/// The requests of a call, one after the other. Belongs to the call's loop.
///
/// What isn't asked for isn't credited: a handler that doesn't read stops its caller.
public final class RequestStream<Q: Message> {
  private let call: ServerCall
  let arrival = Wakeup()
  private var hasFailed = false

  init(_ call: ServerCall) { self.call = call }

  /// The next request, or nil after the last.
  ///
  /// - Throws: `Status`: CANCELLED when the caller is gone, INVALID_ARGUMENT when the bytes are no `Q`.
  public func next() async throws -> Q? {
    while true {
      if hasFailed { throw Status(.cancelled, "the call is over") }
      if let payload = call.take() {
        do { return try Q(serialized: payload) } catch {
          throw Status(.invalidArgument, "the request is not a \(Q.fullName): \(error)")
        }
      }
      if call.haveRequestsEnded { return nil }
      call.awaitMessage()
      await arrival.wait()
    }
  }

  /// The request of a call that has exactly one.
  func only() async throws -> Q {
    guard let request = try await next() else {
      throw Status(.invalidArgument, "the call has no request message")
    }
    guard try await next() == nil else {
      throw Status(.invalidArgument, "the call has more than one request message")
    }
    return request
  }

  func fail() {
    hasFailed = true
    arrival.fire()
  }
}

/// The responses of a call. Belongs to the call's loop.
public final class ResponseWriter<R: Message> {
  private let call: ServerCall
  private let room = Wakeup()
  private var hasFailed = false

  init(_ call: ServerCall) { self.call = call }

  /// Queues a response, and waits while more than `writeAheadBytes` are queued: a slow reader stops its writer.
  ///
  /// - Throws: `Status` CANCELLED when the caller is gone.
  public func write(_ response: R) async throws {
    try await write(EncodedMessage(response))
  }

  /// The same with a message that was encoded before.
  public func write(_ message: EncodedMessage) async throws {
    guard !hasFailed else { throw Status(.cancelled, "the call is over") }
    call.send(message)
    while call.pendingBytes > writeAheadBytes {
      await room.wait()
      guard !hasFailed else { throw Status(.cancelled, "the call is over") }
    }
  }

  /// Sends the initial metadata now, ahead of the first response.
  public func sendHeaders() { call.sendHeaders() }

  /// The response that ends a call with one: nothing waits for room any more.
  func writeLast(_ response: R) throws { call.send(EncodedMessage(response)) }

  func wake() { room.fire() }

  func fail() {
    hasFailed = true
    room.fire()
  }
}

/// Bytes that a writer may have queued on a call before it waits.
let writeAheadBytes = 256 * 1024
