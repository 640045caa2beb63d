internal import Bytes
public import HTTP2
public import Protobuf
public import Reactor

/// The limits of a channel.
public struct ChannelOptions: Sendable {
  public var http2 = Http2Options()
  /// Resolving and connecting end with UNAVAILABLE after this time.
  public var connectTimeout: Duration = .seconds(5)

  public init() {}
}

/// Calls to one server over one HTTP/2 connection, made with the first call and again after it was lost. Belongs to its
/// loop.
///
/// A call fails with UNAVAILABLE when no connection can be made: when to try again, and where, is the caller's decision.
public final class Channel {
  public let loop: EventLoop
  public let target: HostPort
  private let options: ChannelOptions
  private var connection: Http2Connection?
  /// Connections that take no more calls and end with those that they have.
  private var retired: [ObjectIdentifier: Http2Connection] = [:]
  private var isConnecting = false
  private var waiting: [Wakeup] = []
  private var failure: Status?
  private var isClosed = false

  public init(loop: EventLoop, target: HostPort, options: ChannelOptions = ChannelOptions()) {
    self.loop = loop
    self.target = target
    self.options = options
  }

  deinit {
    connection?.disown()
    for connection in retired.values { connection.disown() }
  }

  /// Closes the connection; calls under way end with UNAVAILABLE.
  public func close() {
    isClosed = true
    connection?.closeNow()
    for connection in retired.values { connection.closeNow() }
  }

  /// Makes the connection ahead of the first call. - Throws: `Status` UNAVAILABLE.
  public func connect() async throws { _ = try await connected(within: nil) }

  /// Whether a connection stands.
  public var isConnected: Bool { connection?.isOpen ?? false }

  // MARK: Calls

  /// One request, one response. - Throws: `Status`.
  public func unary<Q: Message, R: Message>(
    _ method: Method<Q, R>, _ request: Q, options: CallOptions = CallOptions()
  ) async throws -> R {
    let stream = try await open(method.path, options)
    // No effect on a call that has its status; one that goes on after an error here has nobody to end it.
    defer { stream.cancel() }
    try await stream.send(EncodedMessage(request))
    stream.finishSending()
    return try decode(try await stream.only(), as: R.self)
  }

  public func serverStreaming<Q: Message, R: Message>(
    _ method: Method<Q, R>, _ request: Q, options: CallOptions = CallOptions()
  ) async throws -> ResponseStream<R> {
    let stream = try await open(method.path, options)
    try await stream.send(EncodedMessage(request))
    stream.finishSending()
    return ResponseStream(stream)
  }

  public func clientStreaming<Q: Message, R: Message>(
    _ method: Method<Q, R>, options: CallOptions = CallOptions()
  ) async throws -> ClientStreamingCall<Q, R> {
    ClientStreamingCall(try await open(method.path, options))
  }

  public func bidirectional<Q: Message, R: Message>(
    _ method: Method<Q, R>, options: CallOptions = CallOptions()
  ) async throws -> BidirectionalCall<Q, R> {
    BidirectionalCall(try await open(method.path, options))
  }

  private func open(_ path: String, _ options: CallOptions) async throws -> ClientStream {
    let start = EventLoop.monotonicNanoseconds()
    let connection = try await connected(within: options.timeout)
    // What connecting took is gone from the call's time.
    let spent = Duration.nanoseconds(EventLoop.monotonicNanoseconds() - start)
    do {
      return try ClientStream(
        connection, path: path, authority: target.description, timeout: options.timeout.map { max(.zero, $0 - spent) },
        options: options)
    } catch {
      // The connection is closing, or its stream ids are used up: the next call makes a new one.
      connectionGoingAway(connection)
      throw error
    }
  }

  // MARK: The connection

  private func connected(within timeout: Duration?) async throws -> Http2Connection {
    loop.assertCurrent()
    var isLate = false
    while true {
      if isClosed { throw Status(.unavailable, "the channel to \(target) is closed") }
      if let connection, connection.isOpen { return connection }
      let made = Wakeup()
      waiting.append(made)
      if !isConnecting { loop.spawn { await self.makeConnection() } }
      let timer = timeout.map { timeout in
        loop.schedule(after: timeout) {
          isLate = true
          made.fire()
        }
      }
      await made.wait()
      timer?.cancel()
      if isLate { throw Status(.deadlineExceeded, "no connection to \(target) within the call's time") }
      if let failure { throw failure }
    }
  }

  /// One attempt for all who wait; the first call starts it.
  private func makeConnection() async {
    guard !isConnecting else { return }
    isConnecting = true
    failure = nil
    do {
      let descriptor = try await loop.connect(to: target, timeout: options.connectTimeout)
      let connection = try Http2Connection(
        role: .client, loop: loop, descriptor: descriptor, options: options.http2, handler: self)
      self.connection = connection
      if isClosed { connection.closeNow() }
    } catch {
      failure = Status(.unavailable, "can't connect to \(target): \(error)")
    }
    isConnecting = false
    let waiting = self.waiting
    self.waiting = []
    for made in waiting { made.fire() }
  }
}

extension Channel: Http2ConnectionHandler {
  public func connection(
    _ connection: Http2Connection, opened stream: Http2Stream, _ headers: HeaderList
  ) -> (any Http2StreamHandler)? { nil }

  public func connectionReady(_ connection: Http2Connection) {}

  public func connectionGoingAway(_ connection: Http2Connection) {
    guard self.connection === connection else { return }
    self.connection = nil
    retired[ObjectIdentifier(connection)] = connection
    if connection.streamCount == 0 { connection.terminate() }
  }

  public func connectionStreamsEnded(_ connection: Http2Connection) {
    if retired[ObjectIdentifier(connection)] != nil { connection.terminate() }
  }

  public func connectionClosed(_ connection: Http2Connection, _ error: Http2Error?) {
    if self.connection === connection { self.connection = nil }
    retired[ObjectIdentifier(connection)] = nil
  }
}
