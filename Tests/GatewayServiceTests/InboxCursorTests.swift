import Bytes
import Routing
import Testing

@testable import GatewayService

@Suite struct InboxCursorTests {
  static func page(
    _ id: String, _ seqs: [Int64], head: Int64? = nil, position: Int64 = 0, written: Int64 = 0, isComplete: Bool = true
  ) -> InboxPage {
    InboxPage(
      inboxID: id, head: head ?? seqs.last ?? 0, position: position, written: written, isComplete: isComplete,
      messages: seqs.map { InboxMessage(seq: $0, messageID: "j\($0)/c", message: Bytes()) })
  }

  /// Reads a page. - Returns: what went out, and whether more is to be read.
  static func read(_ cursor: inout InboxCursor, _ page: InboxPage) -> (labels: [InboxCursor.Label], more: Bool) {
    cursor.beganReading()
    cursor.began(page)
    let labels = page.messages.filter { $0.seq > cursor.covered }.map { cursor.wrote($0.seq) }
    return (labels, cursor.ended(page))
  }

  static func live(_ id: String = "i", at seq: Int64 = 10) -> InboxCursor {
    var cursor = InboxCursor()
    _ = read(&cursor, page(id, [seq]))
    return cursor
  }

  static func place(_ id: String, _ seq: Int64, after previous: Int64) -> InboxPlace {
    InboxPlace(inboxID: id, seq: seq, previous: previous)
  }

  @Test func aSessionBeginsWhereItsClientStands() {
    var cursor = InboxCursor(stated: [InboxPosition(inboxID: "i", seq: 5)])
    #expect(cursor.positions == [InboxPosition(inboxID: "i", seq: 5)] && cursor.phase == .behind)
    let (labels, more) = Self.read(&cursor, Self.page("i", [7, 9], position: 5, written: 7))
    #expect(
      labels == [
        InboxCursor.Label(inboxID: "i", seq: 7, previous: 5, redelivered: true),
        InboxCursor.Label(inboxID: "i", seq: 9, previous: 7, redelivered: false),
      ])
    #expect(!more && cursor.phase == .live && cursor.positions == [InboxPosition(inboxID: "i", seq: 9)])
  }

  @Test func aClientThatKnowsNothingIsGivenNoHole() {
    // What it acknowledged before, and has forgotten, is gone: the first message follows nothing.
    var cursor = InboxCursor()
    #expect(Self.read(&cursor, Self.page("i", [40])).labels.map(\.previous) == [0])
  }

  @Test(arguments: [
    (Self.place("i", 11, after: 10), InboxCursor.Verdict.write),
    (Self.place("i", 20, after: 3), .write),
    (Self.place("i", 10, after: 9), .drop),
    (Self.place("i", 4, after: 3), .drop),
    (Self.place("i", 20, after: 11), .read),
    (Self.place("k", 20, after: 0), .read),
    (Self.place("k", 3, after: 2), .read),
  ]) func aLiveSessionWritesItsNextSeqOnly(_ place: InboxPlace, _ verdict: InboxCursor.Verdict) {
    var cursor = Self.live()
    #expect(cursor.poked(place) == verdict)
    #expect(cursor.phase == (verdict == .read ? .behind : .live))
    if verdict == .write { #expect(cursor.wrote(place.seq).previous == 10) }
  }

  @Test func withoutAnInboxTheFirstMessageOfOneIsTheNext() {
    var cursor = InboxCursor(stated: [InboxPosition(inboxID: "old", seq: 99)])
    #expect(Self.read(&cursor, Self.page("", [])).more == false)
    var other = cursor
    #expect(cursor.poked(Self.place("i", 3, after: 0)) == .write)
    #expect(cursor.wrote(3) == InboxCursor.Label(inboxID: "i", seq: 3, previous: 0, redelivered: false))
    let verdict = other.poked(Self.place("i", 3, after: 2))
    #expect(verdict == .read && other.positions.isEmpty)
  }

  @Test func whatComesWhileTheInboxIsReadIsNotForgotten() {
    var cursor = InboxCursor()
    cursor.beganReading()
    #expect(cursor.poked(Self.place("i", 9, after: 8)) == .drop)
    #expect(cursor.poked(Self.place("i", 7, after: 6)) == .drop)
    let page = Self.page("i", [8])
    cursor.began(page)
    _ = cursor.wrote(8)
    let readsOn = cursor.ended(page)
    #expect(readsOn && cursor.phase == .behind)
    #expect(Self.read(&cursor, Self.page("i", [9], position: 8)).labels.map(\.previous) == [8])
    #expect(cursor.phase == .live)
    // One that the page held already asks for no other.
    cursor.beganReading()
    _ = cursor.poked(Self.place("i", 9, after: 8))
    cursor.began(Self.page("i", [], head: 9, position: 9))
    #expect(cursor.ended(Self.page("i", [], head: 9, position: 9)) == false)
  }

  @Test func expiredMessagesAreCoveredAndTheNextNamesWhatWasWritten() {
    var cursor = Self.live()
    #expect(Self.read(&cursor, Self.page("i", [], head: 15, position: 10)).more == false)
    #expect(cursor.saw(head: InboxPosition(inboxID: "i", seq: 15)) == false)
    #expect(cursor.poked(Self.place("i", 16, after: 10)) == .write)
    #expect(cursor.wrote(16).previous == 10)
  }

  @Test func aHeadAboveIsRead() {
    var cursor = Self.live()
    #expect(cursor.saw(head: InboxPosition(inboxID: "i", seq: 10)) == false)
    #expect(cursor.saw(head: InboxPosition(inboxID: "i", seq: 9)) == false)
    #expect(cursor.saw(head: InboxPosition(inboxID: "i", seq: 11)) == true)
    #expect(cursor.phase == .behind)
    #expect(cursor.saw(head: InboxPosition(inboxID: "i", seq: 12)) == false)
    var other = Self.live()
    #expect(other.saw(head: InboxPosition(inboxID: "", seq: 0)) == true)
  }

  @Test func aNewInboxBeginsAnew() {
    var cursor = Self.live()
    let (labels, _) = Self.read(&cursor, Self.page("k", [3, 4], written: 3))
    #expect(labels.map(\.previous) == [0, 3] && labels.map(\.redelivered) == [true, false])
    #expect(cursor.positions == [InboxPosition(inboxID: "k", seq: 4)])
  }

  @Test func aPageThatFindsNoRoomIsReadAgain() {
    var cursor = InboxCursor()
    cursor.beganReading()
    cursor.began(Self.page("i", [1, 2, 3]))
    _ = cursor.wrote(1)
    #expect(cursor.phase == .behind && cursor.positions == [InboxPosition(inboxID: "i", seq: 1)])
    #expect(Self.read(&cursor, Self.page("i", [2, 3], position: 1)).labels.map(\.previous) == [1, 2])
  }
}
