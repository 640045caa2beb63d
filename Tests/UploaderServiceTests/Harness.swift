import Bytes
import FileStore
import GRPC
import Glibc
import Reactor
import Redis
import Schema
import Synchronization
import Telemetry
import TestSupport
import Testing

@testable import UploaderService

/// A redis-server, a store and a loop; uploaders and clients are made on the loop.
final class Place: Sendable {
  let redis: RedisServer
  let store: String
  let loop: EventLoop

  init() throws {
    redis = try RedisServer()
    store = try temporaryDirectory("uploads")
    loop = try EventLoop.start()
  }

  deinit {
    loop.stop()
    removeDirectory(store)
  }

  /// Runs a test's story on the loop.
  func run(_ story: @escaping @Sendable (Place) async throws -> Void) async throws {
    try await loop.run { try await story(self) }
  }

  /// Works on the store from a pool: an fsync on the loop would hold up its other stories, and their time-outs.
  func onDisk<T: Sendable>(_ work: @escaping @Sendable (StoreDirectory) throws -> T) async throws -> T {
    let path = store
    return try await BlockingPool.shared.run { try work(try StoreDirectory(at: path)) }
  }

  func client() throws -> RedisClient { RedisClient(loop: loop, address: try RedisAddress(redis.address)) }

  func uploader(
    _ name: String = "one", clock: Clock = Clock(), _ adapt: (inout UploadLimits) -> Void = { _ in }
  ) async throws -> Node {
    var settings = UploaderServer.Settings(listen: HostPort(host: "127.0.0.1", port: 0), name: name, store: store)
    settings.grace = .milliseconds(200)
    settings.limits.writerLease = .seconds(2)
    adapt(&settings.limits)
    settings.clock = { clock.now }
    let sender = Recorder()
    let (server, address) = try await UploaderServer.start(
      settings, redis: try client(), sender: sender, loop: loop, registry: MetricsRegistry(),
      log: getenv("FLEETPUSH_TEST_LOG") == nil ? .silent : Logger(name, level: .debug))
    let channel = Channel(loop: loop, target: HostPort(host: "127.0.0.1", port: address.port))
    return Node(server: server, channel: channel, sender: sender)
  }

  /// Leaves an upload behind whose writer has died: what is on disk, and what Redis knows.
  func abandon(
    _ content: Content, _ ranges: [Range<Int64>], state: String = "uploading", md5: String? = nil,
    leaseEnd: Int64 = 0, address: String = "127.0.0.1:1", isNamed: Bool = false
  ) async throws {
    let id = try FileID(content.id)
    try await onDisk { store in
      var declared = JournalState(size: Int64(content.bytes.count))
      declared.declaredMD5 = md5
      declared.name = "o.bin"
      let now = EventLoop.wallClockMilliseconds()
      let (part, journal) = try store.begin(id, fence: 1, declared, now: now)
      for range in ranges {
        try part.write(content.bytes[Int(range.lowerBound)..<Int(range.upperBound)], at: range.lowerBound)
      }
      try part.syncData()
      var step = UploadJournal.Step()
      step.chunks = ranges
      try journal.append(step, now: now)
      guard isNamed else { return }
      let sidecar = Sidecar(
        name: "o.bin", size: declared.size, digests: FileDigests(md5: content.md5, blockMD5s: []), publishedAt: 1)
      try store.publish(id, fence: 1, file: part, sidecar: sidecar)
      unlink("\(self.store)/files/\(Digest.hex(of: content.id, .md5).prefix(2))/\(content.id)~.json")
    }
    let redis = try client()
    let durable = ranges.reduce(0) { $0 + Int64($1.count) }
    _ = try await redis.send(
      "HSET", .string("upload:{\(content.id)}"), "state", .string(state), "size", RedisArgument(content.bytes.count),
      "fence", 1, "durable", RedisArgument(durable), "name", "o.bin", "updated",
      RedisArgument(EventLoop.wallClockMilliseconds()), "writer", "dead/1", "address", .string(address), "lease_end",
      RedisArgument(leaseEnd))
    if let md5 { _ = try await redis.send("HSET", .string("upload:{\(content.id)}"), "declared_md5", .string(md5)) }
    for range in ranges {
      _ = try await redis.send(
        "ZADD", .string("upload:{\(content.id)}:offsets"), RedisArgument(range.lowerBound),
        .string("\(range.lowerBound):\(range.count)"))
    }
    redis.close()
  }

