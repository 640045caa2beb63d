import Bytes
import Glibc
import Reactor
import Testing

@testable import HTTP2

/// Data that is written past nghttp2, against a peer that counts every byte.
@Suite(.timeLimit(.minutes(2))) struct DirectWriteTests {
  /// Short messages, each in a turn of its own, while the peer gives credit in dribs and drabs, changes the windows, pings,
  /// makes other calls, resets streams and stops reading for a while. Nothing comes that there is no credit for, and all
  /// credit is used to its last byte.
  @Test(arguments: [1, 2, 3, 4] as [UInt64]) func windowsAreKeptToTheByte(seed: UInt64) async throws {
    let outcome = try await withDialogue(initialWindow: 3_000, sendBuffer: 4_608) { dialogue in
      var random = SeededGenerator(seed: seed)
      for step in 0..<20_000 {
        // By turns more is written than there is credit for, and less.
        if step / 1_000 % 2 == 0 || Int.random(in: 0..<8, using: &random) == 0 {
          dialogue.writeSome(&random, upTo: step / 1_000 % 2 == 0 ? 400 : 50)
        }
        if Int.random(in: 0..<2, using: &random) == 0 { dialogue.act(&random) }
        await dialogue.turn()
      }
      dialogue.peer.setReading(true)
      await dialogue.useUp()
      await dialogue.end()
      return dialogue.outcome
    }
    #expect(outcome.complaints.isEmpty)
    #expect(outcome.isComplete)
    #expect(outcome.directTurns > 500)
    #expect(outcome.resets > 3)
    #expect(outcome.calls > 100)
    #expect(outcome.pongs > 100)
  }

  /// Windows as large as they can be: a byte that wasn't debited when its credit comes back would overflow them.
  @Test(arguments: [5, 6] as [UInt64]) func windowsAtTheirMaximumDoNotOverflow(seed: UInt64) async throws {
    let outcome = try await withDialogue(initialWindow: Int(Int32.max), sendBuffer: nil) { dialogue in
      var random = SeededGenerator(seed: seed)
      let peer = dialogue.peer
      peer.grant(Int(Int32.max) - 65_535)
      for _ in 0..<10_000 {
        dialogue.writeSome(&random, upTo: Bool.random(using: &random) ? 300 : 9_000)
        await dialogue.turn()
        guard Int.random(in: 0..<10, using: &random) == 0 else { continue }
        peer.grant(Int(Int32.max) - peer.connectionWindow)
        peer.grant(Int(Int32.max) - (peer.streams[dialogue.id]?.window ?? 0), to: dialogue.id)
      }
      await dialogue.end()
      return dialogue.outcome
    }
    #expect(outcome.complaints.isEmpty)
    #expect(outcome.isComplete)
    #expect(outcome.directTurns > 3_000)
  }

  @Test func aConnectionThatDrainsOrEndsSettlesFirst() async throws {
    let (drained, closed) = try await withDialogue(initialWindow: 60_000, sendBuffer: nil) { dialogue in
      var random = SeededGenerator(seed: 7)
      for _ in 0..<20 {
        dialogue.writeSome(&random, upTo: 300)
        await dialogue.turn()
      }
      let connection = dialogue.server.connection
      let before = connection?.account.debt ?? 0
      connection?.drain()
      let after = connection?.account.debt
      for _ in 0..<20 {
        dialogue.writeSome(&random, upTo: 300)
        await dialogue.turn()
      }
      let again = connection?.account.debt ?? 0
      connection?.terminate()
      for _ in 0..<5 { await dialogue.turn() }
      return (before > 0 && after == 0 && again > 0, dialogue.server.isClosed && dialogue.received == dialogue.written)
    }
    #expect(drained)
    #expect(closed)
  }

  /// One stream's debt is settled before another's begins, and what each may write is the lesser of its own window and the
  /// connection's.
  @Test func twoQuietStreamsShareTheConnection() async throws {
    let outcome = try await withDialogue(initialWindow: 40_000, sendBuffer: nil) { dialogue in
      var random = SeededGenerator(seed: 8)
      let first = dialogue.id
      await dialogue.open()
      let ids = [first, dialogue.id]
      for step in 0..<2_000 {
        // By turns each has one turn, or several.
        let id = ids[step < 1_000 ? step % 2 : step / 5 % 2]
        dialogue.writeSome(&random, upTo: 100, to: id)
        await dialogue.turn()
        if step % 200 == 199 {
          dialogue.peer.grant(30_000)
          for id in ids { dialogue.peer.grant(20_000, to: id) }
        }
      }
      // More than there is credit for.
      for id in ids { dialogue.write(120_000, to: try #require(dialogue.stream(id))) }
      for _ in 0..<50 { await dialogue.turn() }
      return dialogue.outcome
    }
    #expect(outcome.complaints.isEmpty)
    #expect(outcome.directTurns > 300)
    #expect(outcome.connectionWindow == 0)
  }

  /// Short messages use up the lesser window to its last byte and wait there, whichever it is.
  @Test(arguments: [20_000, 200_000]) func shortMessagesStopAtTheLesserWindow(streamWindow: Int) async throws {
    let (stopped, outcome) = try await withDialogue(initialWindow: streamWindow, sendBuffer: nil) { dialogue in
      var random = SeededGenerator(seed: 11)
      while dialogue.written < 70_000 {
        dialogue.writeSome(&random, upTo: 300)
        await dialogue.turn()
        if (dialogue.stream?.pendingBytes ?? 0) > 2_000 { break }
      }
      let stopped = dialogue.received
      dialogue.peer.grant(70_000)
      await dialogue.end()
      return (stopped, dialogue.outcome)
    }
    #expect(stopped == min(streamWindow, 65_535))
    #expect(outcome.complaints.isEmpty)
    #expect(outcome.isComplete)
    #expect(outcome.directTurns > 30)
  }

  /// The stream is gone, and what was written to it counts for the connection all the same.
  @Test func aStreamThatIsResetHasSettledForTheConnection() async throws {
    let (before, after, outcome) = try await withDialogue(initialWindow: 70_000, sendBuffer: nil) { dialogue in
      var random = SeededGenerator(seed: 9)
      for _ in 0..<20 {
        dialogue.writeSome(&random, upTo: 300)
        await dialogue.turn()
      }
      let before = dialogue.server.connection?.account.debt ?? 0
      dialogue.stream?.reset(.cancel)
      let after = dialogue.server.connection?.account.debt
      let stream = await dialogue.open()
      let second = try #require(stream)
      dialogue.write(68_000, to: second)
      for _ in 0..<50 { await dialogue.turn() }
      return (before, after, dialogue.outcome)
    }
    #expect(before > 0)
    #expect(after == 0)
    #expect(outcome.complaints == ["stream 1 was reset"])
    #expect(outcome.connectionWindow == 0)
  }

  /// A client writes directly, too, and nghttp2 itself judges: it ends a connection that takes more than its windows allow.
  @Test func bothEndsWriteDirectlyAgainstNghttp2() async throws {
    var options = Http2Options()
    options.streamWindowBytes = 3_000
    let outcome = try await withPair(client: options, server: options) { client, server, loop in
      server.onOpen = { stream, _ in
        stream.respond(responseBlock)
        return Exchange(stream)
      }
      let asked = Exchange()
      asked.stream = try client.connection?.open(requestBlock, [], handler: asked)
      await server.wait { !server.accepted.isEmpty }
      let sides = [(client, asked), (server, server.accepted[0])]
      var random = SeededGenerator(seed: 10)
      var written = [0, 0]
      var directTurns = [0, 0]
      for step in 0..<20_200 {
        for (side, (_, exchange)) in sides.enumerated() where step < 20_000 {
          guard let stream = exchange.stream, stream.pendingBytes < 20_000, Int.random(in: 0..<4, using: &random) == 0
          else { continue }
          let count = Int.random(in: 1...400, using: &random)
          stream.write(ScriptedPeer.bytes(from: written[side], count: count))
          written[side] += count
        }
        await nextTurn(of: loop)
        for (side, (end, _)) in sides.enumerated() {
          if let account = end.connection?.account, account.debt > 0 { directTurns[side] += 1 }
        }
      }
      let received = sides.reversed().map { $0.1.takeReceived() }
      let expected = written.map { ScriptedPeer.bytes(from: 0, count: $0) }
      return (isIntact: received == expected, directTurns: directTurns)
    }
    #expect(outcome.isIntact)
    #expect(outcome.directTurns.allSatisfy { $0 > 1_000 })
  }
}

private func nextTurn(of loop: EventLoop) async {
  let next = Wakeup()
  loop.schedule(after: .zero) { next.fire() }
  await next.wait()
}

private struct Outcome {
  var complaints: [String]
  var isComplete: Bool
  var directTurns: Int
  var resets: Int
  var calls: Int
  var pongs: Int
  var connectionWindow: Int
}

/// A server with one long stream, and its peer.
private final class Dialogue {
  let server: Endpoint
  let peer: ScriptedPeer
  private let loop: EventLoop
  private(set) var id: Int32 = 0
  private var writtenTo: [Int32: Int] = [:]
  private var directTurns = 0
  private var resets = 0
  private var calls = 0
  /// Turns after which what is under way has arrived; the sockets' buffers are small.
  static let settlingTurns = 400

  init(_ loop: EventLoop, _ server: Endpoint, _ peer: ScriptedPeer) {
    self.loop = loop
    self.server = server
    self.peer = peer
    server.onOpen = { stream, headers in
      let exchange = Exchange(stream)
      stream.respond(responseBlock)
      guard headers[":path"] != "/m" else { return exchange }
      stream.write(Bytes([UInt8](repeating: 1, count: 100)))
      stream.end(nil, [HeaderField("status", "0")])
      return exchange
    }
  }

  var written: Int { writtenTo[id] ?? 0 }
  var stream: Http2Stream? { stream(id) }
  func stream(_ id: Int32) -> Http2Stream? { server.accepted.last { $0.stream?.id == id }?.stream }
  var received: Int { peer.streams[id]?.received ?? 0 }
  var outcome: Outcome {
    Outcome(
      complaints: peer.complaints, isComplete: received == written && peer.streams[id]?.hasEnded == true,
      directTurns: directTurns, resets: resets, calls: calls, pongs: peer.pongs,
      connectionWindow: peer.connectionWindow)
  }

  /// A long stream more; what is done from now on is about it.
  @discardableResult
  func open() async -> Http2Stream? {
    id = peer.open("m")
    while stream == nil { await turn() }
    return stream
  }

  func turn() async {
    await nextTurn(of: loop)
    if let account = server.connection?.account, account.debt > 0 { directTurns += 1 }
  }

  func writeSome(_ random: inout SeededGenerator, upTo size: Int, to other: Int32? = nil) {
    guard let stream = stream(other ?? id), stream.pendingBytes < 20_000 else { return }
    for _ in 0..<Int.random(in: 1...3, using: &random) { write(Int.random(in: 1...size, using: &random), to: stream) }
  }

  func write(_ count: Int, to stream: Http2Stream) {
    let written = writtenTo[stream.id] ?? 0
    stream.write(ScriptedPeer.bytes(from: written, count: count))
    writtenTo[stream.id] = written + count
  }

  /// One of the things that a peer may do.
  func act(_ random: inout SeededGenerator) {
    switch Int.random(in: 0..<40, using: &random) {
    case 0..<12: peer.grant(min(20_000, 65_535 - peer.connectionWindow))
    case 12..<26: peer.grant(Int.random(in: 1...2_000, using: &random), to: id)
    case 26..<30: peer.ping()
    case 30..<34: peer.changeInitialWindow(to: Int.random(in: 0...8_000, using: &random))
    case 34..<37:
      calls += 1
      let call = peer.open("c")
      peer.grant(1_000, to: call)
      peer.grant(100)
    case 37: peer.setReading(Bool.random(using: &random))
    case 38 where resets < 20 && Int.random(in: 0..<8, using: &random) == 0:
      resets += 1
      peer.reset(id)
      id = peer.open("m")
    default: peer.setReading(true)
    }
  }

  /// Offers more than there is credit for: first the connection's has to be used up, then the stream's.
  func useUp() async {
    while stream == nil { await turn() }
    for _ in 0..<Dialogue.settlingTurns { await turn() }
    let large = 300_000
    if let stream { write(large, to: stream) }
    peer.grant(large, to: id)
    for _ in 0..<Dialogue.settlingTurns { await turn() }
    #expect(peer.connectionWindow == 0)
    peer.grant(large * 3)
    for _ in 0..<Dialogue.settlingTurns { await turn() }
    let isLimited = received < written
    #expect(!isLimited || peer.streams[id]?.window == 0)
  }

  /// Ends the long stream with a debt, and gives credit for the rest.
  func end() async {
    peer.grant(1_000_000 - min(1_000_000, peer.connectionWindow))
    peer.grant(1_000_000 - min(1_000_000, peer.streams[id]?.window ?? 0), to: id)
    var random = SeededGenerator(seed: 99)
    for _ in 0..<20 {
      writeSome(&random, upTo: 100)
      await turn()
    }
    stream?.end(nil, [HeaderField("status", "0")])
    for _ in 0..<Dialogue.settlingTurns { await turn() }
  }
}

/// Runs a dialogue on a loop of its own, over a socket pair. `sendBuffer`: bytes that the kernel holds for the server.
private func withDialogue<T: Sendable>(
  initialWindow: Int, sendBuffer: Int32?, _ body: @escaping @Sendable (Dialogue) async throws -> T
) async throws -> T {
  let loop = try EventLoop.start(name: "direct-test")
  defer { loop.stop() }
  return try await loop.run {
    let ends = socketPair()
    if var size = sendBuffer {
      setsockopt(ends.1, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout<Int32>.size))
    }
    var options = Http2Options()
    options.resetBurst = 10_000
    let server = try Endpoint(.server, loop, ends.1, options)
    let peer = try ScriptedPeer(loop, ends.0, initialWindow: initialWindow)
    let dialogue = Dialogue(loop, server, peer)
    await dialogue.open()
    let result = try await body(dialogue)
    peer.close()
    server.connection?.closeNow()
    return result
  }
}
