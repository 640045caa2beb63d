import Bytes
import GRPC
import HTTP2
import Protobuf
import Reactor
import Schema
import Testing

@Suite(.timeLimit(.minutes(1))) struct CallTests {
  @Test func unaryAnswers() async throws {
    let answer = try await withServer { try await $0.channel.unary(Echo.unary, Text(content: "hello")).content }
    #expect(answer == "hello")
  }

  @Test func anAliasAnswersTheSame() async throws {
    let method = Method<Text, Text>(service: "Alias", name: "Unary", kind: .unary)
    #expect(try await withServer { try await $0.channel.unary(method, Text(content: "a")).content } == "a")
  }

  @Test func manyCallsAtOnceOnOneConnection() async throws {
    let (right, connections) = try await withServer { test in
      let done = Wakeup()
      var right = 0
      var left = 500
      for number in 0..<500 {
        test.loop.spawn {
          let answer = try? await test.channel.unary(Echo.unary, Text(content: "\(number)"))
          if answer?.content == "\(number)" { right += 1 }
          left -= 1
          if left == 0 { done.fire() }
        }
      }
      await done.wait()
      return (right, test.server.connectionCount)
    }
    #expect(right == 500)
    #expect(connections == 1)
  }

  @Test func clientStreamsAreCollected() async throws {
    let answer = try await withServer { test in
      let call = try await test.channel.clientStreaming(Echo.collect)
      for part in ["a", "b", "c"] { try await call.send(Text(content: part)) }
      return try await call.finish().content
    }
    #expect(answer == "abc")
  }

  @Test func aFieldOfBytesGoesOutByReference() async throws {
    try await withServer { server in
      let pieces = [
        Bytes(), Bytes("a"),
        Bytes(capacity: 300_000) { memory in
          memory.initializeMemory(as: UInt8.self, repeating: 0x62)
          return memory.count
        },
      ]
      let collected = try await server.channel.clientStreaming(Echo.collect)
      let mirrored = try await server.channel.bidirectional(Echo.mirror)
      for piece in pieces {
        try await collected.send(Text(), field: 1, piece)
        try await mirrored.send(Text(content: "replaced"), field: 1, piece)
        #expect(try await mirrored.next()?.content == piece.string)
      }
      #expect(try await collected.finish().content == "a" + String(repeating: "b", count: 300_000))
      mirrored.finishSending()
      #expect(try await mirrored.next() == nil)
    }
  }

  @Test func largeMessagesAndStreamsInBothDirections() async throws {
    let sizes = [0, 1, 16_383, 16_384, 65_535, 65_536, 1_000_000, 3_000_000]
    let same = try await withServer { test in
      let call = try await test.channel.bidirectional(Echo.mirror)
      var same: [Bool] = []
      for size in sizes {
        let text = String(repeating: "é", count: size / 2) + (size % 2 == 1 ? "." : "")
        try await call.send(Text(content: text))
        same.append(try await call.next()?.content == text)
      }
      call.finishSending()
      same.append(try await call.next() == nil)
      return same
    }
    #expect(same.count == sizes.count + 1 && same.allSatisfy { $0 })
  }

  @Test func callbackStreamsKeepTheOrder() async throws {
    let received = try await withServer { test in
      let call = try await test.channel.bidirectional(Echo.raw)
      for number in 0..<1000 { try await call.send(Text(content: "\(number)")) }
      call.finishSending()
      var received: [String] = []
      while let next = try await call.next() { received.append(next.content) }
      return received
    }
    #expect(received == (0..<1000).map(String.init))
  }

  @Test func statusMetadataAndTrailersArrive() async throws {
    let (refused, tag) = try await withServer { test in
      let refused = await status { _ = try await test.channel.unary(Echo.unary, Text(content: "refuse")) }
      let call = try await test.channel.serverStreaming(
        Echo.unary, Text(content: "x"), options: CallOptions(metadata: ["tag": "blue"]))
      let tag = try await call.initialMetadata()["tag"]
      _ = try await call.next()
      return (refused, tag)
    }
    #expect(
      refused
        == Status(
          .failedPrecondition, "grüße: 100 % refused", details: Bytes([1, 2, 255]), retryAfter: .milliseconds(1500)))
    #expect(tag == "blue")
  }

  @Test func aSlowReaderStopsTheWriter() async throws {
    var client = ChannelOptions()
    client.http2.streamWindowBytes = 64 * 1024
    let (before, total) = try await withServer(client: client) { test in
      let call = try await test.channel.serverStreaming(Echo.expand, Text(content: "1000"))
      _ = try await call.next()
      // Turns of the loop in which the server may write, while nobody reads.
      for _ in 0..<200 { try await test.loop.sleep(for: .microseconds(100)) }
      let before = test.written
      var total = 1
      while try await call.next() != nil { total += 1 }
      return (before, total)
    }
    // The window, what may be written ahead, and a message: far from the 10 MB of the whole.
    #expect(before < (64 * 1024 + 256 * 1024 + 64 * 1024) / 10_000 + 10)
    #expect(total == 1000)
  }

  @Test func aHandlerThatDoesNotReadStopsItsCaller() async throws {
    var options = ServerOptions()
    options.http2.streamWindowBytes = 64 * 1024
    let (sent, ended) = try await withServer(options: options) { test in
      var sent = 0
      let call = try await test.channel.clientStreaming(Echo.unread, options: CallOptions(timeout: .milliseconds(300)))
      let ended = await status {
        while true {
          try await call.send(Text(content: String(repeating: "x", count: 10_000)))
          sent += 1
        }
      }
      return (sent, ended)
    }
    #expect(sent < 60)
    #expect(ended.code == .deadlineExceeded)
  }

  @Test func deadlinesEndBothSides() async throws {
    let (ended, cancelled) = try await withServer { test in
      let ended = await status {
        _ = try await test.channel.unary(Echo.wait, Text(), options: CallOptions(timeout: .milliseconds(50)))
      }
      while test.cancelled == 0 { await test.cancellation.wait() }
      return (ended, test.cancelled)
    }
    #expect(ended.code == .deadlineExceeded)
    #expect(cancelled == 1)
  }

  @Test func cancellingATaskCancelsTheCallOnTheServer() async throws {
    let (ended, cancelled) = try await withServer { test in
      let started = Wakeup()
      var ended = Status.ok
      let task = test.loop.spawn {
        started.fire()
        ended = await status { _ = try await test.channel.unary(Echo.wait, Text()) }
      }
      await started.wait()
      while test.server.callCount == 0 { try await test.loop.sleep(for: .milliseconds(1)) }
      task.cancel()
      while test.cancelled == 0 { await test.cancellation.wait() }
      await task.value
      return (ended, test.cancelled)
    }
    #expect(ended.code == .cancelled)
    #expect(cancelled == 1)
  }

  @Test func aLostConnectionIsUnavailableAndIsMadeAgain() async throws {
    let (ended, again) = try await withServer { test in
      var ended = Status.ok
      let task = test.loop.spawn { ended = await status { _ = try await test.channel.unary(Echo.wait, Text()) } }
      while test.server.callCount == 0 { try await test.loop.sleep(for: .milliseconds(1)) }
      let first = Channel(loop: test.loop, target: test.endpoint)
      _ = try await first.unary(Echo.unary, Text(content: "other"))
      first.close()
      let refused = await status { _ = try await first.unary(Echo.unary, Text()) }
      await test.server.shutdown(grace: .milliseconds(10))
      await task.value
      return (ended, refused)
    }
    #expect(ended.code == .unavailable || ended.code == .cancelled)
    #expect(again.code == .unavailable)
  }
}
