internal import Bytes
internal import FileStore
internal import GRPC
internal import Protobuf
internal import Schema
internal import Telemetry

/// One `Upload` or `Transfer` stream: reads chunks, checks what they say, and hands them to the file's upload.
final class ChunkStream {
  private let uploads: Uploads
  private var id: FileID?
  private(set) var upload: ActiveUpload?
  private var failuresBefore = 0

  init(uploads: Uploads) { self.uploads = uploads }

  func take(_ chunk: FileTransferV1.FileChunk) async throws {
    do {
      try await takeChecked(chunk)
    } catch {
      uploads.node.metrics.refusedChunks.increment()
      throw Status(storing: error)
    }
  }

  private func takeChecked(_ chunk: FileTransferV1.FileChunk) async throws {
    let id = try identify(chunk)
    var declaration = try chunk.meta.map { try Declaration($0) } ?? Declaration()
    if chunk.totalSize < 0 { throw Status(.invalidArgument, "The total size is negative.") }
    if chunk.totalSize > 0 {
      if let size = declaration.size, size != chunk.totalSize {
        throw Status(.failedPrecondition, "The chunk says \(chunk.totalSize) bytes in total, and its meta \(size).")
      }
      declaration.size = chunk.totalSize
    }
    if declaration.size == nil, chunk.isLast, chunk.offset == 0, chunk.data.isEmpty { declaration.size = 0 }
    let md5 = try Self.digest(chunk.chunkMD5, .md5, of: "chunk_md5")
    let upload = try await enter(id, declaration, chunk)
    if let resume = chunk.meta?.resumeOffset { try check(resume, upload) }
    try await upload.take(chunk.data, at: chunk.offset, totalSize: chunk.totalSize, md5: md5)
  }

  private func identify(_ chunk: FileTransferV1.FileChunk) throws -> FileID {
    if let id, chunk.fileID.isEmpty || chunk.fileID == id.text { return id }
    guard self.id == nil else {
      throw Status(.invalidArgument, "A stream carries one file; another one needs another stream.")
    }
    let id = try FileID(chunk.fileID)
    self.id = id
    return id
  }

  /// The first chunk opens the file; later ones may bring what was not declared before.
  private func enter(
    _ id: FileID, _ declaration: Declaration, _ chunk: FileTransferV1.FileChunk
  ) async throws -> ActiveUpload {
    if let upload {
      guard chunk.meta != nil else { return upload }
      if case .complete = upload.state.phase {} else { _ = try await uploads.node.declare(id, declaration) }
      try upload.state.declare(size: declaration.size, md5: declaration.md5)
      return upload
    }
    if let size = declaration.size {
      // Before anything is recorded: a first chunk that can't be right must not fix the size of the file.
      try Upload.checkSize(size)
      var probe = Upload(size: size, now: 0)
      let arrival = probe.arrived(
        .init(offset: chunk.offset, length: Int64(chunk.data.count), totalSize: chunk.totalSize))
      if case .refused(let refusal) = arrival { throw refusal }
    }
    let upload = try await uploads.join(id, declaration)
    self.upload = upload
    failuresBefore = upload.failures.count
    return upload
  }

  private func check(_ resumeOffset: Int64, _ upload: ActiveUpload) throws {
    guard resumeOffset >= 0, resumeOffset <= upload.state.size else {
      throw Status(.invalidArgument, "The offset to go on from, \(resumeOffset), is outside of the file.")
    }
    let prefix = upload.state.durable.contiguousPrefix
    guard resumeOffset <= prefix else {
      throw Status(.failedPrecondition, "Only the first \(prefix) bytes are there; go on from there.")
    }
  }

  /// The stream has ended: the answer.
  func finish() async throws -> FileTransferV1.UploadStatus {
    guard let upload else { throw Status(.invalidArgument, "The stream ended without a chunk.") }
    let outcome: UploadOutcome
    do {
      outcome = try await upload.finish(failuresBefore: failuresBefore)
    } catch {
      throw Status(storing: error)
    }
    var status = FileTransferV1.UploadStatus(fileID: upload.id.text, totalSize: upload.state.size)
    switch outcome {
    case .complete(let md5):
      status.success = true
      status.message = md5
      status.md5 = md5
      status.jobID = await uploads.node.outbox.publishWithinLimit(upload.id) ?? ""
    case .incomplete(let missing):
      let bytes = missing.reduce(0) { $0 + Int64($1.count) }
      status.message = "The upload is incomplete: \(bytes) of \(upload.state.size) bytes are missing"
      if let first = missing.first { status.message += ", the first at \(first.lowerBound)" }
      status.message += "."
      status.missing = missing.prefix(uploads.node.limits.missingRangesInAnswer).map {
        FileTransferV1.ByteRange(offset: $0.lowerBound, length: Int64($0.count))
      }
    }
    return status
  }

  /// Has to be called once, however the stream ended.
  func leave(broken: Bool) {
    guard let upload else { return }
    self.upload = nil
    uploads.leave(upload, broken: broken)
  }

  static func digest(_ text: String, _ algorithm: Digest.Algorithm, of field: String) throws(Status) -> String? {
    guard !text.isEmpty else { return nil }
    guard let digest = Digest.normalised(text, algorithm) else {
      throw Status(.invalidArgument, "\(field) is not a digest of \(algorithm.hexLength) hexadecimal digits.")
    }
    return digest
  }
}

extension Declaration {
  /// What a client says of the whole file, checked.
  init(_ meta: FileTransferV1.FileMeta) throws {
    if meta.totalSize < 0 { throw Status(.invalidArgument, "The total size is negative.") }
    size = meta.totalSize > 0 ? meta.totalSize : nil
    name = meta.fileName.isEmpty ? nil : try FileName(lastComponentOf: meta.fileName).text
    md5 = try ChunkStream.digest(meta.fileMD5, .md5, of: "file_md5")
    sha256 = try ChunkStream.digest(meta.sha256, .sha256, of: "sha256")
    job = meta.job.map { $0.serialized() }
  }
}
