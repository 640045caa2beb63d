internal import FileStore
internal import GRPC
internal import Reactor
internal import Schema

/// What clients ask before they go on. Any node answers: from Redis; for what Redis doesn't know from the sidecar of a
/// finished file or the journal of an upload.
extension UploadNode {
  func record(of id: FileID) async throws -> UploadRecord? {
    if let record = try await records.load(id) { return record }
    let oldest = clock() - limits.recordLifetime.wholeMilliseconds
    return try await pool.run { [store] in
      if let sidecar = try store.sidecarIfFinished(id) { return UploadRecord(finished: sidecar) }
      guard let journal = try store.journalState(of: id), journal.writtenAt > oldest else { return nil }
      return UploadRecord(journal: journal)
    }
  }

  func uploadedChunks(of id: FileID) async throws -> FileTransferV1.UploadedChunks {
    guard let record = try await record(of: id) else { return FileTransferV1.UploadedChunks() }
    return FileTransferV1.UploadedChunks(
      offsets: record.chunks.map(\.lowerBound), lengths: record.chunks.map { Int64($0.count) },
      totalSize: record.size, state: record.state.onTheWire)
  }

  func breakpoint(_ request: FileTransferV1.QueryUploadRequest) async throws -> FileTransferV1.UploadBreakpoint {
    guard request.fromOffset >= 0 else { throw Status(.invalidArgument, "The offset is negative.") }
    let id = try await id(of: request)
    guard let record = try await record(of: id) else { return FileTransferV1.UploadBreakpoint() }
    guard request.fromOffset <= record.size else {
      throw Status(.invalidArgument, "The offset \(request.fromOffset) is outside of the file's \(record.size) bytes.")
    }
    let durable = ByteRanges(record.chunks)
    let blocks = (0..<BlockDigests.count(ofSize: record.size)).compactMap { index -> FileTransferV1.ChunkInfo? in
      let range = BlockDigests.range(index, ofSize: record.size)
      guard durable.contains(range) else { return nil }
      return FileTransferV1.ChunkInfo(
        chunkIndex: Int32(clamping: index), chunkMD5: record.blocks[index] ?? "", chunkOffset: range.lowerBound,
        chunkLength: Int64(range.count))
    }
    return FileTransferV1.UploadBreakpoint(
      hasBreakpoint: true, resumeOffset: durable.contiguousPrefix, uploadedChunks: blocks,
      lastUpdateTime: record.updatedAt, fileID: id.text, totalSize: record.size, state: record.state.onTheWire,
      continueOffset: durable.firstMissing(from: request.fromOffset))
  }

  /// A file is known by its id, by the MD5 that was declared for it, or by an id that is its MD5 (as clients of seed 002
  /// name their files).
  private func id(of request: FileTransferV1.QueryUploadRequest) async throws -> FileID {
    if !request.fileID.isEmpty { return try FileID(request.fileID) }
    guard let md5 = Digest.normalised(request.fileMD5, .md5) else { return try FileID(request.fileMD5) }
    let named = try FileID(request.fileMD5)
    guard let id = try await records.id(ofMD5: md5), id != named else { return named }
    return try await records.load(named) == nil ? id : named
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
