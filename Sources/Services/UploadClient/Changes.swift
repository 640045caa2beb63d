/// Lets stories of one loop wait until something about an object has changed; each looks again for itself.
final class Changes {
  private var waiters: [UnsafeContinuation<Void, Never>] = []

  /// Suspends until the next `signal`.
  func next() async {
    await withUnsafeContinuation { waiters.append($0) }
  }

  func signal() {
    let woken = waiters
    waiters.removeAll(keepingCapacity: true)
    for waiter in woken { waiter.resume() }
  }
}
