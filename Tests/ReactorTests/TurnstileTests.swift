import Reactor
import Testing

@Suite(.timeLimit(.minutes(1))) struct TurnstileTests {
  @Test func soManyAreInsideAndTheRestWaitInOrder() async throws {
    let loop = try EventLoop.start(name: "test")
    defer { loop.stop() }
    try await loop.run {
      let turnstile = Turnstile(places: 3)
      var (inside, most) = (0, 0)
      var order: [Int] = []
      let ended = Wakeup()
      for number in 0..<3000 {
        loop.spawn {
          await turnstile.enter()
          inside += 1
          most = max(most, inside)
          order.append(number)
          try? await loop.sleep(for: .microseconds(10))
          inside -= 1
          turnstile.leave()
          if order.count == 3000, inside == 0 { ended.fire() }
        }
      }
      await ended.wait()
      #expect(most == 3)
      #expect(order == Array(0..<3000))
      // All places are free again.
      for _ in 0..<3 { await turnstile.enter() }
    }
  }
}
