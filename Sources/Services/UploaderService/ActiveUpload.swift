internal import Bytes
internal import FileStore
internal import GRPC
internal import Reactor
internal import Telemetry

/// A file that this node is taking in: the states of `Upload`, carried out on the disk and in Redis.
///
/// Confined to the node's loop. All streams of the file share one object. Chunks are written by their own streams'
/// stories; syncing, digesting and finalising are one story each at a time, started by whoever finds a reason.
/// Every `await` may let another story in, so `generation` tells a story whether the file was begun again meanwhile.
final class ActiveUpload {
  let id: FileID
  let node: UploadNode
  /// Bytes, syncs, digests, the phase: something has moved.
  let changes = Changes()
  /// Streams that are open on the file.
  var streams = 0

  var state: Upload
  var fence: Int64
  var file: StoreFile?
  var generation = 0
  /// Bytes in memory until they are written.
  let budget: ByteBudget
  /// The last failure of a sync, and how many there were: a stream tells its client of those that came while it ran.
  private(set) var failures: (count: Int, last: Status?) = (0, nil)
  private var pauseTimer: LoopTimer?

  var digest = PrefixDigest()
  /// What `digest` has behind it, as last heard: it works on another thread.
  var digested: Int64 = 0
  var isDigesting = false
  /// The result, once the digest has gone through the whole file.
  var wholeDigests: FileDigests?
  /// Another node wrote bytes of the file while it was open here, which this host's cache may not show.
  var hasForeignBytes = false

  /// - Parameter record: as it stands, with its chunks.
  init(_ id: FileID, node: UploadNode, record: UploadRecord, file: StoreFile?) {
    self.id = id
    self.node = node
    self.file = file
    fence = record.fence
    budget = ByteBudget(limit: node.limits.bytesInFlightPerUpload)
    state = Upload(
      size: record.size, declaredMD5: record.declaredMD5, durable: ByteRanges(record.chunks), now: node.loop.now)
    if let md5 = record.md5, record.isDone { state.finalised(md5: md5, now: node.loop.now) }
    advanceDigest()
  }

  /// Bytes of the file that have come, each counted once.
  var receivedBytes: Int64 { state.writtenBytes }

  // MARK: Chunks

  /// Checks and writes a chunk; returns when it stands in the file (durable or not), or was there before.
  ///
  /// Waits while too much is in memory or unsynced, which stops the sender: the stream isn't read meanwhile.
  func take(_ data: Bytes, at offset: Int64, totalSize: Int64, md5: String?) async throws {
    await waitForRoom()
    let generation = self.generation
    switch state.arrived(.init(offset: offset, length: Int64(data.count), totalSize: totalSize)) {
    case .refused(let refusal): throw Status(refusal)
    case .duplicate:
      if let md5 { try await node.pool.run { try Self.check(data, md5, at: offset) } }
      node.metrics.repeatedBytes.increment(by: data.count)
    case .write(let range):
      guard let file else { throw Status(.unavailable, "The file is not open.") }
      do {
        try await write(data, to: file, at: offset, md5: md5)
      } catch {
        if generation == self.generation { state.released(range) }
        changes.signal()
        throw Status(storing: error)
      }
      guard generation == self.generation else { throw Self.begunAgain }
      state.written(range)
      node.metrics.receivedBytes.increment(by: data.count)
      changes.signal()
      if state.unsyncedBytes >= node.limits.unsyncedBytesPerUpload / 2 { startSync() } else { syncAfterPause() }
    }
  }

  static let begunAgain = Status(.aborted, "The upload was begun again; ask what is missing and send it.")

  private func waitForRoom() async {
    while state.unsyncedBytes >= node.limits.unsyncedBytesPerUpload {
      startSync()
      await changes.next()
    }
  }

  private func write(_ data: Bytes, to file: StoreFile, at offset: Int64, md5: String?) async throws {
    await budget.take(data.count)
    await node.budget.take(data.count)
    node.metrics.bytesInFlight.set(node.budget.used)
    defer {
      budget.give(data.count)
      node.budget.give(data.count)
      node.metrics.bytesInFlight.set(node.budget.used)
    }
    try await node.pool.run {
      if let md5 { try Self.check(data, md5, at: offset) }
      try file.write(data, at: offset)
    }
  }

