/// A value that is confined to one loop, carried through a signature that asks for `Sendable`.
///
/// `@unchecked Sendable`: whoever makes one hands it only to code that runs on the same loop (a task whose executor is
/// that loop, a call that the loop makes); `EventLoop.spawn` and `EventLoop.run` are the places that do.
struct Confined<Value>: @unchecked Sendable {
  let value: Value
  init(_ value: Value) { self.value = value }
}

extension EventLoop {
  /// Starts a story: an async function that runs on this loop, with everything that it calls. On the loop only.
  ///
  /// Costs about a microsecond; the data path calls handlers instead. The task starts in this turn, after the caller
  /// has returned.
  @discardableResult
  public func spawn(_ body: @escaping () async -> Void) -> Task<Void, Never> {
    assertCurrent()
    let story = Confined(body)
    return Task(executorPreference: self) { await story.value() }
  }

  /// Runs a story on this loop and waits for its result; from a task that runs elsewhere (tests).
  public func run<T: Sendable>(_ body: @escaping @Sendable () async throws -> T) async throws -> T {
    try await Task(executorPreference: self) { try await body() }.value
  }

  /// Suspends the story for a while: for back-off and periodic work, never to wait for an event.
  ///
  /// - Throws: `CancellationError` as soon as the task is cancelled.
  public func sleep(for delay: Duration) async throws {
    assertCurrent()
    try Task.checkCancellation()
    let waiter = Confined(SleepWaiter())
    await withTaskCancellationHandler {
      await withUnsafeContinuation { continuation in
        waiter.value.continuation = continuation
        waiter.value.timer = schedule(after: delay) { waiter.value.end() }
        if Task.isCancelled { waiter.value.end() }
      }
    } onCancel: {
      execute { waiter.value.end() }
    }
    try Task.checkCancellation()
  }
}

private final class SleepWaiter {
  var continuation: UnsafeContinuation<Void, Never>?
  var timer: LoopTimer?

  func end() {
    timer?.cancel()
    timer = nil
    continuation?.resume()
    continuation = nil
  }
}

extension EventLoop {
  /// Runs a part of a story; when its task is cancelled meanwhile, `onCancel` is called on this loop.
  public func cancellable<T>(
    _ body: () async throws -> T, onCancel: @escaping () -> Void
  ) async rethrows -> T {
    let cancel = Confined(onCancel)
    return try await withTaskCancellationHandler {
      try await body()
    } onCancel: {
      execute { cancel.value() }
    }
  }
}

/// Where one story waits until a callback of the same loop wakes it; what it waits for is looked at again after it.
public final class Wakeup {
  private var continuation: UnsafeContinuation<Void, Never>?

  public init() {}

  /// Suspends until the next `fire`. One story at a time.
  public func wait() async {
    precondition(continuation == nil, "two stories wait for one wakeup")
    await withUnsafeContinuation { continuation = $0 }
  }

  /// Suspends until the next `fire`, for a while at most. One story at a time.
  public func wait(within limit: Duration, on loop: EventLoop) async {
    let timer = loop.schedule(after: limit) { self.fire() }
    defer { timer.cancel() }
    await wait()
  }

  /// Wakes the story that waits, if one does.
  public func fire() {
    continuation?.resume()
    continuation = nil
  }

  public var isAwaited: Bool { continuation != nil }
}
