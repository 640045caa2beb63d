internal import FileStore
internal import GRPC
internal import Reactor
internal import Telemetry

/// The files that this node writes, by id. Confined to the loop.
final class Uploads {
  let node: UploadNode
  private let peers: UploadPeers
  private var active: [FileID: ActiveUpload] = [:]
  /// Those that have ended here, until they are closed.
  private var closing: [FileID: ActiveUpload] = [:]
  /// Ids that are being opened, so that streams which come together share one object.
  private var opening: Set<FileID> = []
  private let changes = Changes()

  init(node: UploadNode) {
    self.node = node
    peers = UploadPeers(loop: node.loop)
  }

  /// Where a stream goes.
  enum Entrance {
    /// This node writes the file; `leave` has to follow.
    case here(ActiveUpload)
    /// The writer, with a connection that stands.
    case elsewhere(Channel)
  }

  /// Enters a stream to a file's upload: here, or at the node that writes it. A writer that can't be reached is waited for
  /// until its lease ends, and then this node is the writer.
  ///
  /// - Parameter isRelayed: the stream comes from another uploader, and isn't passed on again.
  func enter(
    _ id: FileID, _ first: CheckedChunk, _ session: SessionLock, isRelayed: Bool
  ) async throws -> Entrance {
    let patience = node.loop.now + 2 * node.limits.writerLease.nanoseconds
    while true {
      switch try await join(id, first.declaration, session, whole: first.isWholeFile ? first : nil) {
      case .here(let upload): return .here(upload)
      case .elsewhere(let address, let leaseEnd):
        let rest = Duration.milliseconds(max(0, leaseEnd - node.clock()))
        guard !isRelayed else { throw Status(.unavailable, "Another node writes the file now.", retryAfter: rest) }
        if let address, let channel = await peers.channel(to: address) {
          node.metrics.relayedStreams.increment()
          return .elsewhere(channel)
        }
        guard node.loop.now < patience else {
          throw Status(.unavailable, "The node that writes the file can't be reached from here.", retryAfter: rest)
        }
        try await node.loop.sleep(for: min(rest + .milliseconds(5), node.limits.pollSilentWriter))
      }
    }
  }

  private enum Joined {
    case here(ActiveUpload)
    case elsewhere(HostPort?, leaseEnd: Int64)
  }

  /// Redis is asked each time: another node may have finished the file, or be its writer now.
  ///
  /// - Parameter whole: the whole file, when the first chunk brings it.
  private func join(
    _ id: FileID, _ declaration: Declaration, _ session: SessionLock?, whole: CheckedChunk? = nil
  ) async throws -> Joined {
    while opening.contains(id) { await changes.next() }
    opening.insert(id)
    defer {
      opening.remove(id)
      changes.signal()
    }
    await closing[id]?.waitUntilClosed()
    let askedAt = node.loop.now
    let claim = try await node.claim(id, declaration, session, openFence: active[id]?.openFence)
    if let md5 = declaration.md5 { try await node.records.index(id, md5: md5) }
    switch claim {
    case .elsewhere(let address, let leaseEnd): return .elsewhere(address, leaseEnd: leaseEnd)
    case .done(let record):
      return .here(try enter(active[id] ?? ActiveUpload(finished: id, node: node, record: record)))
    case .here:
      guard let upload = active[id], upload.ended == nil else { throw ActiveUpload.moved }
      if let session { upload.session = session }
      try upload.declare(declaration)
      return .here(try enter(upload))
    case .taken(let record):
      if let stale = active[id] {
        stale.end(ActiveUpload.moved)
        await stale.waitUntilClosed()
      }
      guard active.count < node.limits.openUploads else {
        try await node.records.release(id, .init(fence: record.fence, writer: node.instance))
        throw Status(.resourceExhausted, "\(active.count) files are being uploaded here, as many as there may be.")
      }
      if record.fence > 1 { node.metrics.takeovers.increment() }
      if let whole, record.fence == 1 {
        return .here(try enter(try await node.storeWhole(id, record, whole, askedAt: askedAt)))
      }
      let upload = try await node.open(id, record, askedAt: askedAt)
      upload.session = session
      return .here(try enter(upload))
    }
  }

  private func enter(_ upload: ActiveUpload) throws -> ActiveUpload {
    guard upload.streams < node.limits.streamsPerUpload else {
      throw Status(.resourceExhausted, "The file has \(upload.streams) streams, as many as a file may have.")
    }
    upload.streams += 1
    guard active[upload.id] !== upload else { return upload }
    active[upload.id] = upload
    upload.onEnd = { [weak self, weak upload] in
      guard let self, let upload else { return }
      ended(upload)
    }
    node.metrics.openUploads.set(active.count)
    return upload
  }

