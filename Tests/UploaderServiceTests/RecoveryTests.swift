import Bytes
import FileStore
import GRPC
import Reactor
import Redis
import Schema
import Testing
import TestSupport

@testable import UploaderService

@Suite(.timeLimit(.minutes(1))) struct RecoveryTests {
  @Test func aNoticeThatCouldNotGoIsRelayed() async throws {
    try await Place().run { place in
      let node = try await place.uploader {
        $0.relayInterval = .milliseconds(50)
        $0.waitForNotice = .milliseconds(100)
      }
      node.sender.failure = Status(.unavailable, "Kafka is away.")
      let content = Content("pending", 1000)
      #expect(try await node.send([content.chunk(0, 1000)]).success)
      #expect(try await node.files.queryUploadedChunks(.init(fileID: content.id)).state == .verified)
      node.sender.failure = nil
      while node.sender.sent.isEmpty { try await place.loop.sleep(for: .milliseconds(20)) }
      #expect(node.sender.sent.first?.messageID == "file/pending")
      var state = FileTransferV1.UploadState.verified
      while state == .verified {
        state = try await node.files.queryUploadedChunks(.init(fileID: content.id)).state
      }
      #expect(state == .published)
      await node.stop()
    }
  }

  /// Every byte is durable and recorded, and the node that was to finalise is dead: before it began, and after.
  @Test(arguments: ["uploading", "finalising"]) func anotherNodeFinalises(state: String) async throws {
    try await Place().run { place in
      let content = Content("orphan", 2_000_000)
      let id = try FileID(content.id)
      try await place.abandon(content, [0..<1_000_000, 1_000_000..<2_000_000], state: state, md5: content.md5)
      let redis = try place.client()
      _ = try await redis.send("ZADD", "outbox:{3}", 1, "orphan")
      let node = try await place.uploader {
        $0.relayInterval = .milliseconds(50)
        $0.waitForNotice = .milliseconds(100)
      }
      while node.sender.sent.isEmpty { try await place.loop.sleep(for: .milliseconds(20)) }
      let (file, sidecar) = try await place.onDisk { try $0.open(id) }
      #expect(sidecar.name == "o.bin" && sidecar.md5 == content.md5)
      #expect(try file.read(at: 0, length: 2_000_000) == content.bytes)
      #expect(try await redis.send("HGET", "upload:{orphan}", "fence").asInteger == 2)
      redis.close()
      await node.stop()
    }
  }

  /// The writer died between giving the file its name and its sidecar.
  @Test func aRenamedFileIsPublished() async throws {
    try await Place().run { place in
      let content = Content("renamed", 500_000)
      try await place.abandon(content, [0..<500_000], state: "finalising", isNamed: true)
      let node = try await place.uploader()
      let status = try await node.send([content.chunk(0, 500_000)])
      #expect(status.success && status.md5 == content.md5)
      #expect(node.sender.sent.count == 1)
      #expect(try await place.onDisk { try $0.open(FileID("renamed")).sidecar.md5 } == content.md5)
      #expect(try await place.onDisk { try $0.incoming(of: FileID("renamed")) }.isEmpty)
      await node.stop()
    }
  }

  @Test func aLostPartFileIsAskedForAgain() async throws {
    try await Place().run { place in
      let content = Content("lost", 2_000_000)
      let chunks = content.chunks(of: 1_000_000)
      let one = try await place.uploader("one")
      _ = try await one.send([chunks[0]])
      await one.stop()
      try await place.onDisk { try $0.remove(IncomingFile(FileID("lost"), fence: 1, .part)) }
      let two = try await place.uploader("two")
      let status = try await two.send([chunks[1]])
      #expect(!status.success)
      #expect(status.missing == [FileTransferV1.ByteRange(offset: 0, length: 1_000_000)])
      #expect(try await two.send([chunks[0]]).md5 == content.md5)
      await two.stop()
    }
  }

  /// The journal knows: while the file is open here, and on another node that never heard of it.
  @Test(arguments: [false, true]) func redisLosesItsData(elsewhere: Bool) async throws {
    try await Place().run { place in
      let content = Content("forgotten", 2_000_000)
      let chunks = content.chunks(of: 1_000_000)
      let node = try await place.uploader()
      _ = try await node.send([chunks[0]])
      let redis = try place.client()
      _ = try await redis.send("FLUSHALL")
      let other = try await place.uploader("other")
      #expect(try await other.files.queryUploadedChunks(.init(fileID: content.id)).lengths == [1_000_000])
      let breakpoint = try await other.files.queryUploadStatus(.init(fileID: content.id))
      #expect(breakpoint.resumeOffset == 1_000_000)
      let status = try await (elsewhere ? other : node).send([chunks[1]])
      #expect(status.md5 == content.md5)
      #expect(try await node.files.checkFileIntegrity(.init(fileID: content.id, clientMD5: content.md5)).match)
      redis.close()
      await node.stop()
      await other.stop()
    }
  }

  /// Redis loses everything after the file is finished and before its notice has gone out.
  @Test func aNoticeOutlivesRedis() async throws {
    try await Place().run { place in
      let clock = Clock()
      let node = try await place.uploader(clock: clock) { $0.waitForNotice = .milliseconds(100) }
      node.sender.failure = Status(.unavailable, "Kafka is away.")
      let content = Content("untold", 1000)
      var chunk = content.chunk(0, 1000)
      chunk.meta = .init(fileName: "u.bin", job: .init(jobID: "job-9"))
      #expect(try await node.send([chunk]).success)
      let redis = try place.client()
      _ = try await redis.send("FLUSHALL")
      node.sender.failure = nil
      clock.advance(by: .seconds(120))
      try await node.server.sweeper.sweep()
      #expect(node.sender.sent.map(\.file.job?.jobID) == ["job-9"])
      #expect(try await place.onDisk { try $0.incoming(of: FileID("untold")) }.isEmpty)
      try await node.server.sweeper.sweep()
      #expect(node.sender.sent.count == 1)
      redis.close()
      await node.stop()
    }
  }

  /// The client dies after its last byte, before it ends its stream.
  @Test func theLastByteFinishesAnUpload() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let content = Content("hung-up", 1_000_000)
      let call = try await node.files.upload()
      try await call.send(content.chunk(0, 1_000_000))
      while try await node.files.queryUploadedChunks(.init(fileID: content.id)).offsets.isEmpty {
        try await place.loop.sleep(for: .milliseconds(20))
      }
      call.cancel()
      while node.sender.sent.isEmpty { try await place.loop.sleep(for: .milliseconds(20)) }
      #expect(try await place.onDisk { try $0.sidecar(of: FileID(content.id)).md5 } == content.md5)
      await node.stop()
    }
  }
}
