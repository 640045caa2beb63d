import Bytes
import FileStore
import Foundation
import GRPC
import Reactor
import Schema
import Synchronization
import Testing
import UploadClient

@testable import PushControl

/// A gateway and an uploader in one, which do what a test says, on the loop of the test.
final class FakeServers {
  private let loop: EventLoop
  private var server: Server?
  private(set) var address = HostPort(host: "127.0.0.1", port: 0)

  /// What was uploaded, by file id; each byte that came, at its place.
  private(set) var files: [String: [Int64: Bytes]] = [:]
  private(set) var metas: [FileTransferV1.FileMeta] = []
  private(set) var chunksSent = 0
  /// After so many chunks with bytes the next stream breaks.
  var breakAfter: Int?
  /// Submitted, in order.
  private(set) var jobs: [PushV1.Job] = []
  var submitFailures: [Status] = []
  /// What `Get` pages through and `Watch` sends, one after the other.
  var statuses: [PushV1.JobStatus] = []
  private(set) var cancellations: [PushV1.CancelJobRequest] = []
  var clients: [PushV1.ClientInfo] = []
  var nodes: [PushV1.NodeInfo] = []
  /// What each `WatchClients` sends before it ends with its status.
  var watches: [(events: [PushV1.ClientEvent], end: Status)] = []
  /// What `Drain` was asked for, and what it answers.
  private(set) var drains: [PushV1.DrainRequest] = []
  var drainProgress: [PushV1.DrainProgress] = []

  init(_ loop: EventLoop) { self.loop = loop }

  func start() async throws {
    var router = Router()
    router.bidirectional(FileTransferV1.FileTransferService.transfer) { [unowned self] requests, responses, _ in
      let status = try await take(requests) { try await responses.write(.init(event: .received(.init(bytes: $0)))) }
      try await responses.write(.init(event: .done(status)))
    }
    router.clientStreaming(FileTransferV1.FileTransferService.upload) { [unowned self] requests, _ in
      try await take(requests) { _ in }
    }
    router.unary(FileTransferV1.FileTransferService.queryUploadedChunks) { [unowned self] request, _ in
      let chunks = (files[request.fileID] ?? [:]).sorted { $0.key < $1.key }
      return .init(offsets: chunks.map(\.key), lengths: chunks.map { Int64($0.value.count) })
    }
    router.unary(PushV1.JobService.submit) { [unowned self] request, _ in
      if !submitFailures.isEmpty { throw submitFailures.removeFirst() }
      guard let job = request.job else { throw Status(.invalidArgument, "no job") }
      jobs.append(job)
      return .init(jobID: job.jobID, targetCount: Int64(job.targets?.clientIDs.count ?? 0))
    }
    router.unary(PushV1.JobService.get) { [unowned self] request, _ in
      let page = Int(request.pageToken) ?? 0
      guard page < statuses.count else { throw Status(.notFound, "There is no such job.") }
      var status = statuses[page]
      status.nextPageToken = page + 1 < statuses.count ? String(page + 1) : ""
      return status
    }
    router.unary(PushV1.JobService.cancel) { [unowned self] request, _ in
      cancellations.append(request)
      guard let status = statuses.first else { throw Status(.notFound, "There is no such job.") }
      return status
    }
    router.serverStreaming(PushV1.JobService.watch) { [unowned self] _, responses, _ in
      for status in statuses { try await responses.write(status) }
    }
    router.unary(PushV1.DirectoryService.listClients) { [unowned self] request, _ in
      let index = Int(request.pageToken) ?? 0
      let next = index + 1 < clients.count ? String(index + 1) : ""
      return .init(clients: clients.isEmpty ? [] : [clients[index]], nextPageToken: next)
    }
    router.unary(PushV1.DirectoryService.listNodes) { [unowned self] _, _ in .init(nodes: nodes) }
    router.serverStreaming(PushV1.DirectoryService.watchClients) { [unowned self] _, responses, _ in
      guard !watches.isEmpty else { throw Status(.unimplemented, "no more") }
      let watch = watches.removeFirst()
      for event in watch.events { try await responses.write(event) }
      throw watch.end
    }
    router.serverStreaming(PushV1.NodeService.drain) { [unowned self] request, responses, _ in
      drains.append(request)
      for progress in drainProgress { try await responses.write(progress) }
    }
    let server = Server(loop: loop, router: router)
    self.server = server
    address = HostPort(host: "127.0.0.1", port: try await server.listen(on: address).port)
  }

