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
  @Test(arguments: [false, true]) func anotherNodeFinalises(afterItBegan: Bool) async throws {
    try await Place().run { place in
      let content = Content("orphan", 2_000_000)
      let id = try FileID(content.id)
      let redis = try place.client()
      let records = UploadRecords(redis: redis, lifetime: .seconds(3600))
      _ = try await records.declare(id, Declaration(size: 2_000_000, md5: content.md5, name: "o.bin"))
      try await place.onDisk { try $0.createPart(id, fence: 1, size: 2_000_000).write(content.bytes, at: 0) }
      _ = try await records.record(id, fence: 1, [0..<1_000_000, 1_000_000..<2_000_000])
      if afterItBegan {
        let granted = try await records.beginFinalising(id, node: "dead", lease: .milliseconds(1))
        guard case .granted = granted else {
          Issue.record("not granted: \(granted)")
          return
        }
      }
      _ = try await redis.send("ZADD", "outbox:{3}", 1, "orphan")
      let node = try await place.uploader {
        $0.relayInterval = .milliseconds(50)
        $0.waitForNotice = .milliseconds(100)
      }
      while node.sender.sent.isEmpty { try await place.loop.sleep(for: .milliseconds(20)) }
      let (file, sidecar) = try await place.onDisk { try $0.open(id) }
      #expect(sidecar.name == "o.bin" && sidecar.md5 == content.md5)
      #expect(try file.read(at: 0, length: 2_000_000) == content.bytes)
      #expect(try await records.load(id)?.fence == (afterItBegan ? 2 : 1))
      redis.close()
      await node.stop()
    }
  }

  /// The finaliser died between giving the file its name and telling Redis.
  @Test func aRenamedFileIsPublished() async throws {
    try await Place().run { place in
      let content = Content("renamed", 500_000)
      let id = try FileID(content.id)
      let redis = try place.client()
      let records = UploadRecords(redis: redis, lifetime: .seconds(3600))
      _ = try await records.declare(id, Declaration(size: 500_000))
      let part = try await place.onDisk { store in
        let part = try store.createPart(id, fence: 1, size: 500_000)
        try part.write(content.bytes, at: 0)
        return part
      }
      _ = try await records.record(id, fence: 1, [0..<500_000])
      _ = try await records.beginFinalising(id, node: "dead", lease: .milliseconds(1))
      let digests = FileDigests(md5: content.md5, blockMD5s: [content.md5])
      let sidecar = Sidecar(name: "r", size: 500_000, digests: digests, publishedAt: 1)
      try await place.onDisk { try $0.publish(id, fence: 1, file: part, sidecar: sidecar) }
      let node = try await place.uploader()
      let status = try await node.send([content.chunk(0, 500_000)])
      #expect(status.success && status.md5 == content.md5)
      #expect(node.sender.sent.count == 1)
      redis.close()
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
      try await place.onDisk { try $0.removePart(FileID("lost"), fence: 1) }
      let two = try await place.uploader("two")
      let status = try await two.send([chunks[1]])
      #expect(!status.success)
      #expect(status.missing == [FileTransferV1.ByteRange(offset: 0, length: 1_000_000)])
      #expect(try await two.send([chunks[0]]).md5 == content.md5)
      await two.stop()
    }
  }

  @Test func redisLosesItsData() async throws {
    try await Place().run { place in
      let content = Content("forgotten", 2_000_000)
      let chunks = content.chunks(of: 1_000_000)
      let node = try await place.uploader()
      _ = try await node.send([chunks[0]])
      let redis = try place.client()
      _ = try await redis.send("FLUSHALL")
      let status = try await node.send([chunks[1]])
      #expect(status.missing == [FileTransferV1.ByteRange(offset: 0, length: 1_000_000)])
      #expect(try await node.send([chunks[0]]).md5 == content.md5)
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
