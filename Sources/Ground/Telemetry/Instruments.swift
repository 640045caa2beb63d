public import Synchronization

/// A number that only rises. Usable from any thread.
public final class Counter: Sendable {
  @usableFromInline let count = Atomic<Int>(0)

  public init() {}

  @inlinable
  public func increment(by amount: Int = 1) {
    count.wrappingAdd(amount, ordering: .relaxed)
  }

  @inlinable
  public var value: Int { count.load(ordering: .relaxed) }
}

/// A number that rises and falls. Usable from any thread.
public final class Gauge: Sendable {
  @usableFromInline let current = Atomic<Int>(0)

  public init() {}

  @inlinable
  public func set(_ value: Int) { current.store(value, ordering: .relaxed) }

  @inlinable
  public func add(_ amount: Int) { current.wrappingAdd(amount, ordering: .relaxed) }

  @inlinable
  public var value: Int { current.load(ordering: .relaxed) }
}

/// Counts observations by size. Usable from any thread; a reader may see an observation in its bucket a moment before it
/// is in the sum.
public final class Histogram: Sendable {
  /// Seconds, from a tenth of a millisecond to ten seconds.
  public static let latencyBounds: [Double] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
  ]

  /// The upper bounds, inclusive, in rising order; one more bucket takes what is above the last.
  public let bounds: [Double]
  private let buckets: [Counter]
  private let sumBits = Atomic<UInt64>(Double(0).bitPattern)

  /// - Precondition: `bounds` rises strictly and is finite.
  public init(bounds: [Double] = Histogram.latencyBounds) {
    precondition(zip(bounds, bounds.dropFirst()).allSatisfy { $0 < $1 } && bounds.allSatisfy(\.isFinite))
    self.bounds = bounds
    buckets = (0...bounds.count).map { _ in Counter() }
  }

  public func observe(_ value: Double) {
    var (low, high) = (0, bounds.count)
    while low < high {
      let middle = (low + high) / 2
      if value <= bounds[middle] { high = middle } else { low = middle + 1 }
    }
    buckets[low].increment()
    var old = sumBits.load(ordering: .relaxed)
    while true {
      let new = (Double(bitPattern: old) + value).bitPattern
      let (exchanged, original) = sumBits.weakCompareExchange(expected: old, desired: new, ordering: .relaxed)
      if exchanged { return }
      old = original
    }
  }

  /// Observes a time in seconds.
  public func observe(_ time: Duration) {
    observe(Double(time.components.seconds) + Double(time.components.attoseconds) * 1e-18)
  }

  /// The sum of all observations.
  public var sum: Double { Double(bitPattern: sumBits.load(ordering: .relaxed)) }

  /// The number of observations.
  public var count: Int { buckets.reduce(0) { $0 + $1.value } }

  /// For each bound, then for infinity, how many observations were not above it.
  public var cumulativeCounts: [Int] {
    var total = 0
    return buckets.map { bucket in
      total += bucket.value
      return total
    }
  }
}
