internal import Bytes
internal import FileStore
internal import Reactor

/// The MD5s of chunks, several at once in the lanes of a vector: eight take the time of one. Confined to the loop.
///
/// A chunk that comes alone is digested at once, and so is a small one. Where chunks come one after the other, large ones wait
/// for their lanes to fill, a moment that is short beside the time until they are synced.
final class ChunkChecks {
  /// How long a chunk waits for others at most.
  private static let patience = Duration.milliseconds(30)
  /// A smaller chunk doesn't wait: its own digest takes less.
  private static let worthWaiting = 256 << 10

  private let loop: EventLoop
  private let pool: BlockingPool
  private var waiting: [(data: Bytes, continuation: UnsafeContinuation<String, Never>)] = []
  private var isRunning = false
  private var timer: LoopTimer?
  private var lastArrival: Int64 = 0

  init(loop: EventLoop, pool: BlockingPool) {
    self.loop = loop
    self.pool = pool
  }

  /// The hex MD5 of a chunk.
  func md5(of data: Bytes) async -> String {
    let isAlone = loop.now - lastArrival > Self.patience.nanoseconds
    lastArrival = loop.now
    return await withUnsafeContinuation {
      waiting.append((data, $0))
      if isAlone || data.count < Self.worthWaiting || waiting.count >= DigestLanes.width { run() } else { runSoon() }
    }
  }

  private func runSoon() {
    guard timer == nil, !isRunning else { return }
    timer = loop.schedule(after: Self.patience) { [weak self] in self?.run() }
  }

  private func run() {
    timer?.cancel()
    timer = nil
    guard !isRunning else { return }
    isRunning = true
    // The story starts at the end of this turn, with all chunks that the turn brings.
    loop.spawn {
      repeat {
        let batch = Array(self.waiting.prefix(DigestLanes.width))
        self.waiting.removeFirst(batch.count)
        let inputs = batch.map(\.data)
        let digests = await self.pool.run { DigestLanes.hex(of: inputs) }
        for (one, digest) in zip(batch, digests) { one.continuation.resume(returning: digest) }
      } while self.waiting.count >= DigestLanes.width || self.waiting.contains { $0.data.count < Self.worthWaiting }
      self.isRunning = false
      if !self.waiting.isEmpty { self.runSoon() }
    }
  }
}
