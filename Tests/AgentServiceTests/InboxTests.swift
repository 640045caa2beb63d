import Testing

@testable import AgentService

@Suite struct InboxTests {
  let source = Inbox.Source(name: "inbox", inboxID: "i1")

  func label(_ id: String, _ seq: Int64 = 0, after previous: Int64 = 0) -> Inbox.Label {
    Inbox.Label(messageID: id, source: source, seq: seq, previous: previous)
  }

  @Test func aRepetitionIsSeen() {
    var inbox = Inbox()
    #expect(inbox.take(label("a")) == true)
    #expect(inbox.take(label("a")) == false)
    #expect(inbox.take(label("b", 1)) == true)
    #expect(inbox.take(label("b", 1)) == false)
  }

  @Test func thePositionMovesOverContiguousMessagesOnly() {
    var inbox = Inbox()
    #expect(inbox.take(label("1", 1)) == true)
    #expect(inbox.positions[source] == 1)
    #expect(inbox.take(label("3", 3, after: 2)) == true)
    #expect(inbox.positions[source] == 1)
    #expect(inbox.take(label("2", 2, after: 1)) == true)
    #expect(inbox.positions[source] == 2)
    #expect(inbox.take(label("3", 3, after: 2)) == false)
    #expect(inbox.positions[source] == 3)
    // 4 to 8 have expired: the gateway says that 3 is the one before 9.
    #expect(inbox.take(label("9", 9, after: 3)) == true)
    #expect(inbox.positions[source] == 9)
  }

  @Test func aNewInboxCountsAnew() {
    var inbox = Inbox(positions: [source: 40])
    #expect(inbox.take(label("old", 40)) == false)
    var new = label("new", 1)
    new.source.inboxID = "i2"
    #expect(inbox.take(new) == true)
  }

  @Test func aLogCountsBesideTheInbox() {
    let log = Inbox.Source(name: "fleet", inboxID: "l1")
    func entry(_ id: String, _ seq: Int64, after previous: Int64 = 0, in source: Inbox.Source) -> Inbox.Label {
      Inbox.Label(messageID: id, source: source, seq: seq, previous: previous)
    }
    var inbox = Inbox(positions: [source: 40])
    // The first one of a log says that nothing was given before it, however far the log is.
    #expect(inbox.take(entry("j1", 1000, in: log)) == true)
    #expect(inbox.take(entry("j2", 2000, after: 1000, in: log)) == true)
    #expect(inbox.take(label("a/c", 41, after: 40)) == true)
    #expect(inbox.positions == [source: 41, log: 2000])
    #expect(inbox.take(entry("j2", 2000, in: log)) == false)
    // Another life of the log: the place in the old one is of no more use.
    let next = Inbox.Source(name: "fleet", inboxID: "l2")
    #expect(inbox.take(entry("j3", 3000, in: next)) == true)
    #expect(inbox.positions == [source: 41, next: 3000])
  }

  @Test func memoryIsBounded() {
    var inbox = Inbox()
    for number in 0..<(Inbox.rememberedIDs + 10) { _ = inbox.take(label("\(number)")) }
    #expect(inbox.take(label("0")) == true)
    #expect(inbox.take(label("\(Inbox.rememberedIDs + 9)")) == false)
  }
}
