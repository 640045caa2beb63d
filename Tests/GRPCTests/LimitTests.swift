import Bytes
import GRPC
import Protobuf
import Reactor
import Schema
import Testing

@Suite(.timeLimit(.minutes(1))) struct LimitTests {
  @Test func unknownMethods() async throws {
    let ended = try await withServer { test in
      await status { _ = try await test.channel.unary(Echo.missing, Text()) }
    }
    #expect(ended == Status(.unimplemented, "there is no method /test.Echo/Missing"))
  }

  @Test func messagesOverTheLimit() async throws {
    var options = ServerOptions()
    options.maxRequestBytes = 1000
    let (request, response, after) = try await withServer(options: options) { test in
      let request = await status {
        _ = try await test.channel.unary(Echo.unary, Text(content: String(repeating: "x", count: 2000)))
      }
      let response = await status {
        let call = CallOptions(maxResponseBytes: 100)
        _ = try await test.channel.unary(Echo.unary, Text(content: String(repeating: "x", count: 500)), options: call)
      }
      let after = try await test.channel.unary(Echo.unary, Text(content: "still there")).content
      return (request, response, after)
    }
    #expect(request.code == .resourceExhausted && request.message.contains("over the limit of 1000"))
    #expect(response.code == .resourceExhausted)
    #expect(after == "still there")
  }

  @Test func theLongestTimeoutIsNone() async throws {
    // The most that grpc-timeout can say, as callers do who mean "never".
    let reply = try await withServer { test in
      let call = CallOptions(metadata: ["grpc-timeout": "99999999H"])
      return try await test.channel.unary(Echo.unary, Text(content: "in time"), options: call).content
    }
    #expect(reply == "in time")
  }

  @Test func requestsThatAreNoMessages() async throws {
    // A TextMessage has a string where a FileChunk has bytes.
    let ended = try await withServer { test in
      let broken = Method<PushV1.FileChunk, Text>(service: "test.Echo", name: "Unary", kind: .unary)
      return await status { _ = try await test.channel.unary(broken, PushV1.FileChunk(content: Bytes([0xFF, 0xFE]))) }
    }
    #expect(ended.code == .invalidArgument && ended.message.contains("push.v1.TextMessage"))
  }

  @Test func noneOrTwoRequestsForOne() async throws {
    let codes = try await withServer { test in
      var codes: [StatusCode] = []
      for count in [0, 2] {
        let method = Method<Text, Text>(service: "test.Echo", name: "Unary", kind: .clientStreaming)
        let call = try await test.channel.clientStreaming(method)
        codes.append(
          await status {
            for _ in 0..<count { try await call.send(Text(content: "x")) }
            _ = try await call.finish()
          }.code)
      }
      return codes
    }
    #expect(codes == [.invalidArgument, .invalidArgument])
  }

  @Test func connectionsOverTheLimitAreClosed() async throws {
    var options = ServerOptions()
    options.maxConnections = 1
    let refused = try await withServer(options: options) { test in
      _ = try await test.channel.unary(Echo.unary, Text())
      let second = Channel(loop: test.loop, target: test.endpoint)
      return await status { _ = try await second.unary(Echo.unary, Text()) }
    }
    #expect(refused.code == .unavailable)
  }

  @Test func shutdownLetsCallsEndAndTakesNoMore() async throws {
    let (answer, after) = try await withServer { test in
      let call = try await test.channel.bidirectional(Echo.mirror)
      try await call.send(Text(content: "1"))
      _ = try await call.next()
      let shutdown = test.loop.spawn { await test.server.shutdown(grace: .seconds(10)) }
      // The GOAWAY is on its way; the call that is open goes on.
      try await call.send(Text(content: "2"))
      let answer = try await call.next()?.content
      call.finishSending()
      _ = try await call.next()
      await shutdown.value
      let after = await status { _ = try await test.channel.unary(Echo.unary, Text()) }
      return (answer, after)
    }
    #expect(answer == "2")
    #expect(after.code == .unavailable)
  }

  @Test func aServerRefusesWhatItsInterceptorRefuses() async throws {
    final class Refuse: ServerInterceptor {
      var finished: [StatusCode] = []
      func callStarted(_ context: ServerContext) throws(Status) {
        if context.metadata["key"] == nil { throw Status(.unauthenticated, "no key") }
      }
      func callFinished(_ context: ServerContext, _ status: Status) { finished.append(status.code) }
    }
    let loop = try EventLoop.start(name: "interceptors")
    defer { loop.stop() }
    let (codes, finished) = try await loop.run {
      let refuse = Refuse()
      let test = try await TestServer.start(loop, interceptors: [refuse])
      var codes: [StatusCode] = []
      codes.append(await status { _ = try await test.channel.unary(Echo.unary, Text()) }.code)
      let options = CallOptions(metadata: ["key": "1"])
      codes.append(await status { _ = try await test.channel.unary(Echo.unary, Text(), options: options) }.code)
      test.channel.close()
      await test.server.shutdown(grace: .zero)
      return (codes, refuse.finished)
    }
    #expect(codes == [.unauthenticated, .ok])
    #expect(finished == [.unauthenticated, .ok])
  }
}
