/// A set of bytes of a file, as sorted, disjoint, non-touching half-open ranges.
///
/// Ranges that touch are joined, so a file that arrives in order is one range however many chunks it has.
public struct ByteRanges: Sendable, Hashable {
  public private(set) var ranges: [Range<Int64>] = []
  /// The number of bytes in the set.
  public private(set) var total: Int64 = 0

  public init() {}

  public init(_ ranges: some Sequence<Range<Int64>>) {
    for range in ranges { insert(range) }
  }

  public var isEmpty: Bool { ranges.isEmpty }

  /// The index of the first range that ends at or above `offset`.
  private func firstIndex(endingAtLeast offset: Int64) -> Int {
    var low = 0
    var high = ranges.count
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].upperBound < offset { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// Adds a range; bytes that were there stay once. An empty range adds nothing.
  public mutating func insert(_ range: Range<Int64>) {
    guard !range.isEmpty else { return }
    let first = firstIndex(endingAtLeast: range.lowerBound)
    var end = first
    var joined = range
    while end < ranges.count, ranges[end].lowerBound <= range.upperBound {
      joined = min(joined.lowerBound, ranges[end].lowerBound)..<max(joined.upperBound, ranges[end].upperBound)
      total -= Int64(ranges[end].count)
      end += 1
    }
    ranges.replaceSubrange(first..<end, with: CollectionOfOne(joined))
    total += Int64(joined.count)
  }

  /// Takes a range out; bytes that weren't there don't matter.
  public mutating func remove(_ range: Range<Int64>) {
    guard !range.isEmpty else { return }
    let first = firstIndex(endingAtLeast: range.lowerBound + 1)
    var end = first
    var rest: [Range<Int64>] = []
    while end < ranges.count, ranges[end].lowerBound < range.upperBound {
      let old = ranges[end]
      total -= Int64(old.count)
      if old.lowerBound < range.lowerBound { rest.append(old.lowerBound..<range.lowerBound) }
      if old.upperBound > range.upperBound { rest.append(range.upperBound..<old.upperBound) }
      end += 1
    }
    ranges.replaceSubrange(first..<end, with: rest)
    for range in rest { total += Int64(range.count) }
  }

  public mutating func formUnion(_ other: ByteRanges) {
    for range in other.ranges { insert(range) }
  }

  /// Whether all bytes of the range are there; an empty range is.
  public func contains(_ range: Range<Int64>) -> Bool {
    guard !range.isEmpty else { return true }
    let index = firstIndex(endingAtLeast: range.lowerBound + 1)
    guard index < ranges.count else { return false }
    return ranges[index].lowerBound <= range.lowerBound && ranges[index].upperBound >= range.upperBound
  }

  /// Whether any byte of the range is there.
  public func overlaps(_ range: Range<Int64>) -> Bool {
    guard !range.isEmpty else { return false }
    let index = firstIndex(endingAtLeast: range.lowerBound + 1)
    return index < ranges.count && ranges[index].lowerBound < range.upperBound
  }

  /// How many bytes are there from 0 on without a hole.
  public var contiguousPrefix: Int64 {
    guard let first = ranges.first, first.lowerBound == 0 else { return 0 }
    return first.upperBound
  }

  /// The first byte at or above `offset` that isn't there.
  public func firstMissing(from offset: Int64) -> Int64 {
    let index = firstIndex(endingAtLeast: offset + 1)
    guard index < ranges.count, ranges[index].lowerBound <= offset else { return offset }
    return ranges[index].upperBound
  }

  /// What is missing from 0 up to `size`, in order.
  public func gaps(upTo size: Int64) -> [Range<Int64>] {
    var gaps: [Range<Int64>] = []
    var position: Int64 = 0
    for range in ranges where range.lowerBound < size {
      if range.lowerBound > position { gaps.append(position..<range.lowerBound) }
      position = range.upperBound
    }
    if position < size { gaps.append(position..<size) }
    return gaps
  }
}
