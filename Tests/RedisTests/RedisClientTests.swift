import Bytes
import Glibc
import Reactor
import TestSupport
import Testing

@testable import Redis

/// Against a redis-server of the test's own.
@Suite(.timeLimit(.minutes(1))) struct RedisClientTests {
  /// Runs a story with a client on a loop of its own.
  private func withClient(
    _ address: String, _ configure: @escaping @Sendable (inout RedisClient.Options) -> Void = { _ in },
    _ body: @escaping @Sendable (RedisClient) async throws -> Void
  ) async throws {
    let loop = try EventLoop.start(name: "redis test")
    let result: Result<Void, any Error> = await Result {
      try await loop.run {
        var options = RedisClient.Options()
        configure(&options)
        let client = RedisClient(loop: loop, address: try RedisAddress(address), options: options)
        defer { client.close() }
        return try await body(client)
      }
    }
    loop.stop()
    return try result.get()
  }

  @Test func valuesComeBack() async throws {
    let server = try RedisServer()
    try await withClient(server.address) { client in
      #expect(try await client.send("SET", "k", .bytes(Bytes([0, 1, 255]))) == .simple("OK"))
      #expect(try await client.send("GET", "k") == .bulk(Bytes([0, 1, 255])))
      #expect(try await client.send("GET", "none") == .null)
      #expect(try await client.send("INCRBY", "n", 41).asInteger == 41)
      #expect(try await client.send("MGET", "n", "none").asArray?.map(\.asInteger) == [41, nil])
      let large = Bytes(capacity: 3 << 20) { memory in
        for index in memory.indices { memory[index] = UInt8(truncatingIfNeeded: index) }
        return memory.count
      }
      _ = try await client.send("SET", "large", .bytes(large))
      #expect(try await client.send("GET", "large") == .bulk(large))
    }
  }

  @Test func anErrorReplyIsAnError() async throws {
    let server = try RedisServer()
    try await withClient(server.address) { client in
      _ = try await client.send("SET", "k", "text")
      await #expect {
        try await client.send("LPUSH", "k", 1)
      } throws: {
        guard let error = $0 as? RedisError else { return false }
        return error.code == .reply && error.replyKind == "WRONGTYPE" && !error.mayHaveExecuted
      }
      let answers = try await client.pipeline([["SET", "a", 1], ["LPUSH", "k", 1], ["GET", "a"]])
      #expect(answers[0] == .simple("OK") && answers[2].asInteger == 1)
      guard case .error = answers[1] else {
        Issue.record("\(answers[1])")
        return
      }
    }
  }

  @Test func aTurnLeavesInOneWrite() async throws {
    let server = try RedisServer()
    try await withClient(server.address) { client in
      try await client.connect()
      let before = try await client.send("INFO", "stats").asString
      var order: [Int64] = []
      await withUnsafeContinuation { done in
        for number in 1...1000 {
          client.send(["INCR", "n"]) { result in
            order.append((try? result.get().asInteger) ?? -1)
            if number == 1000 { done.resume() }
          }
        }
        #expect(order.isEmpty)
      }
      #expect(order == Array(1...1000))
      let after = try await client.send("INFO", "stats").asString
      let reads = reads(after) - reads(before)
      // Redis reads 16 KiB at a time; one write per command would be at least a thousand reads.
      #expect(reads < 50, "\(reads) reads")
    }
  }

  private func reads(_ info: String?) -> Int {
    let line = info?.split(whereSeparator: \.isNewline).first { $0.hasPrefix("total_reads_processed:") }
    return line.flatMap { Int($0.split(separator: ":")[1]) } ?? -1
  }

  @Test func scriptsAreSentWithTheirTextOnce() async throws {
    let server = try RedisServer()
    try await withClient(server.address) { client in
      let script = RedisScript("redis.call('SET', KEYS[1], ARGV[1]) return {KEYS[1], tonumber(ARGV[2])}")
      for round in 0..<3 {
        let answer = try await client.run(script, keys: ["{a}k"], arguments: ["v", 7])
        #expect(answer == .array([.bulk(Bytes("{a}k")), .integer(7)]))
        if round == 1 { _ = try await client.send("SCRIPT", "FLUSH") }
      }
      let stats = try await client.send("INFO", "commandstats").asString ?? ""
      #expect(stats.contains("cmdstat_eval:calls=2,") && stats.contains("cmdstat_evalsha:calls=3,"))
      await #expect {
        try await client.run(RedisScript("return redis.error_reply('FENCE 7 is newer')"), keys: [])
      } throws: { ($0 as? RedisError)?.replyKind == "FENCE" }
    }
  }

  @Test func aPasswordAndADatabaseAreGiven() async throws {
    let server = try RedisServer(password: "se@cret")
    try await withClient("redis://:se%40cret@\(server.address)/5") { client in
      _ = try await client.send("SET", "k", 1)
      #expect(try await client.send("CLIENT", "INFO").asString?.contains(" db=5 ") == true)
    }
    try await withClient("redis://:wrong@\(server.address)") { client in
      await #expect {
        try await client.connect(within: .milliseconds(300))
      } throws: { "\($0)".contains("WRONGPASS") }
    }
  }

  @Test func itReconnectsAndSaysWhatWasLost() async throws {
    let server = try RedisServer()
    try await withClient(server.address) { client in
      var states: [String] = []
      client.onStateChange = { if case .connected = $0 { states.append("up") } else { states.append("down") } }
      try await client.connect()
      server.process.signal(SIGSTOP)
      let lost: Result<RedisValue, RedisError> = await withUnsafeContinuation { done in
        client.send(["INCR", "n"]) { done.resume(returning: $0) }
        client.loop.schedule(after: .milliseconds(50)) { server.process.kill() }
      }
      guard case .failure(let error) = lost else {
        Issue.record("an answer from a stopped server")
        return
      }
      #expect(error.code == .connectionLost && error.mayHaveExecuted)
      try server.restart()
      // Waits for the new connection: nothing that was never sent fails within its time.
      #expect(try await client.send("GET", "n") == .null)
      #expect(states == ["up", "down", "up"])
    }
  }

  @Test func aSilentServerIsGivenUp() async throws {
    let server = try RedisServer()
    try await withClient(server.address, { $0.commandTimeout = .milliseconds(200) }) { client in
      try await client.connect()
      server.process.signal(SIGSTOP)
      let answers: [RedisError?] = await withUnsafeContinuation { done in
        var errors: [RedisError?] = []
        for _ in 0..<2 {
          client.send(["INCR", "n"]) { result in
            if case .failure(let error) = result { errors.append(error) } else { errors.append(nil) }
            if errors.count == 2 { done.resume(returning: errors) }
          }
        }
      }
      #expect(answers.allSatisfy { $0?.mayHaveExecuted == true })
      #expect(Set(answers.compactMap { $0?.code }.map { "\($0)" }) == ["timedOut", "connectionLost"])
      await #expect {
        try await client.send("PING")
      } throws: { ($0 as? RedisError)?.code == .notConnected && ($0 as? RedisError)?.mayHaveExecuted == false }
      server.process.signal(SIGCONT)
      try await client.connect()
      #expect(try await client.send("PING") == .simple("PONG"))
    }
  }

  @Test func aSlowAnswerTimesOut() async throws {
    let server = try RedisServer()
    try await withClient(server.address, { $0.commandTimeout = .milliseconds(100) }) { client in
      try await client.connect()
      await #expect {
        try await client.send("DEBUG", "SLEEP", "0.4")
      } throws: { ($0 as? RedisError)?.code == .timedOut }
      try await client.connect()
      #expect(try await client.send("ECHO", "after") == .bulk(Bytes("after")))
    }
  }

  @Test func whatIsOutstandingIsBounded() async throws {
    let server = try RedisServer()
    try await withClient(server.address, { $0.maxOutstandingCommands = 10 }) { client in
      var refused = 0
      let answered: Int = await withUnsafeContinuation { done in
        var answered = 0
        for _ in 0..<15 {
          client.send(["PING"]) { result in
            if case .failure(let error) = result, error.code == .tooManyOutstanding { refused += 1 }
            answered += 1
            if answered == 15 { done.resume(returning: answered) }
          }
        }
      }
      #expect(answered == 15 && refused == 5)
    }
  }

  @Test func aClosedClientFailsEverything() async throws {
    let server = try RedisServer()
    try await withClient(server.address) { client in
      try await client.connect()
      let result: Result<RedisValue, RedisError> = await withUnsafeContinuation { done in
        client.send(["PING"]) { done.resume(returning: $0) }
        client.close()
      }
      #expect(throws: RedisError(code: .closed, message: "the client was closed")) { try result.get() }
      await #expect { try await client.send("PING") } throws: { ($0 as? RedisError)?.code == .closed }
    }
  }

  @Test func subscriptionsSurviveTheServer() async throws {
    let server = try RedisServer()
    try await withClient(server.address) { client in
      let subscriber = RedisSubscriber(loop: client.loop, address: client.address)
      defer { subscriber.close() }
      var heard: [String] = []
      var message: UnsafeContinuation<Void, Never>?
      subscriber.onMessage = { channel, payload in
        heard.append("\(channel)=\(payload.string ?? "")")
        message?.resume()
      }
      for round in 1...2 {
        await withUnsafeContinuation { subscribed in
          subscriber.onSubscribed = { _ in subscribed.resume() }
          if round == 1 { subscriber.subscribe("news") } else { server.process.kill() }
          if round == 2 { _ = try? server.restart() }
        }
        try await client.connect()
        #expect(try await client.send("PUBLISH", "news", RedisArgument(round)).asInteger == 1)
        if heard.count < round { await withUnsafeContinuation { message = $0 } }
        message = nil
      }
      #expect(heard == ["news=1", "news=2"])
    }
  }
}

extension Result where Failure == any Error {
  fileprivate init(_ body: () async throws -> Success) async {
    do { self = .success(try await body()) } catch { self = .failure(error) }
  }
}
