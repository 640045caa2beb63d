internal import Bytes
internal import FileStore
internal import GRPC
internal import Reactor
internal import Telemetry

/// How a stream's story of a file ends.
enum UploadOutcome: Sendable {
  case complete(md5: String)
  case incomplete(missing: [Range<Int64>])
}

extension ActiveUpload {
  /// Waits until every byte that came is durable, then finalises when the file is whole.
  ///
  /// - Parameter failuresBefore: `failures.count` when the stream began; later ones are thrown.
  func finish(failuresBefore: Int) async throws -> UploadOutcome {
    var hasAsked = false
    while true {
      if failures.count > failuresBefore, let last = failures.last, state.isQuiet { throw last }
      switch state.streamEnded() {
      case .waitForBytes:
        startSync()
        await changes.next()
      case .incomplete(let missing):
        // Another node may have the rest.
        if hasAsked { return .incomplete(missing: missing) }
        hasAsked = true
        guard let record = try await node.records.load(id) else { throw Self.recordIsGone }
        try await adopt(record)
      case .finalise: try await finalise()
      case .waitForResult: await changes.next()
      case .complete(let md5): return .complete(md5: md5)
      }
    }
  }

  static let recordIsGone = Status(.unavailable, "The record of the upload is gone; send the file again.")

  /// The steps from "every byte is durable" to "it stands under its final name and its notice is pending". One story per
  /// node does it (the phase), one node does it (the record), and each step can be repeated after a crash.
  func finalise() async throws {
    guard state.beginFinalising() else { return }
    do {
      try await finaliseOnce()
    } catch {
      state.finalisingFailed()
      changes.signal()
      throw Status(storing: error)
    }
    changes.signal()
  }

  private func finaliseOnce() async throws {
    // The index first: a crash after it leaves an entry too many, which the relay drops; never one too few.
    try await node.outbox.index(id)
    switch try await node.records.beginFinalising(id, node: node.name, lease: node.limits.finaliserLease) {
    case .busy: try await waitForOtherFinaliser()
    case .done:
      guard let record = try await node.records.load(id) else { throw Self.recordIsGone }
      try await adopt(record)
    case .absent, .incomplete: throw Self.recordIsGone
    case .granted(let before, let now):
      try await takeOver(from: before, to: now)
      let digests = try await digestToTheEnd()
      guard let record = try await node.records.load(id), record.fence == fence else { throw Self.begunAgain }
      if let declared = record.declaredMD5, declared != digests.md5 { try await dropMismatch(declared, digests.md5) }
      try await publish(digests, record)
    }
  }

  /// Another node has begun to finalise: its result counts, and when it falls silent this node goes on.
  private func waitForOtherFinaliser() async throws {
    while true {
      try await node.loop.sleep(for: node.limits.pollOtherFinaliser)
      guard let record = try await node.records.load(id) else { throw Self.recordIsGone }
      if record.isDone || record.fence != fence || record.state == .uploading {
        state.finalisingFailed()
        return try await adopt(record)
      }
      if record.finaliserLeaseEnd < EventLoop.wallClockMilliseconds() {
        // The next round of `finish` asks to take over.
        return state.finalisingFailed()
      }
    }
  }

  /// Opens the file under the fence that was granted. A higher fence means that a finaliser died: its part file is renamed
  /// first, so that it can't finish it any more should it live after all.
  private func takeOver(from before: Int64, to now: Int64) async throws {
    let id = self.id
    if before != now {
      file = try await node.slowPool.run { [store = node.store] in
        do {
          try store.renamePart(id, from: before, to: now)
          return try store.openPart(id, fence: now)
        } catch let error as FileStoreError where error.code == .notFound {
          return try store.openUnpublished(id)
        }
      }
      fence = now
      resetDigest()
    } else if hasForeignBytes || file == nil {
      file = try await node.slowPool.run { [store = node.store] in
        do {
          return try store.openPart(id, fence: now)
        } catch let error as FileStoreError where error.code == .notFound {
          return try store.openUnpublished(id)
        }
      }
      resetDigest()
    }
  }

  private func digestToTheEnd() async throws -> FileDigests {
    let failuresBefore = failures.count
    var renewAt = node.loop.now + node.limits.finaliserLease.nanoseconds / 3
    while digested < state.size {
      advanceDigest()
      await changes.next()
      if failures.count > failuresBefore, let last = failures.last { throw last }
      if node.loop.now >= renewAt {
        guard try await node.records.renewFinaliser(id, fence: fence, lease: node.limits.finaliserLease) else {
          throw Self.begunAgain
        }
        renewAt = node.loop.now + node.limits.finaliserLease.nanoseconds / 3
      }
    }
    let digests = wholeDigests ?? digest.finish()
    wholeDigests = digests
    return digests
  }

  /// The bytes aren't the declared ones, and no chunk says which: all of them are dropped.
  private func dropMismatch(_ declared: String, _ actual: String) async throws -> Never {
    let oldFence = fence
    if let fence = try await node.records.startAgain(id, fence: oldFence), let record = try await node.records.load(id)
    {
      let id = self.id
      try await node.slowPool.run { [store = node.store] in try store.removePart(id, fence: oldFence) }
      let opened = try await node.openPart(id, record)
      beginAgain(opened.record, file: opened.file)
      precondition(opened.record.fence >= fence, "a fence never goes down")
    }
    throw Status(
      .dataLoss, "The file's MD5 is \(actual), and \(declared) was declared; it was dropped and has to be sent again.")
  }

  private func publish(_ digests: FileDigests, _ record: UploadRecord) async throws {
    guard let file else { throw Self.recordIsGone }
    let now = EventLoop.wallClockMilliseconds()
    let sidecar = Sidecar(
      name: record.name ?? id.text, size: state.size, digests: digests, sha256: record.sha256, publishedAt: now)
    let (id, fence) = (self.id, self.fence)
    try await node.slowPool.run { [store = node.store] in
      try store.publish(id, fence: fence, file: file, sidecar: sidecar)
    }
    let notice = Notice(id, sidecar, job: record.job)
    guard try await node.records.verified(id, fence: fence, md5: digests.md5, notice: notice.encoded()) else {
      throw Self.begunAgain
    }
    // Again: a relay may have dropped the early entry when this took long.
    try await node.outbox.index(id)
    state.finalised(md5: digests.md5, now: node.loop.now)
    node.metrics.finishedFiles.increment()
    node.log.info("file published", ["file": id.text, "bytes": state.size, "md5": digests.md5])
  }
}