  /// Changes one byte of an upload's part file, as a disk might.
  func damage(_ id: String, at offset: Int64) async throws {
    try await onDisk { store in
      let part = try #require(try store.incoming(of: FileID(id)).first { $0.kind == .part })
      let file = try store.openPart(part.id, fence: part.fence)
      let byte = try file.read(at: offset, length: 1)
      try file.write(Bytes([byte[0] ^ 1]), at: offset)
    }
  }
}

/// A clock that a test can put forward.
final class Clock: Sendable {
  private let ahead = Atomic<Int64>(0)
  var now: Int64 { EventLoop.wallClockMilliseconds() + ahead.load(ordering: .relaxed) }
  func advance(by time: Duration) { ahead.add(time.components.seconds * 1000, ordering: .relaxed) }
}

/// An uploader in this process and a client of it.
final class Node {
  let server: UploaderServer
  let channel: Channel
  let files: FileTransferV1.FileTransferServiceClient
  let sender: Recorder

  init(server: UploaderServer, channel: Channel, sender: Recorder) {
    self.server = server
    self.channel = channel
    self.sender = sender
    files = .init(channel)
  }

  func stop() async {
    channel.close()
    await server.stop()
  }

  /// Sends chunks over one stream, leaves it there, and waits until they are durable.
  func sendAndBreak(_ chunks: [FileTransferV1.FileChunk], on loop: EventLoop) async throws {
    let call = try await files.upload()
    for chunk in chunks { try await call.send(chunk) }
    let id = chunks[0].fileID
    while try await files.queryUploadedChunks(.init(fileID: id)).offsets.count < chunks.count {
      try await loop.sleep(for: .milliseconds(10))
    }
    call.cancel()
  }

  /// Sends chunks over one stream and returns the answer.
  func send(_ chunks: [FileTransferV1.FileChunk]) async throws -> FileTransferV1.UploadStatus {
    let call = try await files.upload()
    for chunk in chunks {
      // A refused stream tells why at its end.
      do { try await call.send(chunk) } catch { break }
    }
    return try await call.finish()
  }

  /// The status that chunks are refused with.
  func refusal(of chunks: FileTransferV1.FileChunk...) async -> Status? {
    do {
      _ = try await send(chunks)
      return nil
    } catch {
      return error as? Status
    }
  }
}

/// Takes notices, or refuses them while it is told to.
final class Recorder: NoticeSender {
  var sent: [Notice] = []
  var failure: Status?

  func send(_ notice: Notice) async throws -> String? {
    if let failure { throw failure }
    sent.append(notice)
    return notice.file.job?.jobID
  }
}

/// A file's content and its chunks.
struct Content {
  let id: String
  let bytes: Bytes

  init(_ id: String, _ count: Int) {
    self.id = id
    var state: UInt64 = UInt64(count) &+ 88_172_645_463_325_252
    bytes = Bytes(capacity: count) { memory in
      for index in stride(from: 0, to: count, by: 8) {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        withUnsafeBytes(of: state) { word in
          UnsafeMutableRawBufferPointer(rebasing: memory[index..<min(index + 8, count)]).copyBytes(
            from: word.prefix(count - index))
        }
      }
      return count
    }
  }

  var md5: String { Digest.hex(of: bytes, .md5) }

  func chunk(_ offset: Int, _ length: Int, sum: Bool = true) -> FileTransferV1.FileChunk {
    let data = bytes[offset..<min(offset + length, bytes.count)]
    return FileTransferV1.FileChunk(
      fileID: id, offset: Int64(offset), totalSize: Int64(bytes.count), data: data,
      chunkMD5: sum ? Digest.hex(of: data, .md5) : "", isLast: offset + length >= bytes.count)
  }

  func chunks(of length: Int) -> [FileTransferV1.FileChunk] {
    stride(from: 0, to: bytes.count, by: length).map { chunk($0, length) }
  }
}
