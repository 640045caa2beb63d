import Bytes
import FileStore
import GRPC
import Reactor
import Redis
import Schema
import Testing

@testable import UploaderService

@Suite(.timeLimit(.minutes(1))) struct UploadTests {
  @Test func chunksInTheWrongOrderOverTwoStreams() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let content = Content("d41d8cd98f00b204e9800998ecf8427e", 2_500_000)
      let chunks = content.chunks(of: 1_000_000)
      let first = try await node.send([chunks[2], chunks[0]])
      #expect(!first.success)
      #expect(first.missing == [FileTransferV1.ByteRange(offset: 1_000_000, length: 1_000_000)])
      #expect(first.message.contains("1000000 of 2500000 bytes are missing"))

      let known = try await node.files.queryUploadedChunks(.init(fileID: content.id))
      #expect(known.offsets == [0, 2_000_000])
      #expect(known.lengths == [1_000_000, 500_000])
      #expect(known.totalSize == 2_500_000)
      #expect(known.state == .uploading)
      let breakpoint = try await node.files.queryUploadStatus(.init(fileID: content.id))
      #expect(breakpoint.hasBreakpoint)
      #expect(breakpoint.resumeOffset == 1_000_000)

      let second = try await node.send([chunks[1], chunks[0]])
      #expect(second.success)
      #expect(second.message == content.md5)
      #expect(second.md5 == content.md5)

      let (file, sidecar) = try await place.onDisk { try $0.open(FileID(content.id)) }
      #expect(try file.read(at: 0, length: 3_000_000) == content.bytes)
      #expect(sidecar.md5 == content.md5)
      #expect(node.sender.sent.map(\.fileID) == [content.id])
      #expect(node.sender.sent.first?.file.notice?.md5 == content.md5)
      #expect(try await node.files.queryUploadedChunks(.init(fileID: content.id)).state == .published)
      let again = try await node.send([chunks[1]])
      #expect(again.success && again.md5 == content.md5)
      #expect(node.sender.sent.count == 1)
      await node.stop()
    }
  }

  @Test func streamsAtTheSameTime() async throws {
    try await Place().run { place in
      let node = try await place.uploader { $0.unsyncedBytesPerUpload = 4 << 20 }
      let content = Content("parallel", 24_000_000)
      let chunks = content.chunks(of: 500_000)
      let calls = [
        try await node.files.upload(), try await node.files.upload(), try await node.files.upload(),
      ]
      for (index, chunk) in chunks.reversed().enumerated() { try await calls[index % 3].send(chunk) }
      var results: [Bool] = []
      for call in calls { results.append(try await call.finish().success) }
      #expect(results.last == true)
      let check = try await node.files.checkFileIntegrity(
        .init(fileID: content.id, clientMD5: content.md5.uppercased()))
      #expect(check.match)
      #expect(check.serverMD5 == content.md5)
      let sidecar = try await place.onDisk { try $0.sidecar(of: FileID(content.id)) }
      #expect(sidecar.blockMD5s.count == 2)
      #expect(sidecar.blockMD5s.first == Digest.hex(of: content.bytes.prefix(20 << 20), .md5))
      await node.stop()
    }
  }

  @Test func twoNodesShareOneFile() async throws {
    try await Place().run { place in
      let one = try await place.uploader("one")
      let two = try await place.uploader("two")
      let content = Content("shared", 5_000_000)
      let chunks = content.chunks(of: 1_000_000)
      let (left, right) = (try await one.files.upload(), try await two.files.upload())
      for (index, chunk) in chunks.enumerated() { try await (index % 2 == 0 ? left : right).send(chunk) }
      let answers = [try await left.finish(), try await right.finish()]
      // One of the two writes, the other one passes its chunks on.
      #expect(answers[1].success)
      #expect(answers[1].md5 == content.md5)
      #expect(try await one.files.checkFileIntegrity(.init(fileID: content.id, clientMD5: content.md5)).match)
      #expect(one.sender.sent.count + two.sender.sent.count == 1)
      await one.stop()
      await two.stop()
    }
  }

  @Test func bothNodesFinishAtOnce() async throws {
    try await Place().run { place in
      let one = try await place.uploader("one")
      let two = try await place.uploader("two")
      for round in 0..<10 {
        let content = Content("race-\(round)", 2_000_000)
        let chunks = content.chunks(of: 1_000_000)
        let (left, right) = (try await one.files.upload(), try await two.files.upload())
        try await left.send(chunks[0])
        try await right.send(chunks[1])
        let ended = Both()
        place.loop.spawn { ended.add(try? await left.finish()) }
        place.loop.spawn { ended.add(try? await right.finish()) }
        while ended.answers.count < 2 { try await place.loop.sleep(for: .milliseconds(5)) }
        #expect(ended.answers.contains { $0?.success == true })
        #expect(try await one.files.checkFileIntegrity(.init(fileID: content.id, clientMD5: content.md5)).match)
      }
      #expect(Set((one.sender.sent + two.sender.sent).map(\.fileID)).count == 10)
      await one.stop()
      await two.stop()
    }
  }

  final class Both {
    var answers: [FileTransferV1.UploadStatus?] = []
    func add(_ answer: FileTransferV1.UploadStatus?) { answers.append(answer) }
  }

  @Test func aNodeGoesOnWhereAnotherStopped() async throws {
    try await Place().run { place in
      let content = Content("resumed", 3_000_000)
      let chunks = content.chunks(of: 1_000_000)
      let one = try await place.uploader("one")
      #expect(try await one.send([chunks[0], chunks[2]]).success == false)
      await one.stop()
      let two = try await place.uploader("two")
      #expect(try await two.files.queryUploadedChunks(.init(fileID: content.id)).offsets == [0, 2_000_000])
      let status = try await two.send([chunks[1]])
      #expect(status.success && status.md5 == content.md5)
      await two.stop()
    }
  }

  /// A small file in one message goes without a journal, and is as finished as any other.
  @Test func aWholeFileInOneMessage() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let other = try await place.uploader("other")
      let content = Content("small", 16_384)
      var chunk = content.chunk(0, 16_384)
      chunk.meta = .init(fileName: "s.bin", fileMD5: Digest.hex(of: "else", .md5))
      #expect(await node.refusal(of: chunk)?.code == .dataLoss)
      chunk.meta = .init(fileName: "s.bin", fileMD5: content.md5)
      #expect(try await node.send([chunk]).md5 == content.md5)
      // At its first fence, and again.
      let second = Content("small-2", 1000)
      for node in [node, other] { #expect(try await node.send([second.chunk(0, 1000)]).md5 == second.md5) }
      let (file, sidecar) = try await place.onDisk { try $0.open(FileID("small-2")) }
      #expect(try file.read(at: 0, length: 2000) == second.bytes)
      #expect(sidecar.blockMD5s == [second.md5])
      #expect(try await other.files.queryUploadedChunks(.init(fileID: "small-2")).lengths == [1000])
      #expect(try await place.onDisk { try $0.allIncoming() }.isEmpty)
      #expect((node.sender.sent + other.sender.sent).map(\.fileID) == ["small", "small-2"])
      await node.stop()
      await other.stop()
    }
  }

  @Test func emptyFile() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let status = try await node.send([.init(fileID: "empty", isLast: true, meta: .init(fileName: "/tmp/none.txt"))])
      #expect(status.success)
      #expect(status.md5 == "d41d8cd98f00b204e9800998ecf8427e")
      #expect(node.sender.sent.first?.file.notice?.fileName == "none.txt")
      await node.stop()
    }
  }

  @Test func transferTellsProgress() async throws {
    try await Place().run { place in
      let node = try await place.uploader()
      let content = Content("told", 3_000_000)
      let call = try await node.files.transfer()
      var chunks = content.chunks(of: 1_000_000)
      chunks[2].meta = .init(
        fileName: "told.bin", totalSize: 3_000_000, fileMD5: content.md5, job: .init(jobID: "job-7"))
      for chunk in chunks { try await call.send(chunk) }
      call.finishSending()
      var received: [Int64] = []
      var durable: [Int64] = []
      var done: FileTransferV1.UploadStatus?
      while let event = try await call.next() {
        switch event.event {
        case .received(let event): received.append(event.bytes)
        case .durable(let event): durable.append(event.bytes)
        case .done(let status): done = status
        case .verifying, nil: break
        }
      }
      #expect(received == received.sorted() && durable == durable.sorted())
      #expect(received.contains { $0 > 0 })
      #expect(done?.success == true)
      #expect(done?.md5 == content.md5)
      #expect(done?.jobID == "job-7")
      await node.stop()
    }
  }
}
