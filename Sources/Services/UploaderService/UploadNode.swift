internal import FileStore
internal import GRPC
internal import Reactor
internal import Telemetry

/// What all uploads of a process share. Confined to the loop, but for the store and the pools.
final class UploadNode {
  let name: String
  let loop: EventLoop
  /// Chunk MD5s, writes and everything about names.
  let pool: BlockingPool
  /// Syncs and whole-file digests, which take long: a queue of their own keeps them from delaying chunks.
  let slowPool: BlockingPool
  let store: StoreDirectory
  let records: UploadRecords
  let outbox: Outbox
  let limits: UploadLimits
  let budget: ByteBudget
  let log: Logger
  let metrics: UploadMetrics

  init(
    name: String, loop: EventLoop, store: StoreDirectory, records: UploadRecords, outbox: Outbox,
    limits: UploadLimits, log: Logger, metrics: UploadMetrics
  ) {
    self.name = name
    self.loop = loop
    self.store = store
    self.records = records
    self.outbox = outbox
    self.limits = limits
    self.log = log
    self.metrics = metrics
    pool = BlockingPool(threads: UploadNode.writers, name: "write")
    slowPool = BlockingPool(threads: UploadNode.digesters, name: "digest")
    budget = ByteBudget(limit: limits.bytesInFlight)
  }

  private static let writers = 4
  private static let digesters = 4
}
