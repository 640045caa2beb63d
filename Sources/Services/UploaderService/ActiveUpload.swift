internal import Bytes
internal import FileStore
internal import GRPC
internal import Reactor
internal import Safeguards
internal import Telemetry

/// A file that this node writes: the states of `Upload`, carried out on the disk, in the journal and in Redis.
///
/// Confined to the node's loop. All streams of the file share one object. Chunks are written by their own streams' stories;
/// making durable (`+Durability`), digesting (`+Digests`) and finalising (`+Finalising`) are one story each at a time.
///
/// It ends with the first thing that leaves its state in doubt: a sync or a journal that failed, a lease that is lost, a Redis
/// that doesn't answer or has forgotten. The streams are told, and the next chunk opens the file anew from what the disk
/// says (`OpeningUpload`): there is one way to recover, and every failure takes it.
final class ActiveUpload {
  let id: FileID
  let node: UploadNode
  let lease: WriterLease?
  let pen: UploadRecords.Pen
  /// Bytes, syncs, digests, the phase: something has moved.
  let changes = Changes()
  /// Streams that are open on the file.
  var streams = 0
  /// Whose chunks are taken; another session's streams end.
  var session: SessionLock?

  var state: Upload
  let file: StoreFile?
  /// The file has its final name from an attempt that was cut off, and waits for its sidecar.
  var isNamed: Bool
  let journal: UploadJournal?
  /// Why nothing goes on here.
  private(set) var ended: Status?
  /// Called once when it has ended.
  var onEnd: (() -> Void)?
  /// Bytes in memory until they are written.
  let budget: ByteBudget
  /// Calls on the pools that use the file.
  private var calls = 0

  // +Durability
  var isCommitting = false
  var unwritten = UploadJournal.Step()
  var commitTimer: (timer: LoopTimer, due: Int64)?

  // +Digests
  var digest: PrefixDigest
  var isDigesting = false
  var blockMD5s: [Int: String]
  /// Whole blocks without an MD5, in the order in which they became whole, and the same as a set.
  var blocksToDigest: [Int] = []
  var blocksDue: Set<Int> = []
  var isDigestingBlocks = false

  /// - Parameters:
  ///   - record: what is finished.
  init(finished id: FileID, node: UploadNode, record: UploadRecord) {
    self.id = id
    self.node = node
    (lease, file, journal, isNamed) = (nil, nil, nil, true)
    pen = .init(fence: record.fence, writer: "")
    budget = ByteBudget(limit: node.limits.bytesInFlightPerUpload)
    digest = PrefixDigest()
    blockMD5s = record.blocks
    state = Upload(size: record.size, now: node.loop.now)
    state.finalised(md5: record.md5 ?? "", now: node.loop.now)
  }

  /// - Parameter journal: which says what is durable.
  init(_ id: FileID, node: UploadNode, lease: WriterLease, file: StoreFile, isNamed: Bool, journal: UploadJournal) {
    self.id = id
    self.node = node
    self.lease = lease
    pen = lease.pen
    self.file = file
    self.isNamed = isNamed
    self.journal = journal
    budget = ByteBudget(limit: node.limits.bytesInFlightPerUpload)
    let known = journal.state
    digest = PrefixDigest(from: known.checkpoint)
    blockMD5s = known.blocks
    state = Upload(size: known.size, declaredMD5: known.declaredMD5, durable: known.durable, now: node.loop.now)
    lease.onLoss = { [weak self] in self?.end(Self.moved) }
    noteCompleteBlocks(touching: [0..<known.size])
    advanceDigest()
  }

  /// What the world is to be told of it, where this node has finished it.
  var notice: Notice?
  var fence: Int64 { pen.fence }

  /// Bytes of the file that have come, each counted once.
  var receivedBytes: Int64 { state.writtenBytes }

  // MARK: Chunks

  /// Checks and writes a chunk; returns when it stands in the file (durable or not), or stood there before.
  ///
  /// Waits while too much is unsynced, which stops the sender: the stream isn't read meanwhile.
  func take(_ data: Bytes, at offset: Int64, totalSize: Int64, md5: String?, of session: SessionLock) async throws {
    try check(session)
    await waitForRoom()
    try check(session)
    switch state.arrived(.init(offset: offset, length: Int64(data.count), totalSize: totalSize)) {
    case .refused(let refusal): throw Status(refusal)
    case .duplicate:
      try await check(data, md5, at: offset)
      try await compare(data, at: offset)
      node.metrics.repeatedBytes.increment(by: data.count)
    case .write(let range):
      do {
        try await write(data, at: offset, md5: md5)
      } catch {
        state.released(range)
        changes.signal()
        throw Status(storing: error)
      }
      state.written(range)
      node.metrics.receivedBytes.increment(by: data.count)
      changes.signal()
      if state.unsyncedBytes >= node.limits.unsyncedBytesPerUpload / 2 {
        commit()
      } else {
        commit(after: node.limits.pauseBeforeSync)
      }
    }
  }

