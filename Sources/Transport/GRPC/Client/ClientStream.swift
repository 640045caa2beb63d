internal import Bytes
internal import HTTP2
internal import Reactor

/// One call on the client, without the types of its messages. Belongs to its channel's loop.
final class ClientStream: Http2StreamHandler {
  private let loop: EventLoop
  private var stream: Http2Stream?
  private var inbox: Inbox
  private var deadline: LoopTimer?
  /// How the call ended; nil while it goes on.
  private(set) var status: Status?
  private(set) var initialMetadata: Metadata?
  private(set) var trailers = Metadata()
  private var trailingStatus: Status?
  private var httpStatus = 200
  private var hasFinishedSending = false
  private let arrival = Wakeup()
  private let room = Wakeup()
  private let headersArrival = Wakeup()

  private static let requestBlock = HeaderBlock([
    (":method", "POST"), (":scheme", "http"),
  ])
  /// Behind the pseudo-header fields, all of which HTTP/2 wants first.
  private static let requestFields = [
    HeaderField("te", "trailers"), HeaderField("content-type", "application/grpc"),
    HeaderField("user-agent", "fleetpush-swift/1"),
  ]

  /// Opens the call. - Throws: `Status` UNAVAILABLE when the connection takes no stream.
  init(_ connection: Http2Connection, path: String, authority: String, timeout: Duration?, options: CallOptions) throws
  {
    loop = connection.loop
    inbox = Inbox(limit: options.maxResponseBytes)
    var fields = [HeaderField(":path", path), HeaderField(":authority", authority)] + ClientStream.requestFields
    if let timeout { fields.append(HeaderField("grpc-timeout", Timeouts.encode(timeout))) }
    fields += options.metadata.headerFields
    do {
      stream = try connection.open(ClientStream.requestBlock, fields, handler: self)
    } catch {
      throw Status(.unavailable, "\(error)")
    }
    if let timeout {
      deadline = loop.schedule(after: timeout) { [weak self] in
        self?.abandon(Status(.deadlineExceeded, "no answer within \(timeout)"))
      }
    }
  }

  // MARK: Sending

  /// Queues a message, and the bytes that end it where it is only a head, and waits while too much is queued.
  func send(_ message: EncodedMessage, _ bytes: Bytes = Bytes()) async throws {
    guard status == nil, let stream else { throw status ?? Status(.unavailable, "the call is over") }
    stream.write(message.frame)
    stream.write(bytes)
    while stream.pendingBytes > writeAheadBytes, status == nil {
      await loop.cancellable {
        await room.wait()
      } onCancel: { [weak self] in
        self?.cancel()
      }
    }
    if let status, status.code != .ok { throw status }
  }

  func finishSending() {
    hasFinishedSending = true
    stream?.end()
  }

  /// Resets the stream: the server hears that nobody waits any more.
  func cancel() { abandon(Status(.cancelled, "the call was cancelled")) }

  private func abandon(_ status: Status) {
    guard self.status == nil else { return }
    stream?.reset(.cancel)
    end(status)
  }

  // MARK: Receiving

  /// The next message, or nil after the last of a call that ended with OK. - Throws: `Status`, whatever else it ended with.
  func next() async throws -> Bytes? {
    while true {
      if let (payload, credit) = inbox.take() {
        stream?.consume(credit)
        return payload
      }
      if let status {
        guard status.code == .ok else { throw status }
        return nil
      }
      stream?.consume(inbox.await())
      await loop.cancellable {
        await arrival.wait()
      } onCancel: { [weak self] in
        self?.cancel()
      }
    }
  }

  /// The only message of a call with one response, and OK. - Throws: `Status`.
  func only() async throws -> Bytes {
    guard let first = try await next() else { throw Status(.internal, "the server sent OK without a message") }
    guard try await next() == nil else { throw Status(.internal, "the server sent more than one message") }
    return first
  }

  /// Waits for the server's header block. - Throws: `Status` when the call ends before.
  func headers() async throws -> Metadata {
    while initialMetadata == nil {
      if let status { throw status }
      await loop.cancellable {
        await headersArrival.wait()
      } onCancel: { [weak self] in
        self?.cancel()
      }
    }
    return initialMetadata ?? Metadata()
  }

  func streamReceivedHeaders(_ headers: HeaderList) {
    httpStatus = headers[":status"].flatMap { Int($0) } ?? 0
    if let status = Status(trailers: Metadata(all: headers)) {
      trailers = Metadata(headers)
      trailingStatus = status
    } else {
      initialMetadata = Metadata(headers)
      headersArrival.fire()
    }
  }

  func streamReceivedData(_ bytes: UnsafeRawBufferPointer) {
    // The page that a proxy sends with its own status is no message.
    guard status == nil, httpStatus == 200 else { return stream?.consume(bytes.count) ?? () }
    do throws(Status) {
      stream?.consume(try inbox.receive(bytes))
    } catch {
      return abandon(error)
    }
    if inbox.hasMessage { arrival.fire() }
  }

  func streamReceivedTrailers(_ fields: HeaderList) {
    trailers = Metadata(fields)
    trailingStatus = Status(trailers: Metadata(all: fields))
  }

  func streamReceivedEnd() {
    // A server that ends first needn't reset the stream; without our end or reset it would stay open.
    defer { if !hasFinishedSending { stream?.reset(.noError) } }
    if let trailingStatus {
      let isCut = trailingStatus.code == .ok && inbox.isInsideMessage
      end(isCut ? Status(.internal, "the server ended the call inside a message") : trailingStatus)
    } else if httpStatus != 200 {
      end(Status(ClientStream.code(ofHTTP: httpStatus), "the server answered with HTTP status \(httpStatus)"))
    } else {
      end(Status(.internal, "the server ended the call without a status"))
    }
  }

  func streamWritable() { room.fire() }

  func streamClosed(_ code: Http2ErrorCode) {
    switch code {
    case .noError where trailingStatus != nil: end(trailingStatus ?? .ok)
    case .refusedStream: end(Status(.unavailable, "the server refused the stream"))
    case .cancel: end(Status(.cancelled, "the server cancelled the call"))
    case .internalError: end(Status(.internal, "the server failed at the call"))
    case .enhanceYourCalm: end(Status(.resourceExhausted, "the server asks for fewer requests"))
    default: end(Status(.unavailable, "the connection to the server was lost"))
    }
    stream = nil
  }

  private func end(_ status: Status) {
    guard self.status == nil else { return }
    self.status = status
    deadline?.cancel()
    arrival.fire()
    room.fire()
    headersArrival.fire()
  }

  /// gRPC's own table for answers of proxies.
  private static func code(ofHTTP status: Int) -> StatusCode {
    switch status {
    case 400: .internal
    case 401: .unauthenticated
    case 403: .permissionDenied
    case 404: .unimplemented
    case 429, 502, 503, 504: .unavailable
    default: .unknown
    }
  }
}
