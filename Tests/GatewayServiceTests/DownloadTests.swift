import Bytes
import FileStore
import GRPC
import GatewayService
import Reactor
import Redis
import Schema
import Telemetry
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(1))) struct DownloadTests {
  /// A store with one file, and a server with the download service alone.
  final class Place: Sendable {
    let redis: RedisServer
    let path: String
    let loop: EventLoop
    let content: Bytes
    let sidecar: Sidecar

    init(size: Int) throws {
      redis = try RedisServer()
      path = try temporaryDirectory("downloads")
      loop = try EventLoop.start()
      content = Bytes(capacity: size) { memory in
        var index = 0
        while index < size {
          memory[index] = UInt8(truncatingIfNeeded: (index &* 2_654_435_761) >> 13)
          index += 1
        }
        return size
      }
      let store = try StoreDirectory(at: path)
      let id = try FileID("file-1")
      let part = try store.createPart(id, fence: 1, size: Int64(size))
      try part.write(content, at: 0)
      let digests = try FileDigests.read(part, size: Int64(size))
      sidecar = Sidecar(name: "a.bin", size: Int64(size), digests: digests, publishedAt: 77)
      try store.publish(id, fence: 1, file: part, sidecar: sidecar)
    }

    deinit {
      loop.stop()
      removeDirectory(path)
    }

    func run(
      _ adapt: @escaping @Sendable (inout DownloadLimits) -> Void = { _ in },
      _ story: @escaping @Sendable (PushV1.FileServiceClient, Place) async throws -> Void
    ) async throws {
      try await loop.run {
        let redis = RedisClient(loop: self.loop, address: try RedisAddress(self.redis.address))
        var limits = DownloadLimits()
        adapt(&limits)
        let handler = DownloadHandler(
          loop: self.loop, store: try StoreDirectory(at: self.path), redis: redis, limits: limits, log: .silent,
          registry: MetricsRegistry())
        var router = Router()
        router.add(fileService: handler)
        let server = Server(loop: self.loop, router: router)
        let address = try await server.listen(on: HostPort(host: "127.0.0.1", port: 0))
        let channel = Channel(loop: self.loop, target: HostPort(host: "127.0.0.1", port: address.port))
        try await story(PushV1.FileServiceClient(channel), self)
        channel.close()
        await server.shutdown(grace: .milliseconds(100))
        redis.close()
      }
    }
  }

  static func status(_ body: () async throws -> Void) async -> Status? {
    do {
      try await body()
      return nil
    } catch {
      return error as? Status
    }
  }

  @Test func wholeFileInChunksOf64KiB() async throws {
    try await Place(size: 2_500_000).run { files, place in
      let stream = try await files.downloadFile(.init(fileID: "file-1"))
      var bytes: [UInt8] = []
      var count: Int32 = 0
      while let chunk = try await stream.next() {
        #expect(chunk.sequence == count)
        #expect(chunk.offset == Int64(bytes.count))
        #expect(chunk.content.count <= 65_536)
        bytes += chunk.content.array
        count += 1
        #expect(chunk.isLast == (bytes.count == 2_500_000))
      }
      #expect(Bytes(bytes) == place.content)
      #expect(try await stream.initialMetadata()["x-session-id"]?.isEmpty == false)
    }
  }

  @Test(arguments: [
    (Int64(0), Int64(0), 1_100_000), (1_048_576, 0, 51_424), (1_099_999, 0, 1), (1_100_000, 0, 0), (5, 10, 10),
    (1_048_570, 100, 100), (1_099_990, 100, 10),
  ])
  func ranges(_ offset: Int64, _ length: Int64, _ expected: Int) async throws {
    try await Place(size: 1_100_000).run { files, place in
      let stream = try await files.downloadFile(
        .init(fileID: "file-1", offset: offset, length: length, chunkBytes: 300_000))
      var bytes: [UInt8] = []
      var last: Bool?
      while let chunk = try await stream.next() {
        bytes += chunk.content.array
        last = chunk.isLast
      }
      #expect(last == true)
      #expect(Bytes(bytes) == place.content[Int(offset)..<Int(offset) + expected])
    }
  }

  @Test func badRequestsHaveTheirStatus() async throws {
    try await Place(size: 1000).run { files, _ in
      let cases: [(PushV1.FileRequest, StatusCode)] = [
        (.init(fileID: ""), .invalidArgument), (.init(fileID: "../etc/passwd"), .invalidArgument),
        (.init(fileID: "unknown"), .notFound), (.init(fileID: "file-1", offset: -1), .invalidArgument),
        (.init(fileID: "file-1", length: -1), .invalidArgument),
        (.init(fileID: "file-1", offset: 1001), .invalidArgument),
        (.init(fileID: "file-1", sessionID: "a b"), .invalidArgument),
      ]
      for (request, code) in cases {
        let status = await DownloadTests.status {
          let stream = try await files.downloadFile(request)
          while try await stream.next() != nil {}
        }
        #expect(status?.code == code, "\(request)")
        #expect(status?.message.hasSuffix(".") == true)
      }
      let stat = await DownloadTests.status { _ = try await files.statFile(.init(fileID: "unknown")) }
      #expect(stat?.code == .notFound)
    }
  }

  @Test func statTellsTheSidecar() async throws {
    try await Place(size: 1000).run { files, place in
      let stat = try await files.statFile(.init(fileID: "file-1"))
      #expect(stat.fileName == "a.bin" && stat.fileSize == 1000 && stat.publishedAtMs == 77)
      #expect(stat.md5 == place.sidecar.md5 && stat.blockMD5s == place.sidecar.blockMD5s)
      #expect(stat.blockSize == 20 << 20)
    }
  }

  @Test func recordOfABrokenDownload() async throws {
    let adapt: @Sendable (inout DownloadLimits) -> Void = {
      $0.recordEveryBytes = 1 << 20
      $0.bytesOnTheWay = 1 << 20
    }
    try await Place(size: 12_000_000).run(adapt) { files, place in
      let query = PushV1.QueryDownloadRequest(sessionID: "s-1", fileID: "file-1")
      #expect(try await files.queryDownloadStatus(query).hasBreakpoint == false)
      let stream = try await files.downloadFile(.init(fileID: "file-1", sessionID: "s-1"))
      var received = 0
      while received < 6_000_000, let chunk = try await stream.next() { received += chunk.content.count }
      stream.cancel()
      var record = PushV1.DownloadStatus()
      while !record.hasBreakpoint || record.resumeOffset == 0 {
        record = try await files.queryDownloadStatus(query)
        try await place.loop.sleep(for: .milliseconds(10))
      }
      #expect(record.fileSize == 12_000_000)
      // A block of its own, above what was recorded, doesn't move the record.
      let before = try await files.queryDownloadStatus(query).resumeOffset
      let block = try await files.downloadFile(.init(fileID: "file-1", offset: 11_999_000, sessionID: "s-1"))
      while try await block.next() != nil {}
      #expect(try await files.queryDownloadStatus(query).resumeOffset == before)
      // Going on from the record does.
      let rest = try await files.downloadFile(.init(fileID: "file-1", offset: before, sessionID: "s-1"))
      while try await rest.next() != nil {}
      while try await files.queryDownloadStatus(query).resumeOffset < 12_000_000 {
        try await place.loop.sleep(for: .milliseconds(10))
      }
    }
  }

  @Test func aSlowReaderStopsTheDisk() async throws {
    try await Place(size: 30_000_000).run { files, place in
      let stream = try await files.downloadFile(.init(fileID: "file-1", sessionID: "slow"))
      _ = try await stream.next()
      try await place.loop.sleep(for: .milliseconds(500))
      stream.cancel()
      var record = PushV1.DownloadStatus()
      while !record.hasBreakpoint {
        record = try await files.queryDownloadStatus(.init(sessionID: "slow", fileID: "file-1"))
        try await place.loop.sleep(for: .milliseconds(10))
      }
      // What was sent is bounded by the window, not by the file.
      #expect(record.resumeOffset < 25_000_000)
    }
  }

  @Test func moreDownloadsThanTheLimitAreRefused() async throws {
    try await Place(size: 20_000_000).run({ $0.downloads = 1 }) { files, _ in
      let first = try await files.downloadFile(.init(fileID: "file-1"))
      _ = try await first.next()
      let status = await DownloadTests.status {
        let second = try await files.downloadFile(.init(fileID: "file-1"))
        while try await second.next() != nil {}
      }
      #expect(status?.code == .resourceExhausted)
      #expect(status?.retryAfter != nil)
      first.cancel()
    }
  }
}
