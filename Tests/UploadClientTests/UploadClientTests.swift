import FileStore
import Foundation
import GRPC
import Reactor
import Testing
import UploaderService

@testable import UploadClient

@Suite(.timeLimit(.minutes(1))) struct UploadClientTests {
  @Test(arguments: [0, 1, 1 << 20, (1 << 20) + 1, 5 << 20, (33 << 20) + 7]) func aFileIsSentOnce(size: Int) async throws
  {
    let site = try Site()
    try await site.run { site in
      let (server, address) = try await site.uploader()
      let (path, md5) = try site.file("a", size)
      let client = site.client(address)
      var last: UploadProgress?
      let result = try await client.upload(path) { last = $0 }
      #expect(result.md5 == md5)
      #expect(result.name == "a")
      #expect(result.bytesSent == size)
      #expect(try await site.stored(result.fileID) == md5)
      #expect(last?.durable == Int64(size))
      #expect(last?.sent == Int64(size))

      let again = try await site.client(address).upload(path)
      #expect(again.fileID == result.fileID)
      #expect(again.md5 == md5)
      if size > 1 << 20 { #expect(again.bytesSent == 0) }
      await server.stop()
    }
  }

  @Test func anUploadGoesOnWhereItWasStopped() async throws {
    let site = try Site()
    try await site.run { site in
      let (server, address) = try await site.uploader { $0.unsyncedBytesPerUpload = 4 << 20 }
      let (path, md5) = try site.file("a", 64 << 20)
      let client = site.client(address)
      let stopped = await failure { try await client.upload(path) { if $0.durable >= 8 << 20 { client.stop() } } }
      #expect(stopped?.code == .stopped)

      var first: UploadProgress?
      let result = try await site.client(address).upload(path) { if first == nil, $0.sent > 0 { first = $0 } }
      #expect(result.bytesKnown >= 8 << 20)
      #expect((first?.sent ?? 0) >= result.bytesKnown)
      // What was taken and not yet safe when the query came may be sent again.
      #expect(result.bytesSent <= Int64(64 << 20) - result.bytesKnown)
      #expect(result.md5 == md5)
      #expect(try await site.stored(result.fileID) == md5)
      await server.stop()
    }
  }

  @Test func aCancelledTaskStopsIt() async throws {
    let site = try Site()
    try await site.run { site in
      let (server, address) = try await site.uploader { $0.unsyncedBytesPerUpload = 4 << 20 }
      let (path, _) = try site.file("a", 64 << 20)
      let client = site.client(address)
      let changes = Changes()
      var code: UploadError.Code?
      var task: Task<Void, Never>?
      task = site.loop.spawn {
        code = await failure { try await client.upload(path) { if $0.durable > 0 { task?.cancel() } } }?.code
        changes.signal()
      }
      while code == nil { await changes.next() }
      #expect(code == .stopped)
      await server.stop()
    }
  }

  @Test func anUploaderThatDiesIsLeftForTheNext() async throws {
    let site = try Site()
    try await site.run { site in
      let adapt = { (limits: inout UploadLimits) in limits.unsyncedBytesPerUpload = 4 << 20 }
      let (one, first) = try await site.uploader("one", adapt)
      let (two, second) = try await site.uploader("two", adapt)
      let (path, md5) = try site.file("a", 96 << 20)
      let id = try #require(site.idThatBegins(at: first, of: [first, second]))
      var isDying = false
      let result = try await site.client(first, second).upload(path, fileID: id) { progress in
        guard progress.durable >= 8 << 20, !isDying else { return }
        isDying = true
        site.loop.spawn { await one.stop() }
      }
      #expect(isDying)
      #expect(result.md5 == md5)
      #expect(try await site.stored(id) == md5)
      await two.stop()
    }
  }

  @Test func aFileThatIsWrittenToMeanwhileIsNotPublished() async throws {
    let site = try Site()
    try await site.run { site in
      let (server, address) = try await site.uploader { $0.unsyncedBytesPerUpload = 4 << 20 }
      let (path, _) = try site.file("a", 64 << 20)
      var hasWritten = false
      let error = await failure {
        try await site.client(address).upload(path) { progress in
          guard progress.sent > 0, !hasWritten, let file = FileHandle(forWritingAtPath: path) else { return }
          hasWritten = true
          file.seek(toFileOffset: 100)
          file.write(Data("changed".utf8))
          file.closeFile()
        }
      }
      #expect(error?.code == .changed)
      #expect(error?.message.contains("was changed while it was read") == true)
      await server.stop()
    }
  }

  @Test func anIdOfAnotherContentIsSentAnew() async throws {
    let site = try Site()
    try await site.run { site in
      let (server, address) = try await site.uploader { $0.unsyncedBytesPerUpload = 4 << 20 }
      let (path, _) = try site.file("a", 40 << 20)
      let client = site.client(address)
      _ = await failure { try await client.upload(path, fileID: "x") { if $0.durable >= 8 << 20 { client.stop() } } }
      var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
      bytes[5] ^= 1
      try bytes.write(to: URL(fileURLWithPath: path))
      let result = try await site.client(address).upload(path, fileID: "x")
      #expect(try await site.stored("x") == result.md5)
      await server.stop()
    }
  }

  @Test func fewerStreamsThanAskedForAreEnough() async throws {
    let site = try Site()
    try await site.run { site in
      let (server, address) = try await site.uploader { $0.streamsPerUpload = 2 }
      let (path, md5) = try site.file("a", 64 << 20)
      let result = try await site.client(address) { $0.streams = 6 }.upload(path)
      #expect(try await site.stored(result.fileID) == md5)
      await server.stop()
    }
  }

  @Test func manyFilesAndFoldersGoTogether() async throws {
    let site = try Site()
    try await site.run { site in
      let (server, address) = try await site.uploader()
      var sums: [String: String] = [:]
      for index in 0..<200 {
        let (path, md5) = try site.file("tree/\(index % 7)/\(index)", index * 97)
        sums[path] = md5
      }
      for index in 0..<3 {
        let (path, md5) = try site.file("tree/large-\(index)", (3 << 20) + index)
        sums[path] = md5
      }
      var ended = 0
      var last = BatchProgress()
      let reports = await site.client(address).upload(all: [site.folder + "/tree", "/no/such"]) {
        last = $0
      } ended: { _ in
        ended += 1
      }
      #expect(reports.count == 204)
      #expect(ended == 204)
      #expect(last.filesEnded == 204)
      #expect(last.filesFailed == 1)
      #expect(last.sent == last.total)
      for report in reports.dropLast() {
        let result = try report.result.get()
        #expect(result.md5 == sums[report.path])
        #expect(try await site.stored(result.fileID) == sums[report.path])
      }
      #expect(reports.last?.path == "/no/such")
      await server.stop()
    }
  }

  @Test(arguments: [100, 3 << 20]) func whoHoldsTheFileIsTold(size: Int) async throws {
    let site = try Site()
    try await site.run { site in
      let refuser = Refuser()
      let held = Status(.aborted, "Another session uploads the file.", retryAfter: .seconds(30))
      let address = try await refuser.start(site.loop, with: held)
      let (path, _) = try site.file("a", size)
      let error = await failure { try await site.client(address).upload(path, fileID: "held") }
      #expect(error?.code == .heldByOther)
      #expect(error?.message == "Another session uploads the file.")
      let until = try #require(error?.heldUntil) - EventLoop.wallClockMilliseconds()
      #expect((20_000...30_000).contains(until))
      #expect(refuser.calls == 1)
      #expect(refuser.routed.allSatisfy { $0 == "held" })
      await refuser.stop()
    }
  }

  @Test(arguments: [100, 3 << 20]) func itGivesUpWhenNothingMoves(size: Int) async throws {
    let site = try Site()
    try await site.run { site in
      let refuser = Refuser()
      let address = try await refuser.start(site.loop, with: Status(.unavailable, "draining"))
      let (path, _) = try site.file("a", size)
      let client = site.client(address) {
        $0.patience = .milliseconds(200)
        $0.longestPause = .milliseconds(20)
      }
      let error = await failure { try await client.upload(path) }
      #expect(error?.code == .unreachable)
      #expect(error?.message.contains("draining") == true)
      #expect(refuser.calls > 2)
      await refuser.stop()
    }
  }

  /// The example of `UploadClient`'s documentation, as any program would write it.
  @Test func theExampleOfTheDocumentation() async throws {
    let site = try Site()
    let uploaders = try await site.loop.run { [try await site.uploader().address] }
    let (path, md5) = try site.file("terminal.img", 2 << 20)

    let loop = try EventLoop.start(name: "uploads")
    defer { loop.stop() }
    let result = try await loop.run {
      let client = UploadClient(loop: loop, uploaders: uploaders)
      defer { client.close() }
      return try await client.upload(path) { progress in
        print(progress.durable, "of", progress.total, progress.timeLeft as Any)
      }
    }
    #expect(result.md5 == md5)
  }
}

extension Site {
  /// A file id whose uploads begin at an address.
  func idThatBegins(at address: HostPort, of addresses: [HostPort]) -> String? {
    (0..<1000).map { "f\($0)" }.first { UploaderChoice(addresses, for: $0).current == address }
  }
}
