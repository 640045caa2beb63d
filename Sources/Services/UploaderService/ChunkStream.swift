internal import Bytes
internal import FileStore
internal import GRPC
internal import Protobuf
internal import Reactor
internal import Schema
internal import Telemetry

/// One `Upload` or `Transfer` stream of a file that this node writes: hands its chunks to the file's upload, several at a
/// time, so that they can be checked together.
final class ChunkStream {
  private let uploads: Uploads
  private let session: SessionLock
  let upload: ActiveUpload
  private var underWay = 0
  private var failure: Status?
  private let changes = Changes()
  private var hasLeft = false

  /// - Parameter upload: entered by the caller; `leave` leaves it.
  init(_ upload: ActiveUpload, _ session: SessionLock, uploads: Uploads) {
    self.upload = upload
    self.session = session
    self.uploads = uploads
  }

  /// Begins to take a chunk; waits while there are too many of them.
  ///
  /// - Throws: what an earlier chunk was refused with.
  func take(_ chunk: CheckedChunk) async throws {
    if let resume = chunk.resumeOffset { try check(resume) }
    let limits = uploads.node.limits
    while underWay >= limits.chunksUnderWayPerStream, failure == nil { await changes.next() }
    await upload.budget.take(chunk.data.count)
    await uploads.node.budget.take(chunk.data.count)
    underWay += 1
    guard failure == nil else {
      done(with: chunk, nil)
      throw failure ?? ActiveUpload.closed
    }
    uploads.node.metrics.bytesInFlight.set(uploads.node.budget.used)
    upload.node.loop.spawn {
      do {
        try await self.upload.take(
          chunk.data, at: chunk.offset, totalSize: chunk.totalSize, md5: chunk.md5, of: self.session)
        self.done(with: chunk, nil)
      } catch {
        self.done(with: chunk, Status(storing: error))
      }
    }
  }

  private func done(with chunk: CheckedChunk, _ refusal: Status?) {
    upload.budget.give(chunk.data.count)
    uploads.node.budget.give(chunk.data.count)
    uploads.node.metrics.bytesInFlight.set(uploads.node.budget.used)
    underWay -= 1
    if let refusal {
      uploads.node.metrics.refusedChunks.increment()
      failure = failure ?? refusal
    }
    changes.signal()
  }

  /// A later message that brings a declaration.
  func declare(_ declaration: Declaration) async throws {
    try await uploads.declareMore(upload, declaration, session)
  }

  private func check(_ resumeOffset: Int64) throws {
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
    while underWay > 0 { await changes.next() }
    if let failure { throw failure }
    let outcome: UploadOutcome
    do {
      outcome = try await upload.finish()
    } catch {
      throw Status(storing: error)
    }
    var status = FileTransferV1.UploadStatus(fileID: upload.id.text, totalSize: upload.state.size)
    switch outcome {
    case .complete(let md5):
      status.success = true
      status.message = md5
      status.md5 = md5
      status.jobID = await uploads.publish(upload) ?? ""
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

  /// Has to be called, however the stream ended; again is nothing.
  func leave(broken: Bool) {
    guard !hasLeft else { return }
    hasLeft = true
    uploads.leave(upload, broken: broken)
  }
}
