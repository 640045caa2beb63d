import Bytes
import FileStore
import GRPC
import Glibc
import Reactor
import Redis
import Schema
import Telemetry
import TestSupport

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

  func uploader(_ name: String = "one", _ adapt: (inout UploadLimits) -> Void = { _ in }) async throws -> Node {
    var settings = UploaderServer.Settings(listen: HostPort(host: "127.0.0.1", port: 0), name: name, store: store)
    settings.grace = .milliseconds(200)
    adapt(&settings.limits)
    let sender = Recorder()
    let (server, address) = try await UploaderServer.start(
      settings, redis: try client(), sender: sender, loop: loop, registry: MetricsRegistry(),
      log: getenv("FLEETPUSH_TEST_LOG") == nil ? .silent : Logger(name, level: .debug))
    let channel = Channel(loop: loop, target: HostPort(host: "127.0.0.1", port: address.port))
    return Node(server: server, channel: channel, sender: sender)
  }
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
      for index in 0..<count {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        memory[index] = UInt8(truncatingIfNeeded: state)
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
