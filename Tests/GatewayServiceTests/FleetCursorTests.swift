import Bytes
import Routing
import Testing

@testable import GRPC
@testable import GatewayService

@Suite struct FleetCursorTests {
  static func cursor(_ acked: Int64 = 0, written: Int64 = 0, stated: Int64 = 0) -> FleetCursor {
    var cursor = FleetCursor(
      stored: FleetPosition(logID: "x", acknowledged: acked, written: written),
      stated: stated > 0 ? [InboxPosition(inboxID: "x", seq: stated)] : [])
    cursor.begin("x", newest: 1000)
    return cursor
  }

  @Test func itBeginsWhereTheCursorStands() {
    #expect(Self.cursor(50).covered == 50)
    #expect(Self.cursor(50).verdict(on: 51) == .write)
    // What the client says that it has is not written again; what it says beyond the log is none.
    let stated = Self.cursor(50, stated: 60)
    #expect(stated.verdict(on: 60) == .acknowledged && stated.verdict(on: 61) == .write)
    #expect(Self.cursor(50, stated: 1001).verdict(on: 60) == .write)
    var other = Self.cursor(50, stated: 60)
    other.begin("y", newest: 5)
    #expect(other.covered == 0 && other.verdict(on: 1) == .write && other.written == 0)
  }

  @Test func eachMessageNamesTheOneThatWasGivenBefore() {
    var cursor = Self.cursor(50, written: 70, stated: 60)
    var labels: [InboxCursor.Label] = []
    for seq: Int64 in [61, 70, 80] { labels.append(cursor.wrote(seq, job: "j\(seq)", isAcknowledged: true)) }
    #expect(labels.map(\.previous) == [60, 61, 70])
    #expect(labels.map(\.redelivered) == [true, true, false])
    #expect(labels.allSatisfy { $0.inboxID == "x" } && cursor.covered == 80 && cursor.done == 80)
  }

  @Test func whatIsAcknowledgedIsToldOnceAndMovesThePlace() {
    var cursor = Self.cursor()
    for seq: Int64 in [10, 20, 30, 40] { _ = cursor.wrote(seq, job: "j\(seq)", isAcknowledged: false) }
    cursor.passed(45)
    var told = [cursor.settlement(), cursor.settlement()]
    #expect(cursor.done == 9 && told == [9, nil])
    var jobs = [cursor.acknowledged(upTo: 20, in: "other"), cursor.acknowledged(upTo: 25, in: "x")]
    jobs.append(cursor.acknowledged(upTo: 25, in: "x"))
    told = [cursor.settlement()]
    #expect(jobs == [[], ["j10", "j20"], []] && told == [29])
    // By id, out of order.
    jobs = [cursor.acknowledged(jobs: ["j40", "j10", "none"])]
    #expect(jobs == [["j40"]] && cursor.done == 29)
    jobs = [cursor.acknowledged(jobs: ["j30", "j40"])]
    told = [cursor.settlement()]
    #expect(jobs == [["j30"]] && cursor.done == 45 && told == [45])
  }

  @Test func theWindowIsBounded() {
    var cursor = Self.cursor()
    for seq in 1...Int64(FleetCursor.window) { _ = cursor.wrote(seq, job: "j\(seq)", isAcknowledged: false) }
    #expect(cursor.verdict(on: 5000) == .wait)
    _ = cursor.acknowledged(upTo: 1, in: "x")
    #expect(cursor.verdict(on: 5000) == .write)
  }

  @Test func theTailKeepsTheNewestWithinItsLimits() {
    let tail = FleetTail(maximumEntries: 3, maximumBytes: 100)
    tail.reset("x", after: 10, newest: 15, withdrawn: 0)
    #expect(tail.head == 10 && tail.newest == 15 && tail.floor == 10)
    func append(_ seq: Int64, size: Int = 10) {
      tail.append(
        seq,
        PushRecord(
          target: .all(tags: [:]), message: Bytes(Array(repeating: 0, count: size)), jobID: "j\(seq)"))
    }
    for seq: Int64 in [11, 12, 15, 15, 12, 20] { append(seq) }
    #expect(tail.entries(after: 0).map(\.seq) == [12, 15, 20] && tail.floor == 11 && tail.newest == 20)
    #expect(tail.entries(after: 12).map(\.seq) == [15, 20] && tail.entries(after: 13).map(\.seq) == [15, 20])
    #expect(tail.entries(after: 20).isEmpty)
    append(30, size: 85)
    #expect(tail.entries(after: 0).map(\.seq) == [20, 30] && tail.bytes == 95)
    tail.withdraw("j30")
    tail.withdraw("j30")
    #expect(tail.withdrawn == 1 && tail.entries(after: 20).first?.isWithdrawn == true)
    // A single one past the limit is not kept: sessions read it from Redis.
    append(40, size: 101)
    #expect(tail.count == 0 && tail.floor == 40 && tail.head == 40)
    for seq: Int64 in 41...5000 { append(seq) }
    #expect(tail.entries(after: 0).map(\.seq) == [4998, 4999, 5000])
  }

  @Test func streamsWithTheSamePlaceShareBytes() {
    let entry = FleetEntry(seq: 7, record: PushRecord(target: .all(tags: ["a": "b"]), message: Bytes("")))
    var one = Self.cursor()
    var two = Self.cursor()
    let first = entry.encoded(one.wrote(7, job: "j", isAcknowledged: true))
    let second = entry.encoded(two.wrote(7, job: "j", isAcknowledged: true))
    #expect(first.frame.unsafeMemory.baseAddress == second.frame.unsafeMemory.baseAddress && entry.tags == ["a": "b"])
    var later = Self.cursor(stated: 5)
    let other = entry.encoded(later.wrote(7, job: "j", isAcknowledged: true))
    #expect(other.frame != first.frame)
  }
}