  private func ended(_ upload: ActiveUpload) {
    guard active[upload.id] === upload else { return }
    active[upload.id] = nil
    node.metrics.openUploads.set(active.count)
    closing[upload.id] = upload
    node.loop.spawn {
      await upload.waitUntilClosed()
      if self.closing[upload.id] === upload { self.closing[upload.id] = nil }
    }
  }

  /// A stream brings what wasn't declared before.
  func declareMore(_ upload: ActiveUpload, _ declaration: Declaration, _ session: SessionLock) async throws {
    if upload.isFinished { return try upload.declare(declaration) }
    switch try await node.claim(upload.id, declaration, session, openFence: upload.openFence) {
    case .done, .here: break
    case .taken(let record):
      // This node is the writer at a fence that nothing here stands at: the next stream opens it.
      try await node.records.release(upload.id, .init(fence: record.fence, writer: node.instance))
      upload.end(ActiveUpload.moved)
      throw ActiveUpload.moved
    case .elsewhere:
      upload.end(ActiveUpload.moved)
      throw ActiveUpload.moved
    }
    if let md5 = declaration.md5 { try await node.records.index(upload.id, md5: md5) }
    try upload.declare(declaration)
  }

  /// Sends the notice of a file that is finished; what takes long is left to the relay.
  ///
  /// - Returns: the job that it started; nil without one, and when it isn't known yet.
  func publish(_ upload: ActiveUpload) async -> String? {
    let pending = upload.notice.map { Outbox.Pending(notice: $0, fence: upload.fence) }
    // Whoever comes next asks the record.
    upload.notice = nil
    return await node.outbox.publishWithinLimit(upload.id, pending) { [node] in
      if let pending, upload.journal == nil { await node.keepJournal(of: upload.id, pending) }
    }
  }

  /// A stream has ended. Without streams the file stays open for a while, for the next one.
  ///
  /// - Parameter broken: the stream ended without an answer. When it brought the last byte, the file is finalised all the
  ///   same: an upload is over when every byte is there.
  func leave(_ upload: ActiveUpload, broken: Bool = false) {
    upload.streams -= 1
    guard upload.streams == 0, upload.ended == nil else { return }
    if upload.isFinished { return upload.end(ActiveUpload.closed) }
    upload.digestBlocks(all: true)
    upload.commit()
    closeWhenIdle(upload)
    guard broken, upload.state.writtenBytes == upload.state.size else { return }
    node.loop.spawn { await self.finishUnattended(upload) }
  }

  private func finishUnattended(_ upload: ActiveUpload) async {
    upload.streams += 1
    do {
      if case .complete = try await upload.finish() { _ = await publish(upload) }
    } catch {
      node.log.warning("upload not finished", ["file": upload.id.text, "error": "\(error)"])
    }
    leave(upload)
  }

  private func closeWhenIdle(_ upload: ActiveUpload) {
    let lastProgress = upload.state.lastProgress
    node.loop.schedule(after: node.limits.idleBeforeClose) { [weak self, weak upload] in
      guard let self, let upload, upload.streams == 0, active[upload.id] === upload else { return }
      if upload.isQuiet, upload.state.lastProgress == lastProgress {
        upload.end(ActiveUpload.closed)
      } else {
        upload.digestBlocks(all: true)
        upload.commit()
        closeWhenIdle(upload)
      }
    }
  }

  /// Finishes a file whose writer died, or whose client never came back to hear of it. Called by the relay of notices and
  /// the sweeper.
  func finaliseAbandoned(_ id: FileID) async throws {
    // Elsewhere it is its writer's.
    guard case .here(let upload) = try await join(id, Declaration(), nil) else { return }
    defer { leave(upload) }
    if case .complete = try await upload.finish() { _ = await publish(upload) }
  }

  /// Makes everything durable, closes it and gives it up, for the end of the process. Streams have ended before.
  func drain() async {
    for upload in active.values {
      await upload.waitUntilQuiet()
      upload.end(ActiveUpload.closed)
    }
    for upload in closing.values { await upload.waitUntilClosed() }
    peers.close()
    node.leases.stop()
  }
}

extension ActiveUpload {
  /// What Redis is told that the file is open at; nil where it isn't.
  fileprivate var openFence: Int64? { ended == nil ? lease?.pen.fence : nil }

  fileprivate func declare(_ declaration: Declaration) throws {
    do throws(Upload.Refusal) {
      try state.declare(size: declaration.size, md5: declaration.md5)
    } catch {
      throw Status(error)
    }
    unwritten.declared.add(
      md5: declaration.md5, name: declaration.name, sha256: declaration.sha256, job: declaration.job)
    if !unwritten.declared.isEmpty { commit(after: node.limits.pauseBeforeJournal) }
  }
}
