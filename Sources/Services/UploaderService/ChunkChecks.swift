internal import Bytes
internal import FileStore
internal import Reactor

/// The MD5s of chunks: those that come while others are being digested go together, in the lanes of a vector; one that
/// comes alone goes alone, at once. Confined to the loop.
final class ChunkChecks {
  private let loop: EventLoop
  private let pool: BlockingPool
  private var waiting: [(data: Bytes, continuation: UnsafeContinuation<String, Never>)] = []
  private var isRunning = false

  init(loop: EventLoop, pool: BlockingPool) {
    self.loop = loop
    self.pool = pool
  }

  /// The hex MD5 of a chunk.
  func md5(of data: Bytes) async -> String {
    await withUnsafeContinuation {
      waiting.append((data, $0))
      if !isRunning { run() }
    }
  }

  private func run() {
    isRunning = true
    // The story starts at the end of this turn, with all chunks that the turn brings.
    loop.spawn {
      while !self.waiting.isEmpty {
        let batch = Array(self.waiting.prefix(DigestLanes.width))
        self.waiting.removeFirst(batch.count)
        let inputs = batch.map(\.data)
        let digests = await self.pool.run { DigestLanes.hex(of: inputs) }
        for (one, digest) in zip(batch, digests) { one.continuation.resume(returning: digest) }
      }
      self.isRunning = false
    }
  }
}
