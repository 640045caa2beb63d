internal import FileStore
internal import GRPC
internal import Reactor
internal import Safeguards
internal import Telemetry

/// Written bytes become durable in groups: data, journal, Redis, in this order. What Redis says is durable the journal says,
/// and what the journal says is on the disk.
extension ActiveUpload {
  /// Begins to make durable what is written, and to write down what is known of it, unless that is under way: its end begins
  /// the next round when somebody waits for it.
  func commit() {
    guard !isCommitting, ended == nil, file != nil, !isFinished else { return }
    var step = unwritten
    unwritten = UploadJournal.Step()
    step.chunks = state.beginSync()
    guard !step.isEmpty else { return }
    isCommitting = true
    cancelCommit()
    node.loop.spawn { await self.commit(step) }
  }

  var isFinished: Bool {
    if case .complete = state.phase { true } else { false }
  }

  /// After a pause, with what comes until then.
  func commit(after pause: Duration) {
    guard ended == nil, !isFinished else { return }
    let due = node.loop.now + pause.nanoseconds
    if let commitTimer {
      guard due < commitTimer.due else { return }
      cancelCommit()
    }
    let timer = node.loop.schedule(after: pause) { [weak self] in
      guard let self else { return }
      commitTimer = nil
      digestBlocks(all: true)
      commit()
    }
    commitTimer = (timer, due)
  }

  func cancelCommit() {
    commitTimer?.timer.cancel()
    commitTimer = nil
  }

  private func commit(_ step: UploadJournal.Step) async {
    do {
      try await store(step)
      let askedAt = node.loop.now
      let written = try await node.records.record(
        id, pen, session: session, lease: node.limits.writerLease, chunks: step.chunks, blocks: step.blocks,
        durable: journal?.state.durable.total ?? 0)
      switch written {
      case .ok:
        FailPoint.reached(.chunksRecorded)
        if let lease { node.leases.renewed(lease, askedAt: askedAt) }
        if !step.chunks.isEmpty { state.synced(now: node.loop.now) }
        noteCompleteBlocks(touching: step.chunks)
      case .absent, .fenced:
        if !isFinished { end(Self.moved) }
      }
    } catch {
      // After a failed sync nobody knows which bytes are on the disk: none of the group is taken for durable.
      end(Status(storing: error))
    }
    if ended != nil { state.syncFailed() }
    isCommitting = false
    advanceDigest()
    digestBlocks(all: false)
    changes.signal()
  }

  private func store(_ step: UploadJournal.Step) async throws {
    guard let file, let journal else { return }
    let now = node.clock()
    try await using(node.slowPool) {
      if !step.chunks.isEmpty {
        try file.syncData()
        FailPoint.reached(.dataSynced)
      }
      try journal.append(step, now: now)
      FailPoint.reached(.journalSynced)
    }
  }

  /// Whether there is nothing to do: all that came is durable, digested as far as it can be, and written down.
  var isQuiet: Bool {
    state.isQuiet && !isCommitting && !isDigesting && !isDigestingBlocks && blocksToDigest.isEmpty && unwritten.isEmpty
      && state.phase != .finalising
  }

  /// Waits until there is nothing to do, or the upload has ended here.
  func waitUntilQuiet() async {
    while ended == nil, !isFinished, !isQuiet {
      digestBlocks(all: true)
      commit()
      await changes.next()
    }
  }
}
