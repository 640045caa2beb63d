/// Lets stories of one loop wait until something about an object has changed; each looks again for itself.
public final class Changes {
  private var waiters: [UnsafeContinuation<Void, Never>] = []

  public init() {}

  /// Suspends until the next `signal`.
  public func next() async {
    await withUnsafeContinuation { waiters.append($0) }
  }

  public func signal() {
    let woken = waiters
    waiters.removeAll(keepingCapacity: true)
    for waiter in woken { waiter.resume() }
  }
}
