internal import Reactor

/// A bound on bytes in memory, for stories of one loop: who asks for more than is left waits.
final class ByteBudget {
  let limit: Int
  private(set) var used = 0
  private let changes = Changes()

  init(limit: Int) { self.limit = limit }

  /// Takes `count` bytes, as soon as they are free; more than the limit counts as the whole of it.
  func take(_ count: Int) async {
    while used > 0, used + count > limit { await changes.next() }
    used += count
  }

  func give(_ count: Int) {
    used -= count
    changes.signal()
  }
}