  func stop() async { await server?.shutdown(grace: .zero) }

  private func take(
    _ requests: RequestStream<FileTransferV1.FileChunk>, received: (Int64) async throws -> Void
  ) async throws -> FileTransferV1.UploadStatus {
    var id = ""
    var total: Int64 = 0
    var taken = 0
    while let chunk = try await requests.next() {
      id = chunk.fileID
      total = chunk.totalSize
      if let meta = chunk.meta { metas.append(meta) }
      guard !chunk.data.isEmpty else { continue }
      if taken == breakAfter {
        breakAfter = nil
        throw Status(.unavailable, "the uploader breaks the stream")
      }
      taken += 1
      chunksSent += 1
      #expect(chunk.chunkMD5 == Digest.hex(of: chunk.data, .md5))
      files[id, default: [:]][chunk.offset] = chunk.data
      try await received(chunk.offset + Int64(chunk.data.count))
    }
    let there = ByteRanges((files[id] ?? [:]).map { $0.key..<($0.key + Int64($0.value.count)) })
    let missing = there.gaps(upTo: total)
    let md5 = Digest.hex(of: content(id), .md5)
    return .init(
      success: missing.isEmpty, message: missing.isEmpty ? md5 : "bytes are missing", fileID: id,
      md5: missing.isEmpty ? md5 : "", totalSize: total,
      missing: missing.map { .init(offset: $0.lowerBound, length: Int64($0.count)) })
  }

  func content(_ id: String) -> Bytes {
    Bytes((files[id] ?? [:]).sorted { $0.key < $1.key }.flatMap { $0.value.array })
  }
}

/// Runs a story with a fake server on one loop, and a `Control` that prints into `Printed`.
func scene(
  json: Bool = true, servers count: Int = 1,
  _ body: @escaping @Sendable (EventLoop, [FakeServers], (ControlOptions) -> Control, Printed) async throws -> Void
) async throws {
  let loop = try EventLoop.start(name: "test")
  defer { loop.stop() }
  try await loop.run {
    var servers: [FakeServers] = []
    for _ in 0..<count {
      let server = FakeServers(loop)
      try await server.start()
      servers.append(server)
    }
    let printed = Printed()
    let terminal = Terminal(
      print: { printed.results.append($0) }, draw: { printed.drawn.append($0) }, canRedraw: true)
    try await body(loop, servers, { Control(loop: loop, options: $0, terminal: terminal) }, printed)
    for server in servers { await server.stop() }
  }
}

extension ControlOptions {
  /// Both kinds at the same addresses, with short pauses.
  init(_ servers: [HostPort], json: Bool = true) {
    self.init(gateways: servers, uploaders: servers, printsJSON: json)
    pause = .milliseconds(5)
    uploads.firstPause = .milliseconds(5)
    uploads.patience = .seconds(2)
  }
}

/// What a command printed.
final class Printed: Sendable {
  final class Lines: Sendable {
    private let lines = Mutex<[String]>([])
    func append(_ line: String) { lines.withLock { $0.append(line) } }
    var all: [String] { lines.withLock { $0 } }
    var joined: String { all.joined() }
  }
  let results = Lines()
  let drawn = Lines()

  /// The only result, as JSON.
  func json() throws -> [String: Any] {
    try #require(results.all.count == 1)
    let value = try JSONSerialization.jsonObject(with: Data(results.all[0].utf8))
    return try #require(value as? [String: Any])
  }
}

/// A file of so many bytes that is gone when the test ends.
func withFile(_ count: Int, _ body: (String, Bytes) async throws -> Void) async throws {
  let bytes = Bytes((0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 9) })
  let path = NSTemporaryDirectory() + "pushctl-\(UUID().uuidString).bin"
  #expect(FileManager.default.createFile(atPath: path, contents: Data(bytes.array)))
  defer { try? FileManager.default.removeItem(atPath: path) }
  try await body(path, bytes)
}
