import Bytes
import Routing
import Testing

@Suite struct PushRecordTests {
  @Test(arguments: [
    PushRecord.Target.client("c1"), .all(tags: [:]), .all(tags: ["site": "x", "model": ""]), .channel("files"),
    .moved(client: "c1", epoch: 1_763_000_000_123), .cancelled(job: "j"),
  ])
  func readsAsItIsWritten(_ target: PushRecord.Target) throws {
    let record = PushRecord(
      target: target, messageID: "j/c1", message: Bytes([1, 2, 0, 255]), jobID: "j", isAtLeastOnce: true,
      expiresAt: .max, hops: 2, place: InboxPlace(inboxID: "i", seq: 1_763_000_000_123_456, previous: 9))
    #expect(try PushRecord(encoded: record.encoded()) == record)
    let plain = PushRecord(target: target)
    #expect(try PushRecord(encoded: plain.encoded()) == plain)
  }

  @Test func refusesWhatIsNoRecord() {
    for bytes in [Bytes(), Bytes([0x0A, 0x05, 0x61]), Bytes([0xFF]), Bytes("hello")] {
      let error = #expect(throws: RoutingError.self) { try PushRecord(encoded: bytes) }
      #expect(error?.code == .corrupt)
    }
  }

  @Test func everyTruncationIsAnErrorOrAnotherRecord() {
    let whole = PushRecord(target: .client("client"), messageID: "m", message: Bytes("payload"), jobID: "j").encoded()
    for length in 0..<whole.count {
      let read = try? PushRecord(encoded: whole.prefix(length))
      #expect(read?.message.count ?? 0 <= 7)
    }
  }
}
