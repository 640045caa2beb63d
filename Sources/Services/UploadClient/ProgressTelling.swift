internal import Reactor

/// Calls a progress callback at a steady pace, and once more at the end. Belongs to its loop.
final class ProgressTelling {
  var progress: UploadProgress
  private let interval: Duration
  private let loop: EventLoop
  private let tell: (UploadProgress) -> Void
  private var meter = RateMeter()
  private var timer: LoopTimer?
  private var told: UploadProgress?

  init(total: Int64, interval: Duration, loop: EventLoop, tell: @escaping (UploadProgress) -> Void) {
    progress = UploadProgress(total: total)
    self.interval = interval
    self.loop = loop
    self.tell = tell
  }

  /// - Parameter tick: called at each step, before the callback.
  func start(_ tick: @escaping () -> Void) {
    timer = loop.schedule(after: interval) { [weak self] in
      guard let self else { return }
      tick()
      report()
      start(tick)
    }
  }

  func stop() {
    timer?.cancel()
    timer = nil
  }

  /// A round begins with so much at the server.
  func began(there: Int64) {
    progress.sent = there
    progress.received = there
    progress.durable = min(there, max(progress.durable, there))
    progress.phase = .sending
    meter = RateMeter()
    report()
  }

  /// Everything is at the server, and verified.
  func ended() {
    progress.sent = progress.total
    progress.received = progress.total
    progress.durable = progress.total
    report()
  }

  private func report() {
    progress.bytesPerSecond = meter.sample(progress.sent, now: loop.now)
    guard progress != told else { return }
    told = progress
    tell(progress)
  }
}
