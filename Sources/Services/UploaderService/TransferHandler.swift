internal import Bytes
internal import FileStore
internal import GRPC
internal import Reactor
internal import Schema
internal import Telemetry

/// Answers `filetransfer.v1.FileTransferService`. Confined to the uploader's loop.
final class TransferHandler: FileTransferV1.FileTransferServiceHandler {
  typealias Chunk = FileTransferV1.FileChunk

  private let uploads: Uploads
  private var node: UploadNode { uploads.node }

  init(uploads: Uploads) { self.uploads = uploads }

  // MARK: Chunks

  func upload(
    _ requests: RequestStream<Chunk>, _ context: ServerContext
  ) async throws -> FileTransferV1.UploadStatus {
    let first = try await first(of: requests)
    switch try await enter(first, context) {
    case .elsewhere(let channel):
      return try await RelayedStream(channel: channel, requests: requests, context: context).upload(first)
    case .here(let stream):
      var isAnswered = false
      defer { stream.leave(broken: !isAnswered) }
      try await take(first, requests, stream) {}
      let status = try await stream.finish()
      isAnswered = true
      return status
    }
  }

  func transfer(
    _ requests: RequestStream<Chunk>, _ responses: ResponseWriter<FileTransferV1.UploadEvent>, _ context: ServerContext
  ) async throws {
    let first = try await first(of: requests)
    switch try await enter(first, context) {
    case .elsewhere(let channel):
      try await RelayedStream(channel: channel, requests: requests, context: context).transfer(first, responses)
    case .here(let stream):
      var isAnswered = false
      defer { stream.leave(broken: !isAnswered) }
      let progress = TransferProgress(stream.upload, responses)
      defer { progress.stop() }
      try await take(first, requests, stream) { progress.start() }
      let status = try await stream.finish()
      isAnswered = true
      await progress.stopAndWait()
      try await responses.write(FileTransferV1.UploadEvent(event: .done(status)))
    }
  }

  private func first(of requests: RequestStream<Chunk>) async throws -> Chunk {
    guard let first = try await requests.next() else {
      throw Status(.invalidArgument, "The stream ended without a chunk.")
    }
    return first
  }

  private enum Entrance {
    case here(ChunkStream)
    case elsewhere(Channel)
  }

  private func enter(_ first: Chunk, _ context: ServerContext) async throws -> Entrance {
    try await refusing {
      let id = try FileID(first.fileID)
      let chunk = try CheckedChunk(first)
      try chunk.checkAsFirst()
      let name = first.meta?.sessionID ?? ""
      guard name.utf8.count <= SessionLock.maximumBytes else {
        throw Status(.invalidArgument, "The name of the session is longer than \(SessionLock.maximumBytes) bytes.")
      }
      let session = SessionLock(name, lifetime: node.limits.sessionLifetime)
      let isRelayed = RelayedStream.isRelayed(context)
      switch try await uploads.enter(id, chunk, session, isRelayed: isRelayed) {
      case .here(let upload): return .here(ChunkStream(upload, session, uploads: uploads))
      case .elsewhere(let channel): return .elsewhere(channel)
      }
    }
  }

  /// Takes all chunks of a stream.
  ///
  /// - Parameter begun: called when the first one was taken.
  private func take(
    _ first: Chunk, _ requests: RequestStream<Chunk>, _ stream: ChunkStream, begun: () -> Void
  ) async throws {
    try await refusing { try await stream.take(try CheckedChunk(first)) }
    begun()
    let id = first.fileID
    while let next = try await requests.next() {
      try await refusing {
        guard next.fileID.isEmpty || next.fileID == id else {
          throw Status(.invalidArgument, "A stream carries one file; another one needs another stream.")
        }
        let chunk = try CheckedChunk(next)
        if chunk.hasMeta { try await stream.declare(chunk.declaration) }
        try await stream.take(chunk)
      }
    }
  }

  /// Counts what is refused, and says it as a status.
  private func refusing<T>(_ body: () async throws -> T) async throws -> T {
    do {
      return try await body()
    } catch {
      node.metrics.refusedChunks.increment()
      throw Status(storing: error)
    }
  }

  // MARK: Questions

  func queryUploadedChunks(
    _ request: FileTransferV1.FileIdentifier, _ context: ServerContext
  ) async throws -> FileTransferV1.UploadedChunks {
    try await Status.translating { try await self.node.uploadedChunks(of: try FileID(request.fileID)) }
  }

  func queryUploadStatus(
    _ request: FileTransferV1.QueryUploadRequest, _ context: ServerContext
  ) async throws -> FileTransferV1.UploadBreakpoint {
    try await Status.translating { try await self.node.breakpoint(request) }
  }

  func checkFileIntegrity(
    _ request: FileTransferV1.FileIdentifier, _ context: ServerContext
  ) async throws -> FileTransferV1.FileIntegrityStatus {
    try await Status.translating {
      let id = try FileID(request.fileID)
      let claimed = try CheckedChunk.digest(request.clientMD5, .md5, of: "client_md5")
      return try await self.node.checkIntegrity(of: id, against: claimed)
    }
  }
}

extension Status {
  /// Runs `body` and turns what it throws into a status.
  static func translating<T>(_ body: () async throws -> T) async throws(Status) -> T {
    do {
      return try await body()
    } catch {
      throw Status(storing: error)
    }
  }
}
