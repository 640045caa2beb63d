/// Lets so many stories of one loop at a time into a section; the others wait in the order in which they came.
public final class Turnstile {
  private var free: Int
  private var waiting: [UnsafeContinuation<Void, Never>] = []
  private var first = 0

  /// - Parameter places: how many stories may be inside at once.
  public init(places: Int) {
    precondition(places > 0, "nobody would ever get in")
    free = places
  }

  /// Waits for a place and takes it. Whoever enters leaves.
  public func enter() async {
    guard free == 0 else { return free -= 1 }
    await withUnsafeContinuation { waiting.append($0) }
  }

  /// Gives the place to whoever waits longest.
  public func leave() {
    guard first < waiting.count else { return free += 1 }
    let next = waiting[first]
    first += 1
    // What has gone in is taken out now and then, not one by one.
    if first == waiting.count || first >= 1024 {
      waiting.removeFirst(first)
      first = 0
    }
    next.resume()
  }
}
