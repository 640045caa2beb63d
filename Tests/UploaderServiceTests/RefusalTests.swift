import Bytes
import FileStore
import GRPC
import Glibc
import Reactor
import Redis
import Schema
import Testing

@testable import UploaderService

@Suite(.timeLimit(.minutes(1))) struct RefusalTests {
  typealias Chunk = FileTransferV1.FileChunk

  @Test func eachWithItsStatusAndASentence() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let data = Bytes("0123456789")
      let cases: [(String, Chunk, StatusCode)] = [
        ("no id", Chunk(totalSize: 10, data: data), .invalidArgument),
        ("a path", Chunk(fileID: "../x", totalSize: 10, data: data), .invalidArgument),
        ("negative offset", Chunk(fileID: "a", offset: -1, totalSize: 10, data: data), .invalidArgument),
        ("negative size", Chunk(fileID: "a", totalSize: -10, data: data), .invalidArgument),
        ("no size", Chunk(fileID: "a", data: data), .invalidArgument),
        ("past the size", Chunk(fileID: "a", offset: 11, totalSize: 10), .invalidArgument),
        ("over the size", Chunk(fileID: "a", offset: 1, totalSize: 10, data: data), .invalidArgument),
        ("too large", Chunk(fileID: "a", totalSize: Upload.maximumSize + 1, data: data), .resourceExhausted),
        ("no digest", Chunk(fileID: "a", totalSize: 10, data: data, chunkMD5: "xyz"), .invalidArgument),
        (
          "wrong digest", Chunk(fileID: "a", totalSize: 10, data: data, chunkMD5: Digest.hex(of: "x", .md5)), .dataLoss
        ),
        ("bad name", Chunk(fileID: "a", totalSize: 10, data: data, meta: .init(fileName: "..")), .invalidArgument),
        (
          "two sizes", Chunk(fileID: "b", totalSize: 10, data: data, meta: .init(totalSize: 11)), .failedPrecondition
        ),
        (
          "resume past what is there", Chunk(fileID: "b", totalSize: 10, meta: .init(resumeOffset: 5)),
          .failedPrecondition
        ),
      ]
      for (what, chunk, code) in cases {
        let status = await node.refusal(of: chunk)
        #expect(status?.code == code, "\(what): \(String(describing: status))")
        #expect(status?.message.hasSuffix(".") == true, "\(what)")
      }
      // The server goes on serving, and what was refused left nothing behind.
      #expect(try await node.send([Chunk(fileID: "c", totalSize: 10, data: data)]).success)
      let status = try await node.send([Chunk(fileID: "a", totalSize: 10, data: data)])
      #expect(status.success)
      await node.stop()
    }
  }

  @Test func theFirstWordStands() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let other = try await place.uploader("other")
      let content = Content("stands", 20)
      var first = content.chunk(0, 10)
      first.meta = .init(fileMD5: content.md5)
      #expect(try await node.send([first]).success == false)
      for node in [node, other] {
        let size = await node.refusal(of: Chunk(fileID: "stands", offset: 10, totalSize: 21, data: Bytes("x")))
        #expect(size?.code == .failedPrecondition)
        var second = content.chunk(10, 10)
        second.meta = .init(fileMD5: Digest.hex(of: "other", .md5))
        #expect(await node.refusal(of: second)?.code == .failedPrecondition)
        let overlap = await node.refusal(
          of: Chunk(fileID: "stands", offset: 5, totalSize: 20, data: Bytes("0123456789")))
        #expect(overlap?.code == .failedPrecondition)
      }
      let twoFiles = await node.refusal(of: content.chunk(0, 10), Chunk(fileID: "another", totalSize: 1))
      #expect(twoFiles?.code == .invalidArgument)
      #expect(try await other.send([content.chunk(10, 10)]).success)
      // It stands after the end, and after its record has gone.
      let taken = await node.refusal(of: Chunk(fileID: "stands", totalSize: 30, data: Bytes("x")))
      #expect(taken?.code == .failedPrecondition)
      let redis = try place.client()
      _ = try await redis.send("FLUSHALL")
      #expect(
        await node.refusal(of: Chunk(fileID: "stands", totalSize: 30, data: Bytes("x")))?.code == .failedPrecondition)
      #expect(try await node.send([content.chunk(0, 10)]).md5 == content.md5)
      redis.close()
      await node.stop()
      await other.stop()
    }
  }

  @Test func aWrongWholeDigestDropsTheUpload() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let content = Content("mismatch", 3_000_000)
      var chunks = content.chunks(of: 1_000_000)
      chunks[0].meta = .init(fileMD5: Digest.hex(of: "something else", .md5))
      let refusal: Status?
      do {
        _ = try await node.send(chunks)
        refusal = nil
      } catch { refusal = error as? Status }
      #expect(refusal?.code == .dataLoss)
      #expect(try await node.files.queryUploadedChunks(.init(fileID: content.id)).offsets == [])
      await #expect(throws: FileStoreError.self) { try await place.onDisk { try $0.open(FileID(content.id)).sidecar } }
      chunks[0].meta = .init(fileMD5: content.md5)
      #expect(try await node.send(chunks).success)
      #expect(node.sender.sent.count == 1)
      await node.stop()
    }
  }

  @Test func integrityIsReallyCompared() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let content = Content("compared", 100_000)
      let unknown = await #expect(throws: Status.self) {
        try await node.files.checkFileIntegrity(.init(fileID: "nothing"))
      }
      #expect(unknown?.code == .notFound)
      _ = try await node.send([content.chunk(0, 50_000)])
      let early = try await node.files.checkFileIntegrity(.init(fileID: content.id, clientMD5: content.md5))
      #expect(!early.match && early.message.contains("50000 of 100000"))
      #expect(try await node.send([content.chunk(50_000, 50_000)]).success)
      #expect(try await node.files.checkFileIntegrity(.init(fileID: content.id, clientMD5: content.md5)).match)
      let wrong = try await node.files.checkFileIntegrity(
        .init(fileID: content.id, clientMD5: Digest.hex(of: "", .md5)))
      #expect(!wrong.match && wrong.serverMD5 == content.md5)
      let silent = try await node.files.checkFileIntegrity(.init(fileID: content.id))
      #expect(!silent.match && silent.serverMD5 == content.md5)
      // One byte on the disk changes.
      let path = "\(place.store)/files/\(Digest.hex(of: content.id, .md5).prefix(2))/\(content.id)"
      let descriptor = open(path, O_WRONLY)
      #expect(pwrite(descriptor, "!", 1, 77) == 1)
      close(descriptor)
      let damaged = try await node.files.checkFileIntegrity(.init(fileID: content.id, clientMD5: content.md5))
      #expect(!damaged.match && damaged.message.contains("damaged"))
      await node.stop()
    }
  }
}
