import Bytes
import Glibc
import HTTP2
import Reactor
import Testing

@Suite(.timeLimit(.minutes(1))) struct HTTP2Tests {
  @Test func smallAndLargePiecesKeepTheirOrder() async throws {
    // Pieces below and above the size from which they go by reference, in one stream, in both directions.
    let sizes = [1, 100, 5_000, 3, 70_000, 16_384, 4_096, 4_095, 300_000, 0, 7]
    let pieces = sizes.enumerated().map { index, size in Bytes((0..<size).map { UInt8(truncatingIfNeeded: $0 ^ index) })
    }
    let whole = pieces.flatMap(\.array)
    let (up, down, trailer) = try await withPair { client, server, _ in
      let request = Exchange()
      request.stream = try client.connection?.open(requestBlock, [], handler: request)
      for piece in pieces { request.stream?.write(piece) }
      request.stream?.end()
      await server.wait { !server.accepted.isEmpty }
      let answer = server.accepted[0]
      await answer.wait { answer.hasEnded }
      answer.stream?.respond(responseBlock)
      for piece in pieces { answer.stream?.write(piece) }
      answer.stream?.end(nil, [HeaderField("sum", "42")])
      await request.wait { request.closedWith != nil }
      return (answer.takeReceived().array, request.takeReceived().array, request.trailers?["sum"])
    }
    #expect(up == whole)
    #expect(down == whole)
    #expect(trailer == "42")
  }

  @Test func creditThatIsNotGivenBackStopsTheSender() async throws {
    var options = Http2Options()
    options.streamWindowBytes = 100_000
    let (before, after, notices) = try await withPair(server: options) { client, server, loop in
      server.onOpen = { stream, _ in
        let exchange = Exchange(stream)
        exchange.gives = false
        return exchange
      }
      let request = Exchange()
      request.stream = try client.connection?.open(requestBlock, [], handler: request)
      request.stream?.write(Bytes(Array(repeating: 1, count: 500_000)))
      request.stream?.end()
      await server.wait { !server.accepted.isEmpty }
      let answer = server.accepted[0]
      await answer.wait { answer.received.count >= 100_000 }
      let before = answer.received.count
      answer.gives = true
      answer.stream?.consume(before)
      await answer.wait { answer.hasEnded }
      return (before, answer.received.count, request.writableNotices)
    }
    #expect(before == 100_000)
    #expect(after == 500_000)
    #expect(notices > 0)
  }

  @Test func aHeaderBlockOverTheLimitResetsItsStreamOnly() async throws {
    let (code, second) = try await withPair { client, server, _ in
      let large = Exchange()
      let field = HeaderField("x", String(repeating: "y", count: 4000))
      large.stream = try client.connection?.open(requestBlock, Array(repeating: field, count: 5), handler: large)
      large.stream?.end()
      await large.wait { large.closedWith != nil }
      let small = Exchange()
      small.stream = try client.connection?.open(requestBlock, [], handler: small)
      small.stream?.end()
      await server.wait { !server.accepted.isEmpty }
      server.accepted[0].stream?.respondAndEnd(responseBlock, [])
      await small.wait { small.closedWith != nil }
      return (large.closedWith, small.headers?[":status"])
    }
    #expect(code != .noError && code != nil)
    #expect(second == "200")
  }

  @Test func bytesThatAreNoHTTP2EndTheConnection() async throws {
    let loop = try EventLoop.start(name: "garbage")
    defer { loop.stop() }
    let error = try await loop.run {
      let ends = socketPair()
      let server = try Endpoint(.server, loop, ends.1, Http2Options())
      let garbage = Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8)
      _ = garbage.withUnsafeBytes { send(ends.0, $0.baseAddress, $0.count, 0) }
      await server.wait { server.isClosed }
      close(ends.0)
      return server.error
    }
    #expect(error != nil)
  }

  @Test func aPeerThatIsSilentIsAskedAndThenLeft() async throws {
    let loop = try EventLoop.start(name: "silent")
    defer { loop.stop() }
    let error = try await loop.run {
      let ends = socketPair()
      var options = Http2Options()
      options.keepaliveInterval = .milliseconds(20)
      options.keepaliveTimeout = .milliseconds(20)
      let server = try Endpoint(.server, loop, ends.1, options)
      await server.wait { server.isClosed }
      close(ends.0)
      return server.error
    }
    #expect(error?.message.contains("ping") == true)
  }

  @Test func aPeerThatAnswersPingsStays() async throws {
    var options = Http2Options()
    options.keepaliveInterval = .milliseconds(10)
    options.keepaliveTimeout = .milliseconds(500)
    let isOpen = try await withPair(server: options) { client, server, loop in
      for _ in 0..<10 { try await loop.sleep(for: .milliseconds(10)) }
      return server.connection?.isOpen == true && client.connection?.isOpen == true
    }
    #expect(isOpen)
  }

  @Test func aFloodOfResetsEndsTheConnection() async throws {
    var options = Http2Options()
    options.resetBurst = 10
    options.resetsPerSecond = 1
    let opened = try await withPair(server: options) { client, server, loop in
      var opened = 0
      while client.connection?.isOpen == true, opened < 1000 {
        let request = Exchange()
        request.stream = try client.connection?.open(requestBlock, [], handler: request)
        opened += 1
        await server.wait { server.accepted.count >= opened || server.isClosed }
        request.stream?.reset(.cancel)
        await request.wait { request.closedWith != nil }
      }
      return opened
    }
    #expect(opened < 100)
  }

  @Test func drainLetsStreamsEndAndTakesNoMore() async throws {
    let (status, late) = try await withPair { client, server, _ in
      let request = Exchange()
      request.stream = try client.connection?.open(requestBlock, [], handler: request)
      request.stream?.end()
      await server.wait { !server.accepted.isEmpty }
      server.connection?.drain()
      await client.wait { client.isGoingAway }
      server.accepted[0].stream?.respondAndEnd(responseBlock, [])
      await request.wait { request.closedWith != nil }
      await client.wait { client.isClosed }
      let late = (try? client.connection?.open(requestBlock, [], handler: Exchange())) == nil
      return (request.headers?[":status"], late)
    }
    #expect(status == "200")
    #expect(late)
  }

  @Test func headersAsLongAsTheFrameBufferShareNothing() async throws {
    // nghttp2 allocates a header's value with 41 bytes beside it: this length asks for as much as a frame buffer.
    let length = 16_394 - 41
    let loop = try EventLoop.start(name: "long-headers")
    defer { loop.stop() }
    let resets = try await loop.run {
      let ends = socketPair()
      let server = try Endpoint(.server, loop, ends.1, Http2Options())
      var bytes = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + [0, 0, 0, 4, 0, 0, 0, 0, 0]
      for id: UInt8 in [1, 3, 5] {
        // POST, http, /, and a literal that isn't indexed, its value not Huffman coded: 127 + 7-bit groups.
        var block: [UInt8] = [0x83, 0x86, 0x84, 0x00, 1, UInt8(ascii: "x")]
        let rest = length - 127
        block += [127, UInt8(rest & 127) | 128, UInt8(rest >> 7)] + Array(repeating: UInt8(ascii: "y"), count: length)
        bytes += [0, UInt8(block.count >> 8), UInt8(block.count & 255), 1, 5, 0, 0, 0, id] + block
      }
      var sent = 0
      while sent < bytes.count {
        sent += max(0, bytes[sent...].withUnsafeBytes { send(ends.0, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) })
        try await loop.sleep(for: .milliseconds(1))
      }
      var answer = [UInt8](repeating: 0, count: 4096)
      var count = 0
      var resets = 0
      while resets < 3, server.connection?.isOpen == true {
        try await loop.sleep(for: .milliseconds(1))
        count += max(0, answer[count...].withUnsafeMutableBytes { recv(ends.0, $0.baseAddress, $0.count, 0) })
        resets = frameTypes(answer[..<count]).filter { $0 == 3 }.count
      }
      close(ends.0)
      return resets
    }
    // Over the limit of a header list: each stream is reset, and the connection goes on.
    #expect(resets == 3)
  }

  private func frameTypes(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
    var types: [UInt8] = []
    var rest = bytes
    while rest.count >= 9 {
      let start = rest.startIndex
      let length = Int(rest[start]) << 16 | Int(rest[start + 1]) << 8 | Int(rest[start + 2])
      types.append(rest[start + 3])
      rest = rest.dropFirst(9 + length)
    }
    return types
  }

  @Test func aHandlerMayCloseTheConnectionWhenItHearsOfRoom() async throws {
    final class Closing: Http2StreamHandler {
      var close: () -> Void = {}
      func streamReceivedHeaders(_ headers: HeaderList) {}
      func streamReceivedData(_ bytes: UnsafeRawBufferPointer) {}
      func streamReceivedTrailers(_ trailers: HeaderList) {}
      func streamReceivedEnd() {}
      func streamWritable() { close() }
      func streamClosed(_ code: Http2ErrorCode) {}
    }
    let isClosed = try await withPair { client, _, _ in
      await client.wait { client.isReady }
      let handler = Closing()
      handler.close = { client.connection?.closeNow() }
      let stream = try client.connection?.open(requestBlock, [], handler: handler)
      stream?.write(Bytes([UInt8](repeating: 1, count: 100_000)))
      await client.wait { client.isClosed }
      return client.isClosed
    }
    #expect(isClosed)
  }
}