  private func check(_ session: SessionLock) throws(Status) {
    if let ended { throw ended }
    if let holder = self.session, holder != session { throw .locked(for: holder.lifetime) }
  }

  private func waitForRoom() async {
    while state.unsyncedBytes >= node.limits.unsyncedBytesPerUpload, ended == nil {
      commit()
      await changes.next()
    }
  }

  private func write(_ data: Bytes, at offset: Int64, md5: String?) async throws {
    try await check(data, md5, at: offset)
    FailPoint.reached(.chunkChecked)
    if let ended { throw ended }
    guard let file else { throw Self.moved }
    // What is written after the lease's end may be another node's file already.
    if let lease, node.loop.now >= lease.end {
      end(Self.leaseEnded)
      throw Self.leaseEnded
    }
    do {
      try await using(node.pool) { try file.write(data, at: offset) }
    } catch let error as FileStoreError where error.code == .io {
      // The handle may be useless (ESTALE), the disk too: only opening it again tells.
      end(Status(storing: error))
      throw error
    }
    FailPoint.reached(.chunkWritten)
    if let ended { throw ended }
  }

  private func check(_ data: Bytes, _ declared: String?, at offset: Int64) async throws {
    guard let declared else { return }
    let actual = await node.checks.md5(of: data)
    guard actual == declared else {
      throw Status(.dataLoss, "The chunk at \(offset) has MD5 \(actual), and was sent with \(declared).")
    }
  }

  /// A chunk that was here before has to be the same.
  private func compare(_ data: Bytes, at offset: Int64) async throws {
    let range = offset..<offset + Int64(data.count)
    while state.isClaimed(range), ended == nil { await changes.next() }
    guard let file, !data.isEmpty, state.isWritten(range) else { return }
    let isSame = try await using(node.pool) { try file.read(at: offset, length: data.count) == data }
    guard isSame else {
      throw Status(.failedPrecondition, "Other bytes stand at \(offset) already; what came first stands.")
    }
  }

  // MARK: The end

  static let moved = Status(
    .unavailable, "Another node writes the file now, or its record is being rebuilt; send again what isn't durable.",
    retryAfter: .milliseconds(50))
  static let leaseEnded = Status(
    .unavailable, "This node couldn't renew its right to write the file; send again what isn't durable.",
    retryAfter: .milliseconds(200))
  static let begunAgain = Status(.aborted, "The upload was begun again; ask what is missing and send it.")
  static let closed = Status(.unavailable, "The file is closed here; send again what isn't durable.")

  /// Runs a call that uses the file.
  func using<T: Sendable>(_ pool: BlockingPool, _ work: @escaping @Sendable () throws -> T) async throws -> T {
    calls += 1
    defer {
      calls -= 1
      changes.signal()
    }
    return try await pool.run(work)
  }

  /// Nothing goes on here; what is durable stays so. The lease is given up when no call uses the file any more.
  func end(_ status: Status) {
    guard ended == nil else { return }
    ended = status
    cancelCommit()
    if status != Self.closed { node.log.warning("upload ended here", ["file": id.text, "error": status.message]) }
    onEnd?()
    onEnd = nil
    changes.signal()
    node.loop.spawn { await self.close() }
  }

  private func close() async {
    while calls > 0 || isCommitting { await changes.next() }
    if let file, let journal {
      // Errors of earlier writes were reported by the syncs; what close(2) tells on top concerns nothing that was called
      // durable.
      do {
        try await node.slowPool.run {
          try file.close(); try journal.close()
        }
      } catch {
        node.log.warning("file not closed", ["file": id.text, "error": "\(error)"])
      }
    }
    if let lease {
      if case .complete = state.phase { node.leases.forget(lease) } else { await node.leases.release(lease) }
    }
    hasClosed = true
    changes.signal()
  }

  /// The file is closed and the lease given up.
  private(set) var hasClosed = false

  func waitUntilClosed() async {
    while !hasClosed { await changes.next() }
  }
}
