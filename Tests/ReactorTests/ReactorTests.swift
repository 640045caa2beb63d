import Bytes
import Glibc
import Reactor
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(1))) struct ReactorTests {
  @Test func callsFromOtherThreadsComeInOrder() async throws {
    let loop = try EventLoop.start(name: "order")
    let seen = Mutex<[Int]>([])
    for number in 0..<1000 { loop.execute { seen.withLock { $0.append(number) } } }
    try await loop.run { loop.assertCurrent() }
    #expect(seen.withLock { $0 } == Array(0..<1000))
    loop.stop()
  }

  @Test func storiesStayOnTheirLoop() async throws {
    let loop = try EventLoop.start(name: "stories")
    let stayed = try await loop.run {
      var onLoop = [loop.isCurrent]
      try await loop.sleep(for: .milliseconds(1))
      onLoop.append(loop.isCurrent)
      let elsewhere = await BlockingPool.shared.run { loop.isCurrent }
      onLoop.append(loop.isCurrent)
      return onLoop + [!elsewhere]
    }
    #expect(stayed == [true, true, true, true])
    loop.stop()
  }

  @Test func timersFireInOrderAndCancelledOnesDoNot() async throws {
    let loop = try EventLoop.start(name: "timers")
    let fired: [Int] = await withCheckedContinuation { continuation in
      loop.execute {
        var order: [Int] = []
        var timers: [LoopTimer] = []
        for delay in [5, 1, 3, 2, 4] {
          timers.append(loop.schedule(after: .milliseconds(delay)) { order.append(delay) })
        }
        timers[2].cancel()
        loop.schedule(after: .milliseconds(20)) { continuation.resume(returning: order) }
      }
    }
    #expect(fired == [1, 2, 4, 5])
    loop.stop()
  }

  @Test func aDelayPastAllClocksIsNever() async throws {
    #expect(EventLoop.deadline(after: .seconds(99_999_999 * 3600)) == .max)
    let loop = try EventLoop.start(name: "test")
    defer { loop.stop() }
    let hasFired = try await loop.run {
      var hasFired = false
      let never = loop.schedule(after: .seconds(99_999_999 * 3600)) { hasFired = true }
      try await loop.sleep(for: .milliseconds(20))
      never.cancel()
      return hasFired
    }
    #expect(!hasFired)
  }

  @Test func sleepEndsWithCancellation() async throws {
    let loop = try EventLoop.start(name: "sleep")
    let task = Task { try await loop.run { try await loop.sleep(for: .seconds(3600)) } }
    let inner = Task {
      try await withTaskCancellationHandler {
        try await loop.run {
          let sleeper = loop.spawn { _ = try? await loop.sleep(for: .seconds(3600)) }
          sleeper.cancel()
          await sleeper.value
          return true
        }
      } onCancel: {
      }
    }
    #expect(try await inner.value)
    task.cancel()
    loop.stop()
  }

  @Test func poolPropagatesErrors() async throws {
    struct Broken: Error {}
    let pool = BlockingPool(threads: 1, name: "broken")
    await #expect(throws: Broken.self) { try await pool.run { throw Broken() } }
    #expect(await pool.run { 7 } == 7)
  }

  @Test func hostsAndPorts() {
    #expect(HostPort("a.example:80") == HostPort(host: "a.example", port: 80))
    #expect(HostPort("[::1]:8080") == HostPort(host: "::1", port: 8080))
    #expect(HostPort("[::1]:8080")?.description == "[::1]:8080")
    for wrong in ["", "host", ":80", "host:", "host:65536", "host:-1", "host:x", "\u{306}][:8:80", "]:80", "a b:80"] {
      #expect(HostPort(wrong) == nil)
    }
  }

  @Test func bytesGoThroughAndCome() async throws {
    let loop = try EventLoop.start(name: "echo")
    let echoed = try await loop.run {
      let echo = try EchoServer(loop: loop)
      let descriptor = try await loop.connect(to: echo.endpoint, timeout: .seconds(5))
      // Larger than the socket buffers, so that queueing and draining on both sides take part.
      let sent = Bytes((0..<8_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) })
      let received = try await Client(loop: loop, descriptor: descriptor).exchange(sent)
      echo.close()
      return received == sent
    }
    #expect(echoed)
    loop.stop()
  }

  @Test func aResetWhileReadingIsOffClosesAndDoesNotSpin() async throws {
    let loop = try EventLoop.start(name: "paused")
    defer { loop.stop() }
    let isOpen = try await loop.run {
      let pair = try await Pair(loop: loop)
      pair.server.stream?.setReading(false)
      pair.resetClient()
      await pair.server.closed.wait()
      return pair.server.stream?.isOpen
    }
    #expect(isOpen == false)
  }

  @Test func connectingToNobodyFails() async throws {
    let loop = try EventLoop.start(name: "nobody")
    await #expect(throws: IOError.self) {
      try await loop.run {
        let echo = try EchoServer(loop: loop)
        echo.close()
        _ = try await loop.connect(to: echo.endpoint, timeout: .seconds(5))
      }
    }
    loop.stop()
  }
}

