internal import FileStore
internal import GRPC
internal import Reactor
internal import Telemetry

/// Goes through `incoming` every so often: removes what has expired and what earlier writers left, and finishes what was left
/// whole when Redis lost it. Confined to the loop; any number of uploaders may sweep one store.
///
/// | Redis | `incoming` | then |
/// |---|---|---|
/// | live record | files of a lower fence | removed |
/// | notice has gone out | anything | removed |
/// | nothing, or expired | older than the lifetime of a record | removed, with the file's lock held meanwhile |
/// | nothing | journal, and the file is finished | its notice is made pending again |
/// | nothing | journal with every byte | finalised |
///
/// What is younger than `sweepAge` may be somebody's who is about to tell Redis, and is left alone.
final class Sweeper {
  private let uploads: Uploads
  private var node: UploadNode { uploads.node }

  init(uploads: Uploads) { self.uploads = uploads }

  /// How long the lock is held while the files of an expired upload are removed.
  private static let lockLifetime = Duration.seconds(30)

  func sweepUntilCancelled() async {
    while !Task.isCancelled {
      do {
        try await node.loop.sleep(for: node.limits.sweepInterval)
        try await sweep()
      } catch is CancellationError {
        return
      } catch {
        node.log.warning("store not swept", ["error": "\(error)"])
      }
    }
  }

  /// Looks at everything once.
  func sweep() async throws {
    let files = try await node.slowPool.run { [store = node.store] in try store.allIncoming() }
    for (id, files) in Dictionary(grouping: files, by: \.id) {
      do { try await sweep(id, files) } catch {
        node.log.warning("upload not swept", ["file": id.text, "error": "\(error)"])
      }
    }
  }

  private func sweep(_ id: FileID, _ files: [IncomingFile]) async throws {
    let touched = try await node.slowPool.run { [store = node.store] in
      try files.compactMap { try store.lastWritten($0) }.max()
    }
    guard let touched, touched + node.limits.sweepAge.wholeMilliseconds < node.clock() else { return }
    switch try await node.records.load(id) {
    case let record? where record.state == .published: try await remove(id, upTo: record.fence)
    case let record? where record.state != .verified: try await remove(id, upTo: record.fence - 1)
    case .some: break
    case nil:
      if touched + node.limits.recordLifetime.wholeMilliseconds < node.clock() {
        try await removeExpired(id, files)
      } else {
        try await goOn(id)
      }
    }
  }

  private func remove(_ id: FileID, upTo fence: Int64) async throws {
    let removed = try await node.slowPool.run { [store = node.store] in
      let files = try store.incoming(of: id).filter { $0.fence <= fence }
      for file in files { try store.remove(file) }
      return files.count
    }
    node.metrics.sweptFiles.increment(by: removed)
  }

  private func removeExpired(_ id: FileID, _ files: [IncomingFile]) async throws {
    guard try await node.records.lockForSweeping(id, lifetime: Self.lockLifetime) else { return }
    try await remove(id, upTo: files.map(\.fence).max() ?? 0)
    try await node.records.unlock(id)
    node.log.info("expired upload removed", ["file": id.text])
  }

  /// Redis has lost the record. An upload whose bytes are missing is its client's to go on with.
  private func goOn(_ id: FileID) async throws {
    let found = try await node.slowPool.run { [store = node.store] in
      (try store.journalState(of: id), try store.sidecarIfFinished(id), try store.incoming(of: id).map(\.fence).max())
    }
    guard let journal = found.0 else { return }
    if let sidecar = found.1 {
      let notice = Notice(id, sidecar, job: journal.job).encoded()
      try await node.records.restoreVerified(
        id, size: sidecar.size, fence: found.2 ?? 1, md5: sidecar.md5, notice: notice)
      try await node.outbox.publish(id)
    } else if journal.durable.total == journal.size {
      try await uploads.finaliseAbandoned(id)
    }
  }
}
