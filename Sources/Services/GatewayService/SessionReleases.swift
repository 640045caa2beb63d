internal import Reactor
internal import Routing
internal import Telemetry

/// Sessions that have ended, on their way into the registry, which then says that their clients are away. Belongs to the
/// node's loop.
///
/// What ends in one moment goes out as one pipeline. What Redis doesn't take is said again: nobody else says it, and the
/// clients would count as online as long as the node lives. A session that has begun meanwhile is safe by its epoch.
final class SessionReleases {
  static let retryDelay: Duration = .seconds(1)
  /// Sessions that wait to be said again at most; the clients of further ones count as online until they come again, or the
  /// node's lease ends.
  static let maximumRepeated = 100_000

  private let registry: Registry
  private let loop: EventLoop
  private let log: Logger
  private var waiting: [Registry.Refresh] = []
  private var isSending = false
  private var isEnding = false
  private let sent = Wakeup()

  init(registry: Registry, loop: EventLoop, log: Logger) {
    self.registry = registry
    self.loop = loop
    self.log = log
  }

  func add(_ owned: Session.Owned) {
    waiting.append(
      Registry.Refresh(client: owned.client, epoch: owned.epoch, lastActive: EventLoop.wallClockMilliseconds()))
    guard !isSending else { return }
    isSending = true
    loop.spawn { [self] in
      while !waiting.isEmpty { await sendBatch() }
      isSending = false
      sent.fire()
    }
  }

  private func sendBatch() async {
    let batch = waiting
    waiting = []
    let answers = await registry.release(batch)
    let failed = zip(batch, answers).filter { if case .failure = $1 { true } else { false } }.map(\.0)
    guard !failed.isEmpty else { return }
    log.warning("clients not released", ["count": failed.count])
    guard !isEnding else { return }
    waiting += failed.prefix(max(0, SessionReleases.maximumRepeated - waiting.count))
    try? await loop.sleep(for: SessionReleases.retryDelay)
  }

  /// Waits until the registry knows of every session that has ended, for a while. From now on nothing is repeated: the end
  /// of the node's lease says the same of all.
  func finish(within limit: Duration) async {
    isEnding = true
    if isSending { await sent.wait(within: limit, on: loop) }
  }
}
