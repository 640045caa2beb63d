internal import Reactor

/// How far many files are together.
public struct BatchProgress: Sendable, Hashable {
  public var files = 0
  public var filesEnded = 0
  public var filesFailed = 0
  /// Sums over the files.
  public var total: Int64 = 0
  public var sent: Int64 = 0
  public var durable: Int64 = 0
  public var bytesPerSecond: Double = 0
  /// Large files under way, by path.
  public var current: [String: UploadProgress] = [:]

  /// Until all is sent at this rate; nil while the rate is unknown.
  public var timeLeft: Duration? {
    guard bytesPerSecond > 0 else { return nil }
    return .milliseconds(Int64((Double(max(0, total - sent)) / bytesPerSecond * 1000).rounded()))
  }
}

/// Many files on their way, a number of large ones and a number of small ones at a time. Belongs to its loop.
final class Batch {
  typealias Send = (FileTree.Entry, @escaping (UploadProgress) -> Void) async throws(UploadError) -> UploadResult

  private let tree: FileTree
  private let loop: EventLoop
  private let interval: Duration
  private let tell: (BatchProgress) -> Void
  private let ended: (UploadReport) -> Void
  private var progress = BatchProgress()
  private var endedBytes: Int64 = 0
  private var meter = RateMeter()
  private var timer: LoopTimer?
  private var results: [Int: UploadReport] = [:]
  private var smallBytes = 0
  private let changes = Changes()

  init(
    _ tree: FileTree, interval: Duration, loop: EventLoop, progress: @escaping (BatchProgress) -> Void,
    ended: @escaping (UploadReport) -> Void
  ) {
    self.tree = tree
    self.interval = interval
    self.loop = loop
    tell = progress
    self.ended = ended
    self.progress.files = tree.files.count + tree.failures.count
    self.progress.total = tree.files.reduce(0) { $0 + $1.size }
  }

  /// Files in their order, then what couldn't be looked at.
  var reports: [UploadReport] { tree.files.indices.compactMap { results[$0] } + tree.failures }

  func run(large: Int, small: Int, _ send: @escaping Send) async {
    for failure in tree.failures { end(failure) }
    report()
    var (larges, smalls) = (
      tree.files.indices.filter { !isSmall($0) }[...], tree.files.indices.filter { isSmall($0) }[...]
    )
    var running = 0
    func work(_ next: @escaping () -> Int?) {
      running += 1
      loop.spawn {
        while let index = next() { await self.one(index, send) }
        running -= 1
        self.changes.signal()
      }
    }
    for _ in 0..<min(large, larges.count) { work { larges.popFirst() } }
    for _ in 0..<min(small, smalls.count) { work { smalls.popFirst() } }
    while running > 0 { await changes.next() }
    timer?.cancel()
    tellNow()
  }

  private func isSmall(_ index: Int) -> Bool { tree.files[index].size <= UploadOptions.chunkBytes }

  private func one(_ index: Int, _ send: Send) async {
    let entry = tree.files[index]
    let isSmall = isSmall(index)
    let weight = isSmall ? Int(entry.size) : 0
    while smallBytes > 0, smallBytes + weight > UploadOptions.smallBytesAtOnce { await changes.next() }
    smallBytes += weight
    let result: Result<UploadResult, UploadError>
    do throws(UploadError) {
      result = .success(
        try await send(entry) { [weak self] in
          guard let self, !isSmall else { return }
          progress.current[entry.path] = $0
        })
    } catch {
      result = .failure(error)
    }
    smallBytes -= weight
    if isSmall { changes.signal() }
    progress.current[entry.path] = nil
    endedBytes += entry.size
    let report = UploadReport(path: entry.path, size: entry.size, result: result)
    results[index] = report
    end(report)
  }

  private func end(_ report: UploadReport) {
    progress.filesEnded += 1
    if case .failure = report.result { progress.filesFailed += 1 }
    ended(report)
  }

  private func report() {
    tellNow()
    timer = loop.schedule(after: interval) { [weak self] in self?.report() }
  }

  private func tellNow() {
    progress.sent = endedBytes + progress.current.values.reduce(0) { $0 + $1.sent }
    progress.durable = endedBytes + progress.current.values.reduce(0) { $0 + $1.durable }
    progress.bytesPerSecond = meter.sample(progress.sent, now: loop.now)
    tell(progress)
  }
}
