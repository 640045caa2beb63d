internal import Bytes
internal import FileStore
internal import GRPC
internal import Reactor
internal import Schema

/// Answers `filetransfer.v1.FileTransferService`. Confined to the uploader's loop.
final class TransferHandler: FileTransferV1.FileTransferServiceHandler {
  private let uploads: Uploads
  private var node: UploadNode { uploads.node }

  init(uploads: Uploads) { self.uploads = uploads }

  func upload(
    _ requests: RequestStream<FileTransferV1.FileChunk>, _ context: ServerContext
  ) async throws -> FileTransferV1.UploadStatus {
    let stream = ChunkStream(uploads: uploads)
    var isAnswered = false
    defer { stream.leave(broken: !isAnswered) }
    while let chunk = try await requests.next() { try await stream.take(chunk) }
    let status = try await stream.finish()
    isAnswered = true
    return status
  }

  func transfer(
    _ requests: RequestStream<FileTransferV1.FileChunk>, _ responses: ResponseWriter<FileTransferV1.UploadEvent>,
    _ context: ServerContext
  ) async throws {
    let stream = ChunkStream(uploads: uploads)
    var isAnswered = false
    defer { stream.leave(broken: !isAnswered) }
    var progress: TransferProgress?
    defer { progress?.stop() }
    while let chunk = try await requests.next() {
      try await stream.take(chunk)
      if progress == nil, let upload = stream.upload {
        progress = TransferProgress(upload, responses)
        progress?.start()
      }
    }
    let status = try await stream.finish()
    isAnswered = true
    await progress?.stopAndWait()
    try await responses.write(FileTransferV1.UploadEvent(event: .done(status)))
  }

  func queryUploadedChunks(
    _ request: FileTransferV1.FileIdentifier, _ context: ServerContext
  ) async throws -> FileTransferV1.UploadedChunks {
    try await Status.translating {
      guard let record = try await self.node.record(of: try FileID(request.fileID)) else {
        return FileTransferV1.UploadedChunks()
      }
      return FileTransferV1.UploadedChunks(
        offsets: record.chunks.map(\.lowerBound), lengths: record.chunks.map { Int64($0.count) },
        totalSize: record.size, state: record.state.onTheWire)
    }
  }

  func queryUploadStatus(
    _ request: FileTransferV1.QueryUploadRequest, _ context: ServerContext
  ) async throws -> FileTransferV1.UploadBreakpoint {
    try await Status.translating {
      // Seed 002 knows a file by its digest; its clients use the digest as the id.
      let name = request.fileID.isEmpty ? request.fileMD5 : request.fileID
      let id = try FileID(name)
      guard let record = try await self.node.record(of: id) else { return FileTransferV1.UploadBreakpoint() }
      return FileTransferV1.UploadBreakpoint(
        hasBreakpoint: true, resumeOffset: ByteRanges(record.chunks).contiguousPrefix,
        uploadedChunks: record.chunks.enumerated().map { index, range in
          FileTransferV1.ChunkInfo(
            chunkIndex: Int32(clamping: index), chunkOffset: range.lowerBound, chunkLength: Int64(range.count))
        }, lastUpdateTime: record.updatedAt, fileID: id.text, totalSize: record.size, state: record.state.onTheWire)
    }
  }

  func checkFileIntegrity(
    _ request: FileTransferV1.FileIdentifier, _ context: ServerContext
  ) async throws -> FileTransferV1.FileIntegrityStatus {
    try await Status.translating {
      let id = try FileID(request.fileID)
      let claimed = try ChunkStream.digest(request.clientMD5, .md5, of: "client_md5")
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

extension UploadRecord.State {
  var onTheWire: FileTransferV1.UploadState {
    switch self {
    case .uploading: .uploading
    case .finalising: .finalising
    case .verified: .verified
    case .published: .published
    }
  }
}
