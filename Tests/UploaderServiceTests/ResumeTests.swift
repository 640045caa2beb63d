import Bytes
import FileStore
import GRPC
import Glibc
import Reactor
import Redis
import Schema
import Testing

@testable import UploaderService

/// The cases of breakpoints that the seed documents list: those of their tests, then those of their table of edge cases.
@Suite(.timeLimit(.minutes(1))) struct ResumeTests {
  static let block = Int(Sidecar.blockSize)

  @Test func interruptedAfterTwentyMebibytesAndResumed() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let content = Content("interrupted", 30 << 20)
      let chunks = content.chunks(of: 1 << 20)
      try await node.sendAndBreak(Array(chunks[..<20]), on: place.loop)
      var breakpoint = FileTransferV1.UploadBreakpoint()
      while breakpoint.uploadedChunks.first?.chunkMD5 ?? "" == "" {
        breakpoint = try await node.files.queryUploadStatus(.init(fileID: content.id))
        try await place.loop.sleep(for: .milliseconds(10))
      }
      #expect(breakpoint.resumeOffset == 20 << 20)
      #expect(
        breakpoint.uploadedChunks == [
          .init(
            chunkIndex: 0, chunkMD5: Digest.hex(of: content.bytes.prefix(Self.block), .md5), chunkOffset: 0,
            chunkLength: 20 << 20)
        ])
      var rest = chunks[20...].map { $0 }
      rest[0].meta = .init(fileMD5: content.md5, resumeOffset: 20 << 20)
      #expect(try await node.send(rest).md5 == content.md5)
      await node.stop()
    }
  }

  /// A block is damaged on the disk while the upload rests: it alone is asked for again.
  @Test func damagedOnDiskBetween() async throws {
    try await Place().run { place in
      let one = try await place.uploader("one")
      let content = Content("damaged", 50 << 20)
      let chunks = content.chunks(of: 1 << 20)
      try await one.sendAndBreak(Array(chunks[..<40]), on: place.loop)
      await one.stop()
      try await place.damage(content.id, at: 25 << 20)

      let two = try await place.uploader("two")
      var last = chunks[40...].map { $0 }
      last[0].meta = .init(fileMD5: content.md5)
      let status = try await two.send(last)
      #expect(!status.success)
      #expect(status.missing == [.init(offset: 20 << 20, length: 20 << 20)])
      #expect(try await two.files.queryUploadedChunks(.init(fileID: content.id)).offsets.count == 30)
      #expect(try await two.send(Array(chunks[20..<40])).md5 == content.md5)
      await two.stop()
    }
  }

  /// Damage that nobody noticed until the whole file's MD5 isn't the declared one.
  @Test func damagedWhileItIsOpen() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let content = Content("rotten", 50 << 20)
      var chunks = content.chunks(of: 1 << 20)
      chunks[49].meta = .init(fileMD5: content.md5)
      // Without the first chunk the whole file's digest can't go on to what is damaged then.
      try await node.sendAndBreak(Array(chunks[1..<49]), on: place.loop)
      while try await node.files.queryUploadStatus(.init(fileID: content.id)).uploadedChunks.first?.chunkMD5 ?? "" == ""
      {
        try await place.loop.sleep(for: .milliseconds(10))
      }
      try await place.damage(content.id, at: 25 << 20)
      #expect(await node.refusal(of: chunks[0], chunks[49])?.code == .dataLoss)
      let status = try await node.send([chunks[49]])
      #expect(status.missing == [.init(offset: 20 << 20, length: 20 << 20)])
      #expect(try await node.send(Array(chunks[20..<40])).md5 == content.md5)
      await node.stop()
    }
  }

  @Test func twoClientsOfOneFile() async throws {
    try await Place().run { place in
      let node = try await place.uploader { $0.sessionLifetime = .seconds(1) }
      let other = try await place.uploader("other") { $0.sessionLifetime = .seconds(1) }
      let content = Content("contested", 4_000_000)
      var chunks = content.chunks(of: 1_000_000)
      for index in chunks.indices { chunks[index].meta = .init(sessionID: "first") }
      #expect(try await node.send([chunks[0]]).success == false)
      for place in [node, other] {
        var foreign = chunks[1]
        foreign.meta?.sessionID = "second"
        let refusal = await place.refusal(of: foreign)
        #expect(refusal?.code == .aborted)
        #expect(refusal?.retryAfter.map { $0 > .zero && $0 <= .seconds(1) } == true)
        foreign.meta = nil
        #expect(await place.refusal(of: foreign)?.code == .aborted)
      }
      // Its own streams are welcome everywhere, and keep the lock.
      #expect(try await other.send([chunks[1]]).success == false)
      // Whoever comes after a silent owner takes over.
      var heir = chunks[2]
      heir.meta?.sessionID = "second"
      var refused = 0
      while await node.refusal(of: heir)?.code == .aborted {
        refused += 1
        try await place.loop.sleep(for: .milliseconds(50))
      }
      #expect(refused > 2)
      #expect(await node.refusal(of: chunks[3])?.code == .aborted)
      heir = chunks[3]
      heir.meta?.sessionID = "second"
      #expect(try await other.send([heir]).md5 == content.md5)
      await node.stop()
      await other.stop()
    }
  }

  @Test func expiredAfterADay() async throws {
    try await Place().run { place in
      let clock = Clock()
      let node = try await place.uploader(clock: clock)
      let content = Content("expired", 22 << 20)
      let chunks = content.chunks(of: 1 << 20)
      try await node.sendAndBreak(Array(chunks[..<20]), on: place.loop)
      clock.advance(by: .seconds(23 * 3600))
      try await node.server.sweeper.sweep()
      #expect(try await node.files.queryUploadStatus(.init(fileID: content.id)).resumeOffset == 20 << 20)
      clock.advance(by: .seconds(2 * 3600))
      #expect(try await node.files.queryUploadStatus(.init(fileID: content.id)).hasBreakpoint == false)
      #expect(try await node.files.queryUploadedChunks(.init(fileID: content.id)).offsets == [])
      try await node.server.sweeper.sweep()
      #expect(try await place.onDisk { try $0.incoming(of: FileID(content.id)) }.isEmpty)
      // It can be begun again, with other bytes.
      let other = Content("expired", 1000)
      #expect(try await node.send([other.chunk(0, 1000)]).md5 == other.md5)
      await node.stop()
    }
  }

  @Test func offsetsOutsideOfTheFile() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let content = Content("outside", 3_000_000)
      let chunks = content.chunks(of: 1_000_000)
      _ = try await node.send([chunks[0]])
      var chunk = chunks[1]
      chunk.meta = .init(resumeOffset: 3_000_001)
      #expect(await node.refusal(of: chunk)?.code == .invalidArgument)
      chunk.meta = .init(resumeOffset: 1_000_001)
      #expect(await node.refusal(of: chunk)?.code == .failedPrecondition)
      let refusal = await #expect(throws: Status.self) {
        try await node.files.queryUploadStatus(.init(fileID: content.id, fromOffset: 3_000_001))
      }
      #expect(refusal?.code == .invalidArgument)
      await node.stop()
    }
  }

  /// Blocks needn't come in order, and inside of a broken one the offset to go on from can be asked.
  @Test func blocksOutOfOrderAndBroken() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let content = Content("broken", 45 << 20)
      let chunks = content.chunks(of: 1 << 20)
      // The last block whole, seven chunks of the second one, one of the first.
      try await node.sendAndBreak(Array(chunks[40...] + chunks[20..<27] + chunks[..<1]), on: place.loop)
      let known = try await node.files.queryUploadStatus(.init(fileID: content.id, fromOffset: 20 << 20))
      #expect(known.resumeOffset == 1 << 20)
      #expect(known.continueOffset == 27 << 20)
      #expect(known.uploadedChunks.map(\.chunkIndex) == [2])
      let end = try await node.files.queryUploadStatus(.init(fileID: content.id, fromOffset: 41 << 20))
      #expect(end.continueOffset == 45 << 20)
      #expect(try await node.send(Array(chunks[1..<20] + chunks[27..<40])).md5 == content.md5)
      await node.stop()
    }
  }

  @Test func askedForByItsMD5FromAnyNode() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let other = try await place.uploader("other")
      let content = Content("by-digest", 2_000_000)
      var chunks = content.chunks(of: 1_000_000)
      chunks[0].meta = .init(fileMD5: content.md5.uppercased())
      _ = try await node.send([chunks[0]])
      for md5 in [content.md5, content.md5.uppercased()] {
        let known = try await other.files.queryUploadStatus(.init(fileMD5: md5))
        #expect(known.hasBreakpoint && known.fileID == content.id && known.resumeOffset == 1_000_000)
      }
      let unknown = try await other.files.queryUploadStatus(.init(fileMD5: Digest.hex(of: "x", .md5)))
      #expect(!unknown.hasBreakpoint)
      await node.stop()
      await other.stop()
    }
  }
}
