internal import Bytes
internal import FileStore
internal import GRPC
internal import Reactor
internal import Safeguards
internal import Telemetry

/// How a stream's story of a file ends.
enum UploadOutcome: Sendable {
  case complete(md5: String)
  case incomplete(missing: [Range<Int64>])
}

extension ActiveUpload {
  /// Waits until every byte that came is durable, then finalises when the file is whole.
  func finish() async throws -> UploadOutcome {
    while true {
      if case .complete(let md5) = state.phase { return .complete(md5: md5) }
      if let ended { throw ended }
      switch state.streamEnded() {
      case .waitForBytes:
        commit()
        await changes.next()
      case .incomplete(let missing): return .incomplete(missing: missing)
      case .finalise: try await finalise()
      case .waitForResult: await changes.next()
      case .complete(let md5): return .complete(md5: md5)
      }
    }
  }

  /// The steps from "every byte is durable" to "it stands under its final name and its notice is pending". One story of one
  /// node does it (the phase, the lease), and each step can be repeated after a crash.
  private func finalise() async throws {
    guard state.beginFinalising() else { return }
    do {
      try await finaliseOnce()
    } catch {
      state.finalisingFailed()
      // Where it stopped is for the next attempt to find out, from the disk.
      end(Status(storing: error))
      throw Status(storing: error)
    }
    changes.signal()
  }

  private func finaliseOnce() async throws {
    while isCommitting, ended == nil { await changes.next() }
    if let ended { throw ended }
    // The index first: a crash after it leaves an entry too many, which the relay drops; never one too few.
    try await node.outbox.index(id)
    FailPoint.reached(.noticeIndexed)
    guard let record = try await node.records.beginFinalising(id, pen) else { throw Self.moved }
    FailPoint.reached(.finalisingBegun)
    let digests = try await digestToTheEnd()
    FailPoint.reached(.wholeDigested)
    if let declared = record.declaredMD5, declared != digests.md5 { try await dropMismatch(declared, digests.md5) }
    try await publish(digests, record)
  }

  /// The bytes aren't the declared ones. Blocks that aren't what they were when they became durable are dropped; where none
  /// is, nobody can say which bytes are wrong, and all are.
  private func dropMismatch(_ declared: String, _ actual: String) async throws -> Never {
    let damaged = isNamed ? [] : try await dropDamagedBlocks()
    if !damaged.isEmpty {
      throw Status(
        .dataLoss, "\(damaged.count) blocks were damaged here; they were dropped and have to be sent again.",
        retryAfter: .zero)
    }
    let (id, fence, isNamed) = (self.id, pen.fence, self.isNamed)
    try await using(node.slowPool) { [store = node.store] in
      if isNamed { try store.removeUnpublished(id) }
      try store.removeIncoming(id, upTo: fence)
    }
    guard try await node.records.startAgain(id, pen) == .ok else { throw Self.moved }
    throw Status(
      .dataLoss, "The file's MD5 is \(actual), and \(declared) was declared; it was dropped and has to be sent again.")
  }

  private func publish(_ digests: FileDigests, _ record: UploadRecord) async throws {
    guard let file else { throw Self.moved }
    // A lease that has ended may be another node's; the rename would tell as well.
    if let lease, node.loop.now >= lease.end { throw Self.leaseEnded }
    let sidecar = Sidecar(
      name: record.name ?? id.text, size: state.size, digests: digests, sha256: record.sha256,
      publishedAt: node.clock())
    let (id, fence, isNamed) = (self.id, pen.fence, self.isNamed)
    do {
      try await using(node.slowPool) { [store = node.store] in
        try store.publish(id, fence: fence, file: file, isNamed: isNamed, sidecar: sidecar)
      }
    } catch let error as FileStoreError where error.code == .notFound {
      throw Self.moved
    }
    self.isNamed = true
    let notice = Notice(id, sidecar, job: record.job)
    guard try await node.records.verified(id, pen, md5: digests.md5, notice: notice.encoded()) == .ok else {
      throw Self.moved
    }
    FailPoint.reached(.verified)
    if let lease { node.leases.forget(lease) }
    self.notice = notice
    state.finalised(md5: digests.md5, now: node.loop.now)
    node.metrics.finishedFiles.increment()
    node.log.info("file published", ["file": id.text, "bytes": state.size, "md5": digests.md5])
  }
}
