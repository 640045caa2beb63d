import Bytes
import GRPC
import Protobuf
import Reactor
import Schema

typealias Text = PushV1.TextMessage

/// The four call kinds over one message type, and what a test may do to them.
enum Echo {
  static let unary = Method<Text, Text>(service: "test.Echo", name: "Unary", kind: .unary)
  static let collect = Method<Text, Text>(service: "test.Echo", name: "Collect", kind: .clientStreaming)
  static let expand = Method<Text, Text>(service: "test.Echo", name: "Expand", kind: .serverStreaming)
  static let mirror = Method<Text, Text>(service: "test.Echo", name: "Mirror", kind: .bidirectional)
  static let raw = Method<Text, Text>(service: "test.Echo", name: "Raw", kind: .bidirectional)
  static let wait = Method<Text, Text>(service: "test.Echo", name: "Wait", kind: .unary)
  static let unread = Method<Text, Text>(service: "test.Echo", name: "Unread", kind: .clientStreaming)
  static let missing = Method<Text, Text>(service: "test.Echo", name: "Missing", kind: .unary)
}

/// A server on a loop, and a channel to it on the same loop.
final class TestServer {
  let loop: EventLoop
  let server: Server
  let endpoint: HostPort
  let channel: Channel
  /// Messages that `Expand` has written.
  var written = 0
  /// Calls of `Wait` whose cancellation was heard.
  var cancelled = 0
  let cancellation = Wakeup()

  private init(_ loop: EventLoop, _ server: Server, _ endpoint: HostPort, _ options: ChannelOptions) {
    self.loop = loop
    self.server = server
    self.endpoint = endpoint
    channel = Channel(loop: loop, target: endpoint, options: options)
  }

  static func start(
    _ loop: EventLoop, options: ServerOptions = ServerOptions(), client: ChannelOptions = ChannelOptions(),
    interceptors: [any ServerInterceptor] = []
  ) async throws -> TestServer {
    final class Late { weak var server: TestServer? }
    let late = Late()
    var router = Router()
    router.unary(Echo.unary) { request, context in
      if request.content == "refuse" {
        context.trailers.append("why", "because")
        throw Status(
          .failedPrecondition, "grüße: 100 % refused", details: Bytes([1, 2, 255]), retryAfter: .milliseconds(1500))
      }
      if let tag = context.metadata["tag"] { context.initialMetadata.append("tag", tag) }
      return request
    }
    router.clientStreaming(Echo.collect) { requests, _ in
      var all = ""
      while let next = try await requests.next() { all += next.content }
      return Text(content: all)
    }
    router.serverStreaming(Echo.expand) { request, responses, _ in
      let count = Int(request.content) ?? 0
      let piece = String(repeating: "x", count: 10_000)
      for _ in 0..<count {
        try await responses.write(Text(content: piece))
        late.server?.written += 1
      }
    }
    router.bidirectional(Echo.mirror) { requests, responses, _ in
      while let next = try await requests.next() { try await responses.write(next) }
    }
    router.stream(Echo.raw) { RawMirror($0) }
    router.unary(Echo.wait) { request, context in
      let end = Wakeup()
      context.onCancel {
        late.server?.cancelled += 1
        late.server?.cancellation.fire()
        end.fire()
      }
      await end.wait()
      return request
    }
    router.clientStreaming(Echo.unread) { _, context in
      let end = Wakeup()
      context.onCancel { end.fire() }
      await end.wait()
      return Text()
    }
    router.alias(service: "Alias", of: "test.Echo")
    let server = Server(loop: loop, router: router, options: options, interceptors: interceptors)
    let address = try await server.listen(on: HostPort(host: "127.0.0.1", port: 0))
    let test = TestServer(loop, server, HostPort(host: "127.0.0.1", port: address.port), client)
    late.server = test
    return test
  }
}

private final class RawMirror: ServerStreamHandler {
  private let call: ServerCall
  init(_ call: ServerCall) { self.call = call }
  func received(_ message: Bytes) { call.send(EncodedMessage(payload: message)) }
  func requestsEnded() { call.finish(.ok) }
  func writable() {}
  func closed() {}
}

/// Runs a test on a loop of its own, with a server.
func withServer<T: Sendable>(
  options: ServerOptions = ServerOptions(), client: ChannelOptions = ChannelOptions(),
  _ body: @escaping @Sendable (TestServer) async throws -> T
) async throws -> T {
  let loop = try EventLoop.start(name: "grpc-test")
  defer { loop.stop() }
  return try await loop.run {
    let test = try await TestServer.start(loop, options: options, client: client)
    let result = try await body(test)
    test.channel.close()
    await test.server.shutdown(grace: .zero)
    return result
  }
}

/// The status that a call ends with.
func status(_ body: () async throws -> Void) async -> Status {
  do {
    try await body()
    return .ok
  } catch {
    return Status(error)
  }
}
