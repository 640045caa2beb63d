import Bytes
import GRPC
import Glibc
import HTTP2
import Reactor
import Schema

/// The input is what a client sends after its preface, SETTINGS and the headers of a call. The server goes on, has no
/// connection left when the client is gone, and answers the next call.
func fuzzServer(_ input: UnsafeRawBufferPointer) {
  let server = FuzzedServer.shared
  _ = server.answer(to: input)
  server.settle()
}

/// A server on a loop of its own, asked from libFuzzer's thread.
private final class FuzzedServer: @unchecked Sendable {
  typealias Text = PushV1.TextMessage
  static let shared = FuzzedServer()
  private static let unary = Method<Text, Text>(service: "f", name: "u", kind: .unary)
  private static let mirror = Method<Text, Text>(service: "f", name: "m", kind: .bidirectional)
  private static let collect = Method<Text, Text>(service: "f", name: "c", kind: .clientStreaming)
  private static let expand = Method<Text, Text>(service: "f", name: "e", kind: .serverStreaming)

  private let loop: EventLoop
  // Set on the loop, and only used there.
  private var server: Server?
  private var channel: Channel?
  private(set) var port: UInt16 = 0
  private var inputs = 0

  private init() {
    guard let loop = try? EventLoop.start(name: "fuzzed") else { abort() }
    self.loop = loop
    wait("the server starts") { [self] in
      let server = Server(loop: loop, router: FuzzedServer.router())
      self.server = server
      guard let address = try? await server.listen(on: HostPort(host: "127.0.0.1", port: 0)) else { abort() }
      port = address.port
      channel = Channel(loop: loop, target: HostPort(host: "127.0.0.1", port: port), options: ChannelOptions())
    }
    // An input that is fine is answered, so the prologue opens the call.
    let message: [UInt8] = [0, 0, 0, 0, 7, 0x0A, 5] + Array("hello".utf8)
    let answer = ([0, 0, 12, 0, 1, 0, 0, 0, 1] + message).withUnsafeBytes { self.answer(to: $0) }
    let isAnswered = answer.indices.contains { answer[$0...].starts(with: message) }
    require(isAnswered, "a good input gets no message back, but \(answer)")
  }

  /// What the server says to the prologue and an input.
  func answer(to input: UnsafeRawBufferPointer) -> [UInt8] {
    let peer = Loopback(port: port)
    peer.send(Prologue.bytes)
    // In two halves: when the second comes the server has written in quiet turns, past nghttp2.
    for half in [input.prefix(input.count / 2), input.dropFirst(input.count / 2)] {
      peer.send(UnsafeRawBufferPointer(rebasing: half))
      // Turns of the loop: the input is read and answered before the peer goes.
      for _ in 0..<3 { wait("a turn ends") {} }
    }
    return peer.finish()
  }

  private static func router() -> Router {
    var router = Router()
    router.unary(unary) { request, _ in request }
    router.bidirectional(mirror) { requests, responses, context in
      try await responses.write(Text(content: "quiet"))
      while let next = try await requests.next() {
        try await responses.write(next)
        try await context.loop.sleep(for: .zero)
        try await responses.write(next)
      }
    }
    router.clientStreaming(collect) { requests, _ in
      var count = 0
      while try await requests.next() != nil { count += 1 }
      return Text(content: String(count))
    }
    router.serverStreaming(expand) { request, responses, _ in
      for _ in 0..<4 { try await responses.write(request) }
    }
    return router
  }

  /// After each input the connection is gone; after some, a call is answered.
  func settle() {
    inputs += 1
    let callsToo = inputs % 64 == 1
    wait("the connection of the input ends") { [self] in
      // The channel keeps one after its first call.
      let kept = inputs > 1 ? 1 : 0
      while let server, server.connectionCount > kept { try? await loop.sleep(for: .microseconds(100)) }
    }
    guard callsToo else { return }
    wait("a call is answered") { [self] in
      guard let channel else { return }
      let reply = try? await channel.unary(FuzzedServer.unary, Text(content: "hello"), options: CallOptions())
      require(reply?.content == "hello", "a well-formed call fails after an input")
    }
  }

  /// Runs a story on the loop; the process ends when it takes longer than ten seconds.
  private func wait(_ what: String, _ story: @escaping @Sendable () async -> Void) {
    let done = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    sem_init(done, 0, 0)
    nonisolated(unsafe) let signal = done
    let loop = loop
    loop.execute {
      loop.spawn {
        await story()
        sem_post(signal)
      }
    }
    var deadline = timespec()
    clock_gettime(CLOCK_REALTIME, &deadline)
    deadline.tv_sec += 10
    while sem_timedwait(done, &deadline) != 0 {
      require(errno == EINTR, "not within ten seconds: \(what)")
    }
    sem_destroy(done)
    done.deallocate()
  }
}

/// A blocking socket to a port of this machine.
private struct Loopback {
  private let descriptor: Int32

  init(port: UInt16) {
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let connected = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    require(connected == 0, "the server takes no connection: errno \(errno)")
    // A server that neither answers nor closes is a finding.
    var limit = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
  }

  /// What a server that has closed doesn't take any more is dropped.
  func send(_ bytes: UnsafeRawBufferPointer) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let sent = Glibc.send(
        descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count, Int32(MSG_NOSIGNAL))
      // libFuzzer's clock interrupts.
      guard sent > 0 || errno == EINTR else { return }
      rest = rest.dropFirst(max(0, sent))
    }
  }

  func send(_ bytes: [UInt8]) { bytes.withUnsafeBytes(send) }

  /// Ends this direction, takes what comes until the other one ends, and closes. - Returns: what came.
  @discardableResult
  func finish() -> [UInt8] {
    shutdown(descriptor, Int32(SHUT_WR))
    var answer: [UInt8] = []
    withUnsafeTemporaryAllocation(byteCount: 16 << 10, alignment: 1) { memory in
      while true {
        let count = recv(descriptor, memory.baseAddress, memory.count, 0)
        if count > 0 {
          answer += memory.prefix(count)
        } else if count == 0 || errno != EINTR {
          require(count == 0 || errno == ECONNRESET, "the server doesn't close: errno \(errno)")
          break
        }
      }
    }
    close(descriptor)
    return answer
  }
}

/// The preface, empty SETTINGS, and the headers of a call on stream 1 that stays open.
private enum Prologue {
  static let bytes: [UInt8] =
    Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + [0, 0, 0, 4, 0, 0, 0, 0, 0] + headers(stream: 1, path: "/f/m")

  static func headers(stream: UInt8, path: String) -> [UInt8] {
    // Indexed fields: POST (3) and http (6); literal ones without indexing: authority (1), path (4),
    // content-type (31), a new name.
    let block: [UInt8] =
      [0x83, 0x86, 0x01] + text("f") + [0x04] + text(path) + [0x0F, 0x10] + text("application/grpc") + [0x00]
      + text("te")
      + text("trailers")
    return [0, 0, UInt8(block.count), 1, 4, 0, 0, 0, stream] + block
  }

  private static func text(_ value: String) -> [UInt8] { [UInt8(value.utf8.count)] + Array(value.utf8) }
}
