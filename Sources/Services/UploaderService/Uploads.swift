internal import FileStore
internal import GRPC
internal import Reactor
internal import Telemetry

/// The files that this node is taking in, by id. Confined to the loop.
final class Uploads {
  let node: UploadNode
  private var active: [FileID: ActiveUpload] = [:]
  /// Ids that are being opened, so that streams which come together share one object.
  private var opening: Set<FileID> = []
  private let changes = Changes()

  init(node: UploadNode) { self.node = node }

  /// Enters a stream to a file's upload, opening it when it isn't; `leave` has to follow.
  ///
  /// Redis is asked each time: another node may have finished the file, or begun it again.
  func join(_ id: FileID, _ declaration: Declaration) async throws -> ActiveUpload {
    while opening.contains(id) { await changes.next() }
    opening.insert(id)
    defer {
      opening.remove(id)
      changes.signal()
    }
    let record = try await declare(id, declaration)
    if let upload = active[id] {
      guard upload.streams < node.limits.streamsPerUpload else {
        throw Status(.resourceExhausted, "The file has \(upload.streams) streams, as many as a file may have.")
      }
      upload.streams += 1
      do { try await upload.meet(record, declaration) } catch {
        leave(upload)
        throw error
      }
      return upload
    }
    return try await open(id, record)
  }

  private func open(_ id: FileID, _ declared: UploadRecord) async throws -> ActiveUpload {
    guard active.count < node.limits.openUploads else {
      throw Status(.resourceExhausted, "\(active.count) files are being uploaded here, as many as there may be.")
    }
    let upload: ActiveUpload
    if declared.isDone {
      upload = ActiveUpload(id, node: node, record: declared, file: nil)
    } else {
      guard let record = try await node.records.load(id) else { throw ActiveUpload.recordIsGone }
      let opened = try await node.openPart(id, record)
      upload = ActiveUpload(id, node: node, record: opened.record, file: opened.file)
    }
    upload.streams = 1
    active[id] = upload
    node.metrics.openUploads.set(active.count)
    return upload
  }

  /// Tells Redis what the client says; the first client's word stands.
  private func declare(_ id: FileID, _ declaration: Declaration) async throws -> UploadRecord {
    if let record = try await recordOfFinishedFile(id, declaration) { return record }
    return try await node.declare(id, declaration)
  }

  /// A file that was finished before the record of its upload expired is complete, and stays as it is.
  private func recordOfFinishedFile(_ id: FileID, _ declaration: Declaration) async throws -> UploadRecord? {
    guard try await node.records.load(id) == nil else { return nil }
    guard let sidecar = try await node.sidecar(of: id) else { return nil }
    if let size = declaration.size, size != sidecar.size {
      throw Status(.failedPrecondition, "The file id belongs to a finished file of \(sidecar.size) bytes.")
    }
    if let md5 = declaration.md5, md5 != sidecar.md5 {
      throw Status(.failedPrecondition, "The file id belongs to a finished file with MD5 \(sidecar.md5).")
    }
    return UploadRecord(finished: sidecar)
  }

  /// A stream has ended. Without streams the file stays open for a while, for the next one.
  ///
  /// - Parameter broken: the stream ended without an answer. When it brought the last byte, the file is finalised all the
  ///   same: an upload is over when every byte is there.
  func leave(_ upload: ActiveUpload, broken: Bool = false) {
    upload.streams -= 1
    guard upload.streams == 0 else { return }
    if case .complete = upload.state.phase { return remove(upload) }
    upload.startSync()
    closeWhenIdle(upload)
    guard broken, upload.state.writtenBytes == upload.state.size else { return }
    node.loop.spawn { await self.finishUnattended(upload) }
  }

  private func finishUnattended(_ upload: ActiveUpload) async {
    upload.streams += 1
    do {
      if case .complete = try await upload.finish(failuresBefore: upload.failures.count) {
        try await node.outbox.publish(upload.id)
      }
    } catch {
      node.log.warning("upload not finished", ["file": upload.id.text, "error": "\(error)"])
    }
    leave(upload)
  }

  private func closeWhenIdle(_ upload: ActiveUpload) {
    let lastProgress = upload.state.lastProgress
    node.loop.schedule(after: node.limits.idleBeforeClose) { [weak self, weak upload] in
      guard let self, let upload, upload.streams == 0, active[upload.id] === upload else { return }
      if upload.state.isQuiet, upload.state.phase != .finalising, upload.state.lastProgress == lastProgress {
        remove(upload)
      } else {
        upload.startSync()
        closeWhenIdle(upload)
      }
    }
  }

  private func remove(_ upload: ActiveUpload) {
    guard active[upload.id] === upload else { return }
    active[upload.id] = nil
    node.metrics.openUploads.set(active.count)
    upload.close()
  }

  /// Finishes a file whose finaliser died, or whose client never came back to hear of it. Called by the relay.
  func finaliseAbandoned(_ id: FileID) async throws {
    let upload = try await join(id, Declaration())
    defer { leave(upload) }
    if case .complete = try await upload.finish(failuresBefore: upload.failures.count) {
      try await node.outbox.publish(id)
    }
  }

  /// Syncs and closes everything, for the end of the process. Streams have ended before.
  func drain() async {
    for upload in active.values {
      while !upload.state.isQuiet, upload.file != nil {
        upload.startSync()
        await upload.changes.next()
      }
      remove(upload)
    }
  }
}

extension UploadNode {
  /// Tells Redis what a client says, and turns a contradiction into its status.
  func declare(_ id: FileID, _ declaration: Declaration) async throws -> UploadRecord {
    switch try await records.declare(id, declaration) {
    case .record(let record): return record
    case .absent: throw Status(.invalidArgument, "The first chunk of a file has to tell its total size.")
    case .otherSize(let size):
      throw Status(.failedPrecondition, "The file was begun with \(size) bytes, and is declared with another size now.")
    case .otherMD5(let md5):
      throw Status(.failedPrecondition, "The file was declared with MD5 \(md5), and is declared with another one now.")
    }
  }

  func sidecar(of id: FileID) async throws -> Sidecar? {
    do {
      return try await pool.run { [store] in try store.sidecar(of: id) }
    } catch let error as FileStoreError where error.code == .notFound {
      return nil
    }
  }

  /// Opens the part file of a record. Where bytes were recorded and the file is lost, the upload is begun again.
  func openPart(_ id: FileID, _ record: UploadRecord) async throws -> (record: UploadRecord, file: StoreFile?) {
    if record.isDone { return (record, nil) }
    let (fence, size) = (record.fence, record.size)
    guard record.durableBytes > 0 || record.state == .finalising else {
      let file = try await pool.run { [store] in try store.createPart(id, fence: fence, size: size) }
      return (record, file)
    }
    do {
      return (record, try await pool.run { [store] in try store.openPart(id, fence: fence) })
    } catch let error as FileStoreError where error.code == .notFound {
      // A finaliser may have given it its final name already: it is the finaliser's, or its successor's, to go on.
      if record.state == .finalising { return (record, nil) }
      log.warning("part file is lost", ["file": id.text])
      guard try await records.startAgain(id, fence: fence) != nil, let again = try await records.load(id) else {
        throw ActiveUpload.begunAgain
      }
      return try await openPart(id, again)
    }
  }
}
