import Bytes
import Glibc
import HTTP2
import Reactor

let requestBlock = HeaderBlock([
  (":method", "POST"), (":scheme", "http"), (":path", "/test"), (":authority", "test"),
])
let responseBlock = HeaderBlock([(":status", "200")])

/// One end of a connection, and what it heard.
final class Endpoint: Http2ConnectionHandler {
  var connection: Http2Connection?
  var accepted: [Exchange] = []
  var isReady = false
  var isGoingAway = false
  var isClosed = false
  var error: Http2Error?
  let changed = Wakeup()
  /// What a server does with a new stream.
  var onOpen: (Http2Stream, HeaderList) -> Exchange? = { stream, _ in Exchange(stream) }

  init(_ role: Http2Connection.Role, _ loop: EventLoop, _ descriptor: Int32, _ options: Http2Options) throws {
    connection = try Http2Connection(role: role, loop: loop, descriptor: descriptor, options: options, handler: self)
  }

  deinit { connection?.disown() }

  func connection(
    _ connection: Http2Connection, opened stream: Http2Stream, _ headers: HeaderList
  ) -> (any Http2StreamHandler)? {
    let exchange = onOpen(stream, headers)
    if let exchange { accepted.append(exchange) }
    changed.fire()
    return exchange
  }
  func connectionReady(_ connection: Http2Connection) {
    isReady = true
    changed.fire()
  }
  func connectionGoingAway(_ connection: Http2Connection) {
    isGoingAway = true
    changed.fire()
  }
  func connectionStreamsEnded(_ connection: Http2Connection) {}
  func connectionClosed(_ connection: Http2Connection, _ error: Http2Error?) {
    isClosed = true
    self.error = error
    changed.fire()
  }

  func wait(until done: () -> Bool) async {
    while !done() { await changed.wait() }
  }
}

/// One stream from one end.
final class Exchange: Http2StreamHandler {
  var stream: Http2Stream?
  var headers: HeaderList?
  var trailers: HeaderList?
  var received = ByteWriter()
  var hasEnded = false
  var closedWith: Http2ErrorCode?
  var writableNotices = 0
  var gives = true
  let changed = Wakeup()

  init(_ stream: Http2Stream? = nil) { self.stream = stream }

  func streamReceivedHeaders(_ headers: HeaderList) { self.headers = headers }
  func streamReceivedData(_ bytes: UnsafeRawBufferPointer) {
    received.append(bytes)
    if gives { stream?.consume(bytes.count) }
    changed.fire()
  }
  func streamReceivedTrailers(_ trailers: HeaderList) { self.trailers = trailers }
  func streamReceivedEnd() {
    hasEnded = true
    changed.fire()
  }
  func streamWritable() {
    writableNotices += 1
    changed.fire()
  }
  func streamClosed(_ code: Http2ErrorCode) {
    closedWith = code
    changed.fire()
  }

  func wait(until done: () -> Bool) async {
    while !done() { await changed.wait() }
  }

  func takeReceived() -> Bytes {
    var empty = ByteWriter(capacity: 16)
    swap(&empty, &received)
    return empty.finish()
  }
}

/// A client and a server on both ends of a socket pair, on one loop.
func withPair<T: Sendable>(
  client: Http2Options = Http2Options(), server: Http2Options = Http2Options(),
  _ body: @escaping @Sendable (Endpoint, Endpoint, EventLoop) async throws -> T
) async throws -> T {
  let loop = try EventLoop.start(name: "http2-test")
  defer { loop.stop() }
  return try await loop.run {
    let ends = socketPair()
    let clientEnd = try Endpoint(.client, loop, ends.0, client)
    let serverEnd = try Endpoint(.server, loop, ends.1, server)
    let result = try await body(clientEnd, serverEnd, loop)
    clientEnd.connection?.closeNow()
    serverEnd.connection?.closeNow()
    return result
  }
}

func socketPair() -> (Int32, Int32) {
  var ends: [Int32] = [-1, -1]
  let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
  precondition(socketpair(AF_UNIX, type, 0, &ends) == 0, "no socket pair")
  return (ends[0], ends[1])
}
