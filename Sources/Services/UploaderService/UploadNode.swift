internal import FileStore
internal import GRPC
internal import Reactor
internal import Routing
internal import Safeguards
internal import Telemetry

/// What all uploads of a process share. Confined to the loop, but for the store and the pools.
final class UploadNode {
  let name: String
  /// This life of the process, as records name their writer.
  let instance: String
  /// Where other uploaders reach this one.
  var address: HostPort
  let loop: EventLoop
  /// Writes and everything about names.
  let pool: BlockingPool
  /// Syncs and block digests, which take long: a queue of their own keeps them from delaying chunks.
  let slowPool: BlockingPool
  /// Whole-file digests, which take longest and can't be shared out.
  let digestPool: BlockingPool
  let checks: ChunkChecks
  let store: StoreDirectory
  let records: UploadRecords
  let leases: WriterLeases
  let outbox: Outbox
  let limits: UploadLimits
  let budget: ByteBudget
  /// ms since the epoch.
  let clock: @Sendable () -> Int64
  let log: Logger
  let metrics: UploadMetrics

  init(
    name: String, address: HostPort, loop: EventLoop, store: StoreDirectory, records: UploadRecords, outbox: Outbox,
    limits: UploadLimits, clock: @escaping @Sendable () -> Int64, log: Logger, metrics: UploadMetrics
  ) {
    self.name = name
    instance = "\(name)/\(Name.random())"
    self.address = address
    self.loop = loop
    self.store = store
    self.records = records
    self.outbox = outbox
    self.limits = limits
    self.clock = clock
    self.log = log
    self.metrics = metrics
    pool = BlockingPool(threads: UploadNode.writers, name: "write")
    slowPool = BlockingPool(threads: UploadNode.syncers, name: "sync")
    digestPool = BlockingPool(threads: UploadNode.digesters, name: "digest")
    checks = ChunkChecks(loop: loop, pool: BlockingPool(threads: 1, name: "check"))
    leases = WriterLeases(loop: loop, records: records, lifetime: limits.writerLease)
    budget = ByteBudget(limit: limits.bytesInFlight)
  }

  private static let writers = 4
  private static let syncers = 4
  private static let digesters = 2

  /// The notice of a file has gone out: its journal isn't needed any more.
  func removeJournal(_ id: FileID, fence: Int64) async {
    do {
      try await pool.run { [store] in try store.remove(IncomingFile(id, fence: fence, .journal)) }
      FailPoint.reached(.journalRemoved)
    } catch {
      // The sweeper will.
      log.warning("journal not removed", ["file": id.text, "error": "\(error)"])
    }
  }
}
