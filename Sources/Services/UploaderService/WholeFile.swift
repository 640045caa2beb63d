internal import Bytes
internal import FileStore
internal import GRPC
internal import Protobuf
internal import Reactor
internal import Safeguards
internal import Schema
internal import Telemetry

/// A small file that its first message brings whole: there is nothing to go on with later, so it needs no journal and no
/// record of chunks; it is written, synced and named at once. A crash in between costs the one message.
extension UploadNode {
  /// - Parameters:
  ///   - record: as the claim returned it, at its first fence.
  ///   - chunk: `isWholeFile`.
  /// - Returns: the finished upload.
  func storeWhole(_ id: FileID, _ record: UploadRecord, _ chunk: CheckedChunk, askedAt: Int64) async throws
    -> ActiveUpload
  {
    FailPoint.reached(.claimed)
    let pen = UploadRecords.Pen(fence: record.fence, writer: instance)
    let lease = leases.add(id, pen, askedAt: askedAt)
    do {
      let finished = try await finish(id, record, chunk, lease)
      leases.forget(lease)
      let upload = ActiveUpload(finished: id, node: self, record: finished)
      upload.notice = finished.notice.flatMap { try? Notice(encoded: $0) }
      return upload
    } catch {
      await leases.release(lease)
      throw Status(storing: error)
    }
  }

  /// Its notice could not go out: a journal keeps it, as it does for other files, in case that Redis forgets it.
  func keepJournal(of id: FileID, _ pending: Outbox.Pending) async {
    guard let announced = pending.notice.file.notice else { return }
    var state = JournalState(size: announced.fileSize)
    state.declaredMD5 = announced.md5
    state.name = announced.fileName
    state.job = pending.notice.file.job.map { $0.serialized() }
    state.add([0..<announced.fileSize])
    let now = clock()
    do {
      try await pool.run { [store, state] in _ = try store.beginJournal(id, fence: pending.fence, state, now: now) }
    } catch {
      log.warning("notice not written down", ["file": id.text, "error": "\(error)"])
    }
  }

  private func finish(
    _ id: FileID, _ record: UploadRecord, _ chunk: CheckedChunk, _ lease: WriterLease
  ) async throws -> UploadRecord {
    let data = chunk.data
    await budget.take(data.count)
    defer { budget.give(data.count) }
    let md5 = await checks.md5(of: data)
    if let declared = chunk.md5, declared != md5 {
      throw Status(.dataLoss, "The chunk at 0 has MD5 \(md5), and was sent with \(declared).")
    }
    if let declared = record.declaredMD5, declared != md5 {
      _ = try await records.startAgain(id, lease.pen)
      throw Status(.dataLoss, "The file's MD5 is \(md5), and \(declared) was declared; it has to be sent again.")
    }
    try await outbox.index(id)
    FailPoint.reached(.noticeIndexed)
    let sidecar = Sidecar(
      name: record.name ?? id.text, size: record.size, digests: FileDigests(md5: md5, blockMD5s: [md5]),
      sha256: record.sha256, publishedAt: clock())
    if loop.now >= lease.end { throw ActiveUpload.leaseEnded }
    let fence = lease.pen.fence
    try await slowPool.run { [store] in
      let file = try store.createWhole(id, fence: fence, data)
      FailPoint.reached(.chunkWritten)
      try store.publish(id, fence: fence, file: file, sidecar: sidecar)
      try file.close()
    }
    let notice = Notice(id, sidecar, job: record.job)
    guard try await records.verified(id, lease.pen, md5: md5, notice: notice.encoded(), isWhole: true) == .ok else {
      throw ActiveUpload.moved
    }
    FailPoint.reached(.verified)
    metrics.receivedBytes.increment(by: data.count)
    metrics.finishedFiles.increment()
    log.info("file published", ["file": id.text, "bytes": record.size, "md5": md5])
    var finished = UploadRecord(finished: sidecar)
    (finished.state, finished.fence, finished.notice) = (.verified, fence, notice.encoded())
    return finished
  }
}

extension CheckedChunk {
  /// Larger ones are worth a journal.
  static let wholeFileBytes = 1 << 20

  /// Whether it is a whole small file, and nothing that its client may still tell could change what becomes of it.
  var isWholeFile: Bool {
    guard offset == 0, !data.isEmpty, data.count <= Self.wholeFileBytes, Int64(data.count) == declaration.size else {
      return false
    }
    return isLast || declaration.md5 != nil
  }
}
