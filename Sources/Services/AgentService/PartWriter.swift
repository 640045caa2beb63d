internal import Bytes
internal import Reactor

/// Puts bytes into a part file behind the network's back: while one batch is written and digested on the pool, the next
/// one comes in. Belongs to its loop, and to one story: the calls that wait are made one at a time.
final class PartWriter {
  /// How many bytes wait for the disk at most; past that `room` makes the reader of the network wait.
  static let maximumBacklogBytes = 4 << 20

  private let loop: EventLoop
  private let pool: BlockingPool
  private let part: PartFile
  private var backlog: [Bytes] = []
  private var backlogBytes = 0
  private var isWriting = false
  private var failure: AgentError?
  private let change = Wakeup()

  init(loop: EventLoop, pool: BlockingPool, part: PartFile) {
    self.loop = loop
    self.pool = pool
    self.part = part
  }

  /// Queues bytes that follow the ones before.
  func append(_ bytes: Bytes) {
    backlog.append(bytes)
    backlogBytes += bytes.count
    guard !isWriting else { return }
    isWriting = true
    loop.spawn { await self.write() }
  }

  /// Waits until there is room for more. - Throws: what the disk said about earlier bytes.
  func room() async throws {
    while failure == nil, backlogBytes > Self.maximumBacklogBytes { await change.wait() }
    if let failure { throw failure }
  }

  /// Waits until all bytes are written, then runs `body` on the pool with the file to itself.
  func afterAll<T: Sendable>(_ body: @escaping @Sendable (PartFile) throws -> T) async throws -> T {
    while isWriting { await change.wait() }
    if let failure { throw failure }
    isWriting = true
    defer {
      isWriting = false
      change.fire()
    }
    let part = self.part
    return try await pool.run { try body(part) }
  }

  /// Waits until the pool is done with the file, whatever it says, and forgets what it hasn't got yet.
  func abandon() async {
    backlog = []
    backlogBytes = 0
    while isWriting { await change.wait() }
  }

  private func write() async {
    while failure == nil, !backlog.isEmpty {
      let (batch, part) = (backlog, self.part)
      let bytes = backlogBytes
      backlog = []
      do {
        try await pool.run { try part.append(batch) }
      } catch {
        failure = error as? AgentError ?? AgentError(.io, "\(error)")
      }
      backlogBytes = max(0, backlogBytes - bytes)
      change.fire()
    }
    isWriting = false
    change.fire()
  }
}
