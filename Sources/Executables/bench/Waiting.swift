import Reactor

extension Wakeup {
  /// Waits until something holds, which is looked at after each `fire`.
  ///
  /// - Parameter what: for the error, as it is by then.
  /// - Throws: what `done` throws; `BenchError` past the limit.
  func wait(
    within limit: Duration, on loop: EventLoop, for what: @autoclosure () -> String, until done: () throws -> Bool
  ) async throws {
    var isOver = false
    let timer = loop.schedule(after: limit) {
      isOver = true
      self.fire()
    }
    defer { timer.cancel() }
    while try !done() {
      if isOver { throw BenchError("after \(limit) still waiting for \(what())") }
      await wait()
    }
  }
}
