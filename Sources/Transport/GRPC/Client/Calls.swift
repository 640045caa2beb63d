public import Bytes
public import Protobuf

/// The responses of a call, one after the other. Belongs to its channel's loop.
public final class ResponseStream<R: Message> {
  private let stream: ClientStream

  init(_ stream: ClientStream) { self.stream = stream }

  /// A call that nobody reads any more is cancelled.
  deinit { stream.cancel() }

  /// The next response, or nil after the last. - Throws: the call's `Status` when it isn't OK.
  public func next() async throws -> R? {
    guard let payload = try await stream.next() else { return nil }
    return try decode(payload, as: R.self)
  }

  /// The server's initial metadata. - Throws: `Status` when the call ends before it comes.
  public func initialMetadata() async throws -> Metadata { try await stream.headers() }

  /// The server's trailers, once the call is over.
  public var trailers: Metadata { stream.trailers }

  public func cancel() { stream.cancel() }
}

/// A call that sends many messages and receives one. Belongs to its channel's loop.
public final class ClientStreamingCall<Q: Message, R: Message> {
  private let stream: ClientStream

  init(_ stream: ClientStream) { self.stream = stream }

  deinit { stream.cancel() }

  /// Queues a request, and waits while the server takes no more.
  ///
  /// - Throws: the call's `Status`, also when the server ended it before it had all.
  public func send(_ request: Q) async throws { try await stream.send(EncodedMessage(request)) }

  /// Queues a request with one more field of type bytes, which leaves by reference: no byte of it is copied.
  ///
  /// - Parameter field: its number; `request` leaves it empty.
  public func send(_ request: Q, field: Int, _ bytes: Bytes) async throws {
    try await stream.send(EncodedMessage(request, before: bytes.count, ofField: field), bytes)
  }

  /// Says that this was all and waits for the response. - Throws: the call's `Status` when it isn't OK.
  public func finish() async throws -> R {
    stream.finishSending()
    return try decode(try await stream.only(), as: R.self)
  }

  /// The server's trailers, once the call is over.
  public var trailers: Metadata { stream.trailers }

  public func cancel() { stream.cancel() }
}

/// A call that sends and receives many messages. Belongs to its channel's loop.
public final class BidirectionalCall<Q: Message, R: Message> {
  private let stream: ClientStream

  init(_ stream: ClientStream) { self.stream = stream }

  deinit { stream.cancel() }

  /// Queues a request, and waits while the server takes no more. - Throws: the call's `Status`.
  public func send(_ request: Q) async throws { try await stream.send(EncodedMessage(request)) }

  /// Queues a request with one more field of type bytes, which leaves by reference: no byte of it is copied.
  ///
  /// - Parameter field: its number; `request` leaves it empty.
  public func send(_ request: Q, field: Int, _ bytes: Bytes) async throws {
    try await stream.send(EncodedMessage(request, before: bytes.count, ofField: field), bytes)
  }

  /// Says that no request follows.
  public func finishSending() { stream.finishSending() }

  /// The next response, or nil after the last. - Throws: the call's `Status` when it isn't OK.
  public func next() async throws -> R? {
    guard let payload = try await stream.next() else { return nil }
    return try decode(payload, as: R.self)
  }

  public func initialMetadata() async throws -> Metadata { try await stream.headers() }
  public var trailers: Metadata { stream.trailers }
  public func cancel() { stream.cancel() }
}

func decode<R: Message>(_ payload: Bytes, as type: R.Type) throws -> R {
  do { return try R(serialized: payload) } catch {
    throw Status(.internal, "the response is not a \(R.fullName): \(error)")
  }
}
