import FileStore
import Testing

@Suite struct ByteRangesTests {
  @Test func neighboursAreJoined() {
    var set = ByteRanges([10..<20, 30..<40, 0..<5])
    #expect(set.ranges == [0..<5, 10..<20, 30..<40])
    set.insert(20..<30)
    #expect(set.ranges == [0..<5, 10..<40])
    set.insert(5..<10)
    #expect(set.ranges == [0..<40])
    #expect(set.contiguousPrefix == 40)
    set.insert(7..<7)
    #expect(set.total == 40)
  }

  @Test func gapsAndPrefix() {
    let set = ByteRanges([5..<10, 20..<25])
    #expect(set.contiguousPrefix == 0)
    #expect(set.gaps(upTo: 30) == [0..<5, 10..<20, 25..<30])
    #expect(set.gaps(upTo: 8) == [0..<5])
    #expect(ByteRanges().gaps(upTo: 0) == [])
  }

  /// Against a plain set of bytes, over many random steps.
  @Test func agreesWithASetOfBytes() {
    var random = Steps(state: 7)
    var set = ByteRanges()
    var model = Set<Int64>()
    for step in 0..<3_000 {
      let lower = Int64(random.next() % 60)
      let range = lower..<(lower + Int64(random.next() % 12))
      if step % 3 == 2 {
        set.remove(range)
        model.subtract(range)
      } else {
        set.insert(range)
        model.formUnion(range)
      }
      #expect(set.total == Int64(model.count))
      #expect(zip(set.ranges, set.ranges.dropFirst()).allSatisfy { $0.upperBound < $1.lowerBound })
      #expect(Set(set.ranges.flatMap { Array($0) }) == model)
      let probe = Int64(random.next() % 60)..<(Int64(60 + random.next() % 12))
      #expect(set.contains(probe) == probe.allSatisfy(model.contains))
      #expect(set.overlaps(probe) == probe.contains(where: model.contains))
    }
  }
}

/// A small generator with a seed, so that a run can be repeated.
struct Steps {
  var state: UInt64
  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return state >> 33
  }
}
