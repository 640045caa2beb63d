import Bytes
import FileStore
import Foundation
import GRPC
import Reactor
import Redis
import Schema
import Telemetry
import TestSupport
import Testing

@testable import UploadClient
@testable import UploaderService

/// A redis-server, a store and a loop, on which uploaders and clients of a test live.
final class Site: Sendable {
  let redis: RedisServer
  let folder: String
  let loop: EventLoop

  init() throws {
    redis = try RedisServer()
    folder = try temporaryDirectory("upload-client")
    loop = try EventLoop.start(name: "test")
  }

  deinit {
    loop.stop()
    removeDirectory(folder)
  }

  func run(_ story: @escaping @Sendable (Site) async throws -> Void) async throws {
    try await loop.run { try await story(self) }
  }

  func uploader(
    _ name: String = "one", _ adapt: (inout UploadLimits) -> Void = { _ in }
  ) async throws -> (server: UploaderServer, address: HostPort) {
    var settings = UploaderServer.Settings(
      listen: HostPort(host: "127.0.0.1", port: 0), name: name, store: folder + "/store")
    settings.grace = .milliseconds(50)
    adapt(&settings.limits)
    let (server, address) = try await UploaderServer.start(
      settings, redis: RedisClient(loop: loop, address: try RedisAddress(redis.address)), sender: NoNotices(),
      loop: loop, registry: MetricsRegistry(), log: .silent)
    return (server, HostPort(host: "127.0.0.1", port: address.port))
  }

  func client(_ addresses: HostPort..., adapt: (inout UploadOptions) -> Void = { _ in }) -> UploadClient {
    var options = UploadOptions()
    options.firstPause = .milliseconds(5)
    options.patience = .seconds(20)
    options.progressInterval = .milliseconds(2)
    adapt(&options)
    return UploadClient(loop: loop, uploaders: addresses, options: options)
  }

  /// Makes a file of so many bytes that look random.
  func file(_ name: String, _ count: Int) throws -> (path: String, md5: String) {
    let bytes = Bytes(capacity: count) { memory in
      var state = UInt64(count) &+ 88_172_645_463_325_252
      for start in stride(from: 0, to: count, by: 8) {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        withUnsafeBytes(of: state) { word in
          UnsafeMutableRawBufferPointer(rebasing: memory[start..<min(count, start + 8)])
            .copyMemory(from: UnsafeRawBufferPointer(rebasing: word[..<min(8, count - start)]))
        }
      }
      return count
    }
    let path = "\(folder)/\(name)"
    try FileManager.default.createDirectory(
      atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
    try Data(bytes.array).write(to: URL(fileURLWithPath: path))
    return (path, Digest.hex(of: bytes, .md5))
  }

  /// The MD5 of a file in the store.
  func stored(_ id: String) async throws -> String {
    let path = folder + "/store"
    return try await BlockingPool.shared.run {
      let file = try StoreDirectory(at: path).open(try FileID(id)).file
      return Digest.hex(of: try file.read(at: 0, length: Int(try file.size())), .md5)
    }
  }
}

private final class NoNotices: NoticeSender {
  func send(_ notice: Notice) async throws -> String? { nil }
}

/// What an upload failed with.
func failure(_ body: () async throws -> some Any) async -> UploadError? {
  do {
    _ = try await body()
    return nil
  } catch {
    return error as? UploadError
  }
}

/// An uploader that answers every stream with a status.
final class Refuser {
  private var server: Server?
  private(set) var calls = 0
  private(set) var routed: [String?] = []

  func start(_ loop: EventLoop, with status: Status) async throws -> HostPort {
    var router = Router()
    router.unary(FileTransferV1.FileTransferService.queryUploadedChunks) { [unowned self] _, context in
      routed.append(context.metadata["x-file-id"])
      return .init()
    }
    router.bidirectional(FileTransferV1.FileTransferService.transfer) { [unowned self] _, _, context in
      calls += 1
      routed.append(context.metadata["x-file-id"])
      throw status
    }
    router.clientStreaming(FileTransferV1.FileTransferService.upload) { [unowned self] _, context in
      calls += 1
      routed.append(context.metadata["x-file-id"])
      throw status
    }
    let server = Server(loop: loop, router: router)
    self.server = server
    let address = try await server.listen(on: HostPort(host: "127.0.0.1", port: 0))
    return HostPort(host: "127.0.0.1", port: address.port)
  }

  func stop() async { await server?.shutdown(grace: .zero) }
}
