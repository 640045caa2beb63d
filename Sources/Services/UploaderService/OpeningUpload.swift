internal import FileStore
internal import GRPC
internal import Reactor
internal import Safeguards
internal import Telemetry

/// What opening a file found on the disk.
private struct OpenedFile: Sendable {
  var file: StoreFile
  var journal: UploadJournal
  /// It has its final name already.
  var isNamed = false
  var damagedBlocks: [Int] = []
}

extension UploadNode {
  /// Opens a file that this node has just become the writer of: begins it, or goes on where an earlier writer stopped.
  ///
  /// What was left is brought under the new fence first; then every block whose MD5 is known is read and compared, and what
  /// is damaged is dropped and will be asked for again; then Redis is told what is there.
  ///
  /// - Parameters:
  ///   - record: as the claim returned it.
  ///   - askedAt: when the lease was asked for, in monotonic nanoseconds.
  func open(_ id: FileID, _ record: UploadRecord, askedAt: Int64) async throws -> ActiveUpload {
    FailPoint.reached(.claimed)
    let pen = UploadRecords.Pen(fence: record.fence, writer: instance)
    let lease = leases.add(id, pen, askedAt: askedAt)
    do {
      let known = record.durableBytes > 0 ? try await records.load(id) ?? record : record
      let opened = try await openFile(id, known)
      try await tell(opened, id, pen, known)
      FailPoint.reached(.stateMerged)
      return ActiveUpload(
        id, node: self, lease: lease, file: opened.file, isNamed: opened.isNamed, journal: opened.journal)
    } catch {
      await leases.release(lease)
      // A higher fence on the disk: another node was quicker.
      if let error = error as? FileStoreError, error.code == .exists { throw ActiveUpload.moved }
      throw Status(storing: error)
    }
  }

  private func openFile(_ id: FileID, _ record: UploadRecord) async throws -> OpenedFile {
    let now = clock()
    let oldest = now - limits.recordLifetime.wholeMilliseconds
    let opened = try await slowPool.run { [store] in
      try Self.openFile(id, record, in: store, now: now, oldest: oldest)
    }
    if !opened.damagedBlocks.isEmpty {
      metrics.damagedBlocks.increment(by: opened.damagedBlocks.count)
      log.warning(
        "damaged blocks dropped",
        ["file": id.text, "blocks": opened.damagedBlocks.map(String.init).joined(separator: " ")])
    }
    return opened
  }

  private static func openFile(
    _ id: FileID, _ record: UploadRecord, in store: StoreDirectory, now: Int64, oldest: Int64
  ) throws -> OpenedFile {
    let (fence, known) = (record.fence, record.journalState)
    guard fence > 1 else { return try begin(id, fence, JournalState(beginning: known), in: store, now: now) }
    // What nobody has touched for the lifetime of a record is no upload any more.
    if record.durableBytes == 0, let journal = try store.journalState(of: id), journal.writtenAt <= oldest {
      try store.removeIncoming(id, upTo: fence - 1)
    }
    if let (part, journal) = try store.takeOver(id, fence: fence, adding: known, now: now) {
      var opened = OpenedFile(file: part, journal: journal)
      try opened.dropDamagedBlocks(now: now)
      return opened
    }
    // An earlier writer may have given it its final name.
    let left = try store.journalState(of: id) ?? known
    if left.durable.total == left.size, let file = try store.unpublished(id) {
      let journal = try store.beginJournal(id, fence: fence, left, now: now)
      return OpenedFile(file: file, journal: journal, isNamed: true)
    }
    try store.removeIncoming(id, upTo: fence - 1)
    return try begin(id, fence, JournalState(beginning: known), in: store, now: now)
  }

  private static func begin(
    _ id: FileID, _ fence: Int64, _ state: JournalState, in store: StoreDirectory, now: Int64
  ) throws -> OpenedFile {
    let (part, journal) = try store.begin(id, fence: fence, state, now: now)
    return OpenedFile(file: part, journal: journal)
  }

  /// Brings Redis up to what the journal says, where they differ.
  private func tell(
    _ opened: OpenedFile, _ id: FileID, _ pen: UploadRecords.Pen, _ known: UploadRecord
  ) async throws {
    let state = opened.journal.state
    guard state.sortedChunks != known.chunks || state.blocks != known.blocks else { return }
    let written = try await records.record(
      id, pen, session: nil, lease: limits.writerLease, chunks: state.sortedChunks, blocks: state.blocks,
      durable: state.durable.total, forgettingOthers: true)
    guard written == .ok else { throw ActiveUpload.moved }
    if known.durableBytes != state.durable.total {
      log.info("upload rebuilt from its journal", ["file": id.text, "bytes": state.durable.total])
    }
  }
}

extension OpenedFile {
  /// Compares the blocks whose MD5s are known. Blocks.
  fileprivate mutating func dropDamagedBlocks(now: Int64) throws {
    let state = journal.state
    let durable = state.durable
    let whole = state.blocks.filter { durable.contains(BlockDigests.range($0.key, ofSize: state.size)) }
    damagedBlocks = try whole.damaged(in: file, ofSize: state.size)
    guard !damagedBlocks.isEmpty else { return }
    var step = UploadJournal.Step()
    step.damagedBlocks = damagedBlocks
    try journal.append(step, now: now)
  }
}

extension JournalState {
  /// What was declared, without bytes.
  fileprivate init(beginning other: JournalState) {
    self.init(size: other.size)
    declaredMD5 = other.declaredMD5
    name = other.name
    sha256 = other.sha256
    job = other.job
  }
}

extension StoreDirectory {
  /// The file under its final name that has no sidecar yet; nil when there is none.
  fileprivate func unpublished(_ id: FileID) throws -> StoreFile? {
    do throws(FileStoreError) {
      return try openUnpublished(id)
    } catch {
      guard error.code == .notFound else { throw error }
      return nil
    }
  }
}