  private static func check(_ data: Bytes, _ declared: String, at offset: Int64) throws {
    let actual = Digest.hex(of: data, .md5)
    guard actual == declared else {
      throw Status(.dataLoss, "The chunk at \(offset) has MD5 \(actual), and was sent with \(declared).")
    }
  }

  // MARK: Durability

  /// Begins to sync what is written, unless a sync runs: that one's end begins the next when somebody waits for it.
  func startSync() {
    guard let file, !state.isSyncing else { return }
    let chunks = state.beginSync()
    guard !chunks.isEmpty else { return }
    pauseTimer?.cancel()
    pauseTimer = nil
    node.loop.spawn { await self.sync(chunks, of: file, generation: self.generation) }
  }

  private func syncAfterPause() {
    guard pauseTimer == nil else { return }
    pauseTimer = node.loop.schedule(after: node.limits.pauseBeforeSync) { [weak self] in
      guard let self else { return }
      pauseTimer = nil
      startSync()
    }
  }

  /// Disk first, then Redis: what Redis says is durable is.
  private func sync(_ chunks: [Range<Int64>], of file: StoreFile, generation: Int) async {
    do {
      try await node.slowPool.run { try file.syncData() }
      guard generation == self.generation else { return }
      let reply = try await node.records.record(id, fence: fence, chunks)
      guard generation == self.generation else { return }
      switch reply {
      case .recorded(let durableBytes, let conflicts):
        state.synced(except: conflicts, now: node.loop.now)
        if !conflicts.isEmpty {
          fail(Status(.failedPrecondition, "Chunks overlap others in part, which another node has taken."))
        }
        if durableBytes == state.size, state.durable.total < state.size {
          hasForeignBytes = true
          state.learned(durable: ByteRanges([0..<state.size]), now: node.loop.now)
        }
      case .fenced:
        state.syncFailed()
        if let record = try await node.records.load(id) { try await adopt(record) }
      }
    } catch {
      if generation == self.generation, state.isSyncing { state.syncFailed() }
      fail(Status(storing: error))
    }
    advanceDigest()
    changes.signal()
  }

  func fail(_ status: Status) {
    failures = (failures.count + 1, status)
    node.log.warning("bytes not stored", ["file": id.text, "error": status.message])
  }

  /// Another stream has come to the file, and `record` (without chunks) is what Redis says now.
  func meet(_ record: UploadRecord, _ declaration: Declaration) async throws {
    // Nothing durable on record, and something here: Redis has lost its data. (Asked twice, because a sync that was just
    // recorded may have overtaken the first answer.)
    let looksLost = record.durableBytes == 0 && state.durable.total > 0
    if record.isDone {
      try await adopt(record)
    } else if record.fence != fence || record.size != state.size || looksLost {
      guard let now = try await node.records.load(id) else { throw Self.recordIsGone }
      if looksLost, now.durableBytes == 0, now.fence == fence {
        let opened = try await node.openPart(id, now)
        beginAgain(opened.record, file: opened.file)
      } else {
        try await adopt(now)
      }
    }
    do throws(Upload.Refusal) {
      try state.declare(size: declaration.size, md5: declaration.md5)
    } catch {
      throw Status(error)
    }
  }

  /// Takes over what Redis says: another node's chunks, another node's result, or that the file was begun again.
  func adopt(_ record: UploadRecord) async throws {
    if record.isDone, let md5 = record.md5 {
      state.finalised(md5: md5, now: node.loop.now)
      changes.signal()
      return
    }
    if record.fence != fence || record.size != state.size {
      let opened = try await node.openPart(id, record)
      beginAgain(opened.record, file: opened.file)
      return
    }
    let chunks = record.state == .finalising ? [0..<record.size] : record.chunks
    let before = state.durable.total
    state.learned(durable: ByteRanges(chunks), now: node.loop.now)
    if state.durable.total > before { hasForeignBytes = true }
  }

  func beginAgain(_ record: UploadRecord, file: StoreFile?) {
    generation += 1
    fence = record.fence
    self.file = file
    state = Upload(
      size: record.size, declaredMD5: record.declaredMD5, durable: ByteRanges(record.chunks), now: node.loop.now)
    resetDigest()
    changes.signal()
  }

  func close() {
    pauseTimer?.cancel()
    pauseTimer = nil
    guard let file else { return }
    self.file = nil
    // close(2) may block on NFS. Errors of earlier writes were reported by the syncs.
    node.loop.spawn { try? await self.node.slowPool.run { try file.close() } }
  }
}
