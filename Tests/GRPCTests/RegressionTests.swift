import Bytes
import Glibc
import HTTP2
import Reactor
import Schema
import Testing

@testable import GRPC

/// Defects that were found once.
@Suite(.serialized, .timeLimit(.minutes(1))) struct RegressionTests {
  @Test func anInboxForgetsWhatWasTaken() throws {
    var inbox = Inbox(limit: 1 << 20)
    let frame = EncodedMessage(payload: Bytes([UInt8](repeating: 7, count: 64 * 1024))).frame
    _ = try frame.withUnsafeBytes { (bytes) throws(Status) in try inbox.receive(bytes) }
    let before = residentKiB()
    for _ in 0..<8000 {
      _ = try frame.withUnsafeBytes { (bytes) throws(Status) in try inbox.receive(bytes) }
      _ = inbox.take()
    }
    // 500 MiB went through; other tests run beside this one.
    #expect(residentKiB() - before < 200_000)
  }

  @Test func aTimeoutOfCenturiesDoesNotOverflow() async throws {
    let ended = try await withServer { test in
      await status {
        let options = CallOptions(metadata: ["grpc-timeout": "2562048H"])
        let call = try await test.channel.bidirectional(Echo.mirror, options: options)
        try await call.send(Text(content: "x"))
        _ = try await call.next()
        call.finishSending()
        _ = try await call.next()
      }
    }
    #expect(ended == .ok)
  }

  @Test func aSentenceThatFitsNoHeaderBlockIsCut() async throws {
    let (ended, left) = try await withServer { test in
      let method = Method<Text, Text>(
        service: "test.Echo", name: String(repeating: "%", count: 6000), kind: .unary)
      let ended = await status {
        _ = try await test.channel.unary(method, Text(), options: CallOptions(timeout: .seconds(5)))
      }
      while test.server.callCount > 0 { try await test.loop.sleep(for: .milliseconds(1)) }
      return (ended, test.server.callCount)
    }
    #expect(ended.code == .unimplemented && ended.message.hasPrefix("there is no method /test.Echo/%%"))
    #expect(left == 0)
  }

  @Test func metadataThatFitsNoHeaderBlockEndsTheCall() async throws {
    let ended = try await withServer { test in
      await status {
        let options = CallOptions(timeout: .seconds(5), metadata: ["tag": String(repeating: "x", count: 15_000)])
        let call = try await test.channel.serverStreaming(Echo.unary, Text(), options: options)
        _ = try await call.next()
        // Answered, or refused as too large: not left open.
      }
    }
    #expect(ended.code != .deadlineExceeded)
  }

  @Test func aChannelThatIsClosedWhileItConnectsStaysClosed() async throws {
    let isConnected = try await withServer { test in
      let channel = Channel(loop: test.loop, target: test.endpoint)
      let done = Wakeup()
      test.loop.spawn {
        _ = await status { try await channel.connect() }
        done.fire()
      }
      test.loop.spawn { channel.close() }
      await done.wait()
      return channel.isConnected
    }
    #expect(!isConnected)
  }

  @Test func theTimeOfACallCoversConnecting() async throws {
    let loop = try EventLoop.start(name: "connecting")
    defer { loop.stop() }
    let ended = try await loop.run {
      // A listener whose queue is full takes no connection: the kernel leaves the rest unanswered.
      let (listener, fillers, port) = fullListener()
      defer { for descriptor in fillers + [listener] { close(descriptor) } }
      let channel = Channel(loop: loop, target: HostPort(host: "127.0.0.1", port: port))
      return await status {
        _ = try await channel.unary(Echo.unary, Text(), options: CallOptions(timeout: .milliseconds(200)))
      }
    }
    #expect(ended.code == .deadlineExceeded)
  }

  @Test func aServerMayBeShutDownTwice() async throws {
    let ended = try await withServer { test in
      let call = try await test.channel.bidirectional(Echo.mirror)
      try await call.send(Text(content: "x"))
      _ = try await call.next()
      let done = Wakeup()
      test.loop.spawn {
        await test.server.shutdown(grace: .milliseconds(50))
        done.fire()
      }
      await test.server.shutdown(grace: .milliseconds(50))
      await done.wait()
      return test.server.connectionCount
    }
    #expect(ended == 0)
  }

  @Test func twoAnswersToAUnaryCallLeaveNoStream() async throws {
    let ended = try await withServer { test in
      let method = Method<Text, Text>(service: "test.Echo", name: "Expand", kind: .unary)
      let ended = await status { _ = try await test.channel.unary(method, Text(content: "1000000")) }
      while test.server.callCount > 0 { try await test.loop.sleep(for: .milliseconds(1)) }
      return ended
    }
    #expect(ended.code == .internal)
  }

  private func residentKiB() -> Int {
    guard let file = fopen("/proc/self/statm", "r") else { return 0 }
    defer { fclose(file) }
    var line = [UInt8](repeating: 0, count: 256)
    let count = fread(&line, 1, line.count, file)
    let pages = String(decoding: line[..<count], as: UTF8.self).split(separator: " ").dropFirst().first
    return (pages.flatMap { Int($0) } ?? 0) * 4
  }
}

/// A listening socket with room for no connection, and the connections that fill it.
private func fullListener() -> (listener: Int32, fillers: [Int32], port: UInt16) {
  let kind = Int32(SOCK_STREAM.rawValue)
  let listener = socket(AF_INET, kind, 0)
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
  var length = socklen_t(MemoryLayout<sockaddr_in>.size)
  let fillers: [Int32] = withUnsafeMutablePointer(to: &address) { pointer in
    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
      bind(listener, address, length)
      listen(listener, 0)
      getsockname(listener, address, &length)
      return (0..<4).map { _ in
        let filler = socket(AF_INET, kind | Int32(SOCK_NONBLOCK.rawValue), 0)
        _ = connect(filler, address, length)
        return filler
      }
    }
  }
  return (listener, fillers, UInt16(bigEndian: address.sin_port))
}
