internal import FileStore
internal import GRPC
internal import Reactor

/// This node's right to write a file, for a while. Confined to the loop.
final class WriterLease {
  let id: FileID
  let pen: UploadRecords.Pen
  /// Until when it holds for sure, in monotonic nanoseconds: counted from before Redis was asked.
  fileprivate(set) var end: Int64
  /// Called once when another node has taken over, or Redis has lost the upload.
  var onLoss: (() -> Void)?

  fileprivate init(_ id: FileID, _ pen: UploadRecords.Pen, end: Int64) {
    self.id = id
    self.pen = pen
    self.end = end
  }
}

/// The leases of a node, renewed together at a third of their time. Confined to the loop.
final class WriterLeases {
  private let loop: EventLoop
  private let records: UploadRecords
  let lifetime: Duration
  private var leases: [FileID: WriterLease] = [:]
  private var timer: LoopTimer?

  init(loop: EventLoop, records: UploadRecords, lifetime: Duration) {
    self.loop = loop
    self.records = records
    self.lifetime = lifetime
  }

  /// - Parameter askedAt: when Redis was asked for it, in monotonic nanoseconds.
  func add(_ id: FileID, _ pen: UploadRecords.Pen, askedAt: Int64) -> WriterLease {
    let lease = WriterLease(id, pen, end: askedAt + lifetime.nanoseconds)
    leases[id] = lease
    schedule()
    return lease
  }

  /// What was recorded for the file has renewed its lease as well.
  func renewed(_ lease: WriterLease, askedAt: Int64) { lease.end = max(lease.end, askedAt + lifetime.nanoseconds) }

  /// Gives a lease up, when nothing of this node writes to the file any more.
  func release(_ lease: WriterLease) async {
    forget(lease)
    // Without an answer it ends by itself.
    try? await records.release(lease.id, lease.pen)
  }

  /// The file is finished, or somebody else's.
  func forget(_ lease: WriterLease) {
    if leases[lease.id] === lease { leases[lease.id] = nil }
    lease.onLoss = nil
  }

  private func schedule() {
    guard timer == nil, !leases.isEmpty else { return }
    timer = loop.schedule(after: lifetime / 3) { [weak self] in
      guard let self else { return }
      timer = nil
      for lease in leases.values { loop.spawn { await self.renew(lease) } }
      schedule()
    }
  }

  private func renew(_ lease: WriterLease) async {
    let askedAt = loop.now
    // Redis that doesn't answer: the lease ends by itself, and with it the writing.
    guard let written = try? await records.renew(lease.id, lease.pen, lease: lifetime) else { return }
    if written == .ok { return renewed(lease, askedAt: askedAt) }
    guard leases[lease.id] === lease else { return }
    let onLoss = lease.onLoss
    forget(lease)
    onLoss?()
  }

  func stop() {
    timer?.cancel()
    timer = nil
  }
}
