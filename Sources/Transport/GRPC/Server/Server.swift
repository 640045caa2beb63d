public import HTTP2
public import Reactor
internal import Telemetry

/// The limits of a server beside those of its connections.
public struct ServerOptions: Sendable {
  public var http2 = Http2Options()
  /// The largest request message; a larger one ends its call with RESOURCE_EXHAUSTED.
  public var maxRequestBytes = 4 << 20
  /// Connections at once; further ones are closed as they are accepted.
  public var maxConnections = 18_000

  public init() {}
}

/// A gRPC server: a listener, its connections, and a router for their calls. Belongs to its loop.
public final class Server {
  public let loop: EventLoop
  let router: Router
  let options: ServerOptions
  let interceptors: [any ServerInterceptor]
  private var listeners: [Listener] = []
  private var connections: [ObjectIdentifier: Http2Connection] = [:]
  private var isShuttingDown = false
  private var shutdowns: [Wakeup] = []

  public init(
    loop: EventLoop, router: Router, options: ServerOptions = ServerOptions(),
    interceptors: [any ServerInterceptor] = []
  ) {
    self.loop = loop
    self.router = router
    self.options = options
    self.interceptors = interceptors
  }

  deinit {
    for connection in connections.values { connection.disown() }
  }

  /// Binds and takes connections. - Returns: where it listens; with port 0 the kernel chose one.
  public func listen(on endpoint: HostPort) async throws -> SocketAddress {
    let addresses = try await BlockingPool.shared.run { try SocketAddress.resolve(endpoint) }
    let listener = try Listener(loop: loop, address: addresses[0]) { [unowned self] descriptor, _ in
      accept(descriptor)
    }
    listeners.append(listener)
    return listener.address
  }

  public var connectionCount: Int { connections.count }
  public var callCount: Int { connections.values.reduce(0) { $0 + $1.streamCount } }

  private func accept(_ descriptor: Int32) {
    guard connections.count < options.maxConnections else { return Listener.refuse(descriptor) }
    // Without memory for a session the descriptor is closed with the half-made connection.
    guard
      let connection = try? Http2Connection(
        role: .server, loop: loop, descriptor: descriptor, options: options.http2, handler: self)
    else { return }
    connections[ObjectIdentifier(connection)] = connection
  }

  /// Takes no new connections and calls, lets those under way end within `grace`, then closes what is left.
  public func shutdown(grace: Duration) async {
    isShuttingDown = true
    for listener in listeners { listener.close() }
    listeners = []
    for connection in connections.values { connection.drain() }
    let deadline = loop.schedule(after: grace) { [weak self] in
      guard let self else { return }
      for connection in connections.values { connection.terminate() }
      // A peer that doesn't even take the GOAWAY has this long.
      loop.schedule(after: Server.closingTime) { [weak self] in
        for connection in self?.connections.values.map({ $0 }) ?? [] { connection.closeNow() }
      }
    }
    closeIdleConnections()
    while !connections.isEmpty {
      let emptied = Wakeup()
      shutdowns.append(emptied)
      await emptied.wait()
    }
    deadline.cancel()
  }

  /// How long a terminated connection may take to be closed in order.
  static let closingTime = Duration.milliseconds(500)

  private func closeIdleConnections() {
    for connection in connections.values where connection.streamCount == 0 { connection.terminate() }
  }
}

extension Server: Http2ConnectionHandler {
  public func connection(
    _ connection: Http2Connection, opened stream: Http2Stream, _ headers: HeaderList
  ) -> (any Http2StreamHandler)? {
    guard headers[":method"] == "POST", headers.mediaType(isOf: "application/grpc") else {
      stream.respondAndEnd(Server.unsupportedMediaType, [])
      return nil
    }
    let path = headers[":path"] ?? ""
    guard let route = router.route(path) else {
      let status = Status(.unimplemented, "there is no method \(path)")
      stream.respondAndEnd(ServerCall.responseBlock, status.trailerFields())
      return nil
    }
    let context = ServerContext(route: route, headers: headers, connection: connection)
    let call = ServerCall(
      stream: stream, context: context, messageLimit: options.maxRequestBytes, interceptors: interceptors)
    call.begin(timeout: headers["grpc-timeout"].flatMap(Timeouts.decode))
    return call
  }

  private static let unsupportedMediaType = HeaderBlock([
    (":status", "415"), ("content-type", "application/grpc"), ("grpc-status", "3"),
    ("grpc-message", "this is a gRPC server: send POST with the content type application/grpc"),
  ])

  public func connectionReady(_ connection: Http2Connection) {}
  public func connectionGoingAway(_ connection: Http2Connection) {}

  public func connectionStreamsEnded(_ connection: Http2Connection) {
    if isShuttingDown { connection.terminate() }
  }

  public func connectionClosed(_ connection: Http2Connection, _ error: Http2Error?) {
    connections[ObjectIdentifier(connection)] = nil
    guard connections.isEmpty else { return }
    let waiting = shutdowns
    shutdowns = []
    for emptied in waiting { emptied.fire() }
  }
}