private final class EchoServer {
  private var listener: Listener?
  private var connections: [EchoConnection] = []
  let endpoint: HostPort

  init(loop: EventLoop) throws {
    let address = try SocketAddress.resolve(HostPort(host: "127.0.0.1", port: 0))[0]
    let box = Box()
    let listener = try Listener(loop: loop, address: address) { descriptor, _ in
      if let connection = try? EchoConnection(loop: loop, descriptor: descriptor) {
        box.server?.connections.append(connection)
      }
    }
    self.listener = listener
    endpoint = HostPort(host: "127.0.0.1", port: listener.address.port)
    box.server = self
  }

  func close() {
    listener?.close()
    connections = []
  }

  private final class Box { weak var server: EchoServer? }
}

private final class EchoConnection: ByteStreamHandler {
  private var stream: ByteStream?

  init(loop: EventLoop, descriptor: Int32) throws {
    stream = try ByteStream(loop: loop, descriptor: descriptor, handler: self)
  }

  func streamReceived(_ bytes: UnsafeRawBufferPointer) {
    stream?.write(Bytes(copying: bytes))
    if let stream, stream.pendingBytes > 1_000_000 { stream.setReading(false) }
  }
  func streamDrained() { stream?.setReading(true) }
  func streamClosed(_ error: IOError?) {}
}

private final class Client: ByteStreamHandler {
  private var stream: ByteStream?
  private var received = ByteWriter()
  private var expected = 0
  private var continuation: CheckedContinuation<Void, any Error>?

  init(loop: EventLoop, descriptor: Int32) throws {
    stream = try ByteStream(loop: loop, descriptor: descriptor, handler: self)
  }

  func exchange(_ bytes: Bytes) async throws -> Bytes {
    expected = bytes.count
    stream?.send(copying: bytes.prefix(100).unsafeMemory)
    stream?.write(bytes.dropFirst(100))
    try await withCheckedThrowingContinuation { continuation = $0 }
    stream?.close()
    var copy = ByteWriter()
    swap(&copy, &received)
    return copy.finish()
  }

  func streamReceived(_ bytes: UnsafeRawBufferPointer) {
    received.append(bytes)
    guard received.count >= expected else { return }
    continuation?.resume()
    continuation = nil
  }
  func streamDrained() {}
  func streamClosed(_ error: IOError?) {
    continuation?.resume(throwing: error ?? IOError(code: 0, call: "closed"))
    continuation = nil
  }
}

/// A connected pair: a stream on the server's side, a bare descriptor on the client's.
private final class Pair {
  final class Side: ByteStreamHandler {
    var stream: ByteStream?
    let closed = Wakeup()
    func streamReceived(_ bytes: UnsafeRawBufferPointer) {}
    func streamDrained() {}
    func streamClosed(_ error: IOError?) { closed.fire() }
  }
  let server = Side()
  private let client: Int32

  init(loop: EventLoop) async throws {
    let accepted = Wakeup()
    var descriptor: Int32 = -1
    let address = try SocketAddress.resolve(HostPort(host: "127.0.0.1", port: 0))[0]
    let listener = try Listener(loop: loop, address: address) { accept, _ in
      descriptor = accept
      accepted.fire()
    }
    client = try await loop.connect(
      to: HostPort(host: "127.0.0.1", port: listener.address.port), timeout: .seconds(5))
    if descriptor < 0 { await accepted.wait() }
    listener.close()
    server.stream = try ByteStream(loop: loop, descriptor: descriptor, handler: server)
  }

  func resetClient() {
    var now = linger(l_onoff: 1, l_linger: 0)
    setsockopt(client, SOL_SOCKET, SO_LINGER, &now, socklen_t(MemoryLayout<linger>.size))
    close(client)
  }
}
