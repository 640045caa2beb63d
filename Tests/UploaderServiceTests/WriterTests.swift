import Bytes
import FileStore
import GRPC
import Reactor
import Redis
import Schema
import Testing

@testable import UploaderService

/// One node writes a file; the others pass on what they get.
@Suite(.timeLimit(.minutes(1))) struct WriterTests {
  @Test func aTransferIsRelayedWithItsEventsAndItsStatus() async throws {
    try await Place().run { place in
      let one = try await place.uploader("one")
      let two = try await place.uploader("two")
      let content = Content("relayed", 12_000_000)
      let chunks = content.chunks(of: 1_000_000)
      _ = try await one.send([chunks[0]])
      let call = try await two.files.transfer()
      for chunk in chunks[1...] { try await call.send(chunk) }
      call.finishSending()
      var (durable, done): (Int64, FileTransferV1.UploadStatus?) = (0, nil)
      while let event = try await call.next() {
        switch event.event {
        case .durable(let event): durable = max(durable, event.bytes)
        case .done(let status): done = status
        default: break
        }
      }
      #expect(durable == 12_000_000)
      #expect(done?.md5 == content.md5)
      // The writer's refusals come through as they are.
      let again = Content("relayed-2", 2_000_000)
      _ = try await one.send([again.chunk(0, 1_000_000)])
      var wrong = again.chunk(1_000_000, 1_000_000)
      wrong.chunkMD5 = Digest.hex(of: "x", .md5)
      #expect(await two.refusal(of: wrong)?.code == .dataLoss)
      let other = FileTransferV1.FileChunk(
        fileID: again.id, offset: 0, totalSize: 2_000_000, data: Bytes(Array(repeating: 7, count: 1_000_000)))
      #expect(await two.refusal(of: other)?.code == .failedPrecondition)
      await one.stop()
      await two.stop()
    }
  }

  /// The writer is dead, its lease isn't: its streams wait, and then go on here.
  @Test func aDeadWriterIsFollowedWhenItsLeaseEnds() async throws {
    try await Place().run { place in
      let content = Content("heir", 3_000_000)
      let leaseEnd = EventLoop.wallClockMilliseconds() + 700
      try await place.abandon(content, [0..<1_000_000], leaseEnd: leaseEnd)
      let node = try await place.uploader { $0.pollSilentWriter = .milliseconds(50) }
      let status = try await node.send(Array(content.chunks(of: 1_000_000)[1...]))
      #expect(EventLoop.wallClockMilliseconds() >= leaseEnd)
      #expect(status.md5 == content.md5)
      await node.stop()
    }
  }

  /// A writer that was away for longer than its lease can't finish the file any more.
  @Test func aStaleWriterIsFenced() async throws {
    try await Place().run { place in
      let one = try await place.uploader("one")
      let content = Content("stale", 3_000_000)
      let chunks = content.chunks(of: 1_000_000)
      let stale = try await one.files.upload()
      try await stale.send(chunks[0])
      while try await one.files.queryUploadedChunks(.init(fileID: content.id)).offsets.isEmpty {
        try await place.loop.sleep(for: .milliseconds(10))
      }
      // As if its lease had ended without its hearing of it.
      let redis = try place.client()
      _ = try await redis.send("HSET", "upload:{stale}", "writer", "")
      let two = try await place.uploader("two")
      #expect(try await two.send([chunks[1]]).missing == [.init(offset: 2_000_000, length: 1_000_000)])
      try await stale.send(chunks[2])
      let refusal = await #expect(throws: Status.self) { try await stale.finish() }
      #expect(refusal?.code == .unavailable)
      #expect(try await one.send([chunks[2]]).md5 == content.md5)
      #expect(one.sender.sent.count + two.sender.sent.count == 1)
      redis.close()
      await one.stop()
      await two.stop()
    }
  }

  @Test func aRestartedNodeGoesOnAtOnce() async throws {
    try await Place().run { place in
      let content = Content("restarted", 2_000_000)
      let node = try await place.uploader()
      // Its own former life is its writer for another hour.
      try await place.abandon(
        content, [0..<1_000_000], leaseEnd: EventLoop.wallClockMilliseconds() + 3_600_000,
        address: node.channel.target.description)
      #expect(try await node.send([content.chunk(1_000_000, 1_000_000)]).md5 == content.md5)
      await node.stop()
    }
  }

  /// A repeat is taken once; other bytes at the same place are refused.
  @Test func conflictingChunks() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let content = Content("conflict", 2_000_000)
      let chunk = content.chunk(0, 1_000_000)
      _ = try await node.send([chunk, chunk])
      #expect(try await node.send([chunk]).success == false)
      let other = FileTransferV1.FileChunk(
        fileID: content.id, totalSize: 2_000_000, data: Bytes(Array(repeating: 1, count: 1_000_000)))
      #expect(await node.refusal(of: other)?.code == .failedPrecondition)
      #expect(try await node.files.queryUploadedChunks(.init(fileID: content.id)).lengths == [1_000_000])
      await node.stop()
    }
  }

  @Test func leftoversOfEarlierWritersAreSwept() async throws {
    try await Place().run { place in
      let clock = Clock()
      let node = try await place.uploader(clock: clock)
      let content = Content("leftover", 2_000_000)
      _ = try await node.send([content.chunk(0, 1_000_000)])
      let redis = try place.client()
      _ = try await redis.send("HSET", "upload:{leftover}", "writer", "", "fence", 4)
      #expect(try await node.send([content.chunk(0, 1_000_000)]).success == false)
      let id = try FileID(content.id)
      try await place.onDisk { _ = try $0.createPart(id, fence: 3, size: 10) }
      clock.advance(by: .seconds(3600))
      try await node.server.sweeper.sweep()
      let left = try await place.onDisk { try $0.incoming(of: id) }
      #expect(Set(left.map(\.fence)) == [5] && left.count == 2)
      #expect(try await node.send([content.chunk(1_000_000, 1_000_000)]).md5 == content.md5)
      redis.close()
      await node.stop()
    }
  }
}
