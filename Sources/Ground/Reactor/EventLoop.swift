internal import CLinux
internal import Glibc
internal import Synchronization

/// One thread, one epoll: everything that has a socket is born, lives and dies on one loop.
///
/// A turn is: dispatch what is ready, run the tasks that this woke, the timers that are due, then what asked for the end
/// of the turn (connections flush there, so that all that a turn produced for one of them leaves in one write), then
/// wait. Nothing on a loop takes a lock but the mailbox, which is how other threads reach it.
///
/// `@unchecked Sendable`: other threads touch `mailbox` (a mutex), `waker` (an immutable descriptor) and `thread` (an
/// atomic) only; all else is touched on the loop's thread, which every entry point asserts in debug builds.
public final class EventLoop: TaskExecutor, @unchecked Sendable {
  public let name: String
  private let poller: Poller
  private let waker: Waker
  private let mailbox = Mutex(Mailbox())
  private let thread = Atomic<UInt>(0)
  private let timers = TimerHeap()
  private var jobs: [UnownedJob] = []
  private var turnEnds: [any TurnEnding] = []
  private var stopped = false
  private var joinable: pthread_t?

  /// Monotonic time in nanoseconds, read once per turn. On the loop only.
  public private(set) var now: Int64 = EventLoop.monotonicNanoseconds()

  /// A buffer that belongs to whoever runs on the loop, until it returns to the loop: sockets read into it, connections
  /// assemble their output in it.
  let readBuffer = UnsafeMutableRawBufferPointer.allocate(byteCount: EventLoop.sharedBufferBytes, alignment: 4096)
  public let scratch = UnsafeMutableRawBufferPointer.allocate(
    byteCount: EventLoop.sharedBufferBytes, alignment: 4096)

  /// The outgoing frame buffer that all HTTP/2 sessions of the loop share (see CNghttp2's shim).
  public let frameBuffer = UnsafeMutableRawPointer.allocate(byteCount: EventLoop.frameBufferBytes, alignment: 64)
  public static let frameBufferBytes = 32 * 1024

  /// The size of each of a loop's two shared buffers.
  public static let sharedBufferBytes = 256 * 1024
  /// Tasks that one turn runs before it looks at the sockets again, so that tasks which wake each other can't starve them.
  static let jobsPerTurn = 4096

  private struct Mailbox {
    var calls: [@Sendable () -> Void] = []
    var jobs: [UnownedJob] = []
    var isWakeUpUnderWay = false
  }

  private init(name: String) throws(IOError) {
    self.name = name
    poller = try Poller()
    waker = try Waker()
    try waker.register(with: poller)
    signal(SIGPIPE, SIG_IGN)
  }

  deinit {
    readBuffer.deallocate()
    scratch.deallocate()
    frameBuffer.deallocate()
  }

  // MARK: Starting and stopping

  /// A loop on a thread of its own. - Throws: `IOError` when descriptors or threads are exhausted.
  public static func start(name: String = "loop") throws(IOError) -> EventLoop {
    let loop = try EventLoop(name: name)
    loop.joinable = try startThread(name: name) { loop.turnUntilStopped() }
    return loop
  }

  /// Runs `main` as the first story of a loop on the calling thread and returns what it returns; for executables.
  ///
  /// `main` is `@Sendable` because a closure that isn't would inherit the main actor from an executable's `main()`, and
  /// wait for a main queue that nobody runs.
  public static func run(
    name: String = "main", _ main: @escaping @Sendable (EventLoop) async -> Int32
  ) throws(IOError) -> Int32 {
    let loop = try EventLoop(name: name)
    loop.thread.store(UInt(pthread_self()), ordering: .relaxed)
    let exit = Confined(ExitCode())
    loop.spawn {
      exit.value.code = await main(loop)
      loop.stopped = true
    }
    loop.turnUntilStopped()
    return exit.value.code
  }

  private final class ExitCode { var code: Int32 = 0 }

  /// Ends the loop after its turn and waits for its thread. From any other thread.
  public func stop() {
    precondition(!isCurrent, "a loop can't wait for itself")
    execute { self.stopped = true }
    if let joinable { pthread_join(joinable, nil) }
  }

  // MARK: From any thread

  /// Whether the caller runs on this loop's thread.
  public var isCurrent: Bool { thread.load(ordering: .relaxed) == UInt(pthread_self()) }

  /// In debug builds, stops a caller that is not on the loop.
  public func assertCurrent() { assert(isCurrent, "not on the loop \(name)") }

  /// Calls `work` on the loop, in the order of the posts of one thread. From any thread.
  public func execute(_ work: @escaping @Sendable () -> Void) {
    post { $0.calls.append(work) }
  }

  /// The task executor's entry: on the loop a job costs an append, from elsewhere a trip through the mailbox.
  public func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    if isCurrent {
      jobs.append(job)
    } else {
      post { $0.jobs.append(job) }
    }
  }

  private func post(_ put: (inout Mailbox) -> Void) {
    let wake = mailbox.withLock { mailbox in
      put(&mailbox)
      defer { mailbox.isWakeUpUnderWay = true }
      return !mailbox.isWakeUpUnderWay
    }
    if wake { waker.wake() }
  }

  // MARK: On the loop

  /// Calls `work` after a delay. On the loop only.
  @discardableResult
  public func schedule(after delay: Duration, _ work: @escaping () -> Void) -> LoopTimer {
    assertCurrent()
    return timers.add(deadline: EventLoop.deadline(after: delay), work)
  }

  /// Calls `observer.turnEnded()` once, at the end of this turn. On the loop only.
  public func atEndOfTurn(_ observer: any TurnEnding) {
    assertCurrent()
    turnEnds.append(observer)
  }

  /// Puts a descriptor into the epoll set. The handler must own the registration and outlive it. On the loop only.
  public func register(
    _ descriptor: Int32, _ interest: Interest, _ handler: any ReadinessHandler
  ) throws(IOError) -> Registration {
    assertCurrent()
    return try poller.add(descriptor, interest, handler)
  }

  private func turnUntilStopped() {
    thread.store(UInt(pthread_self()), ordering: .relaxed)
    while !stopped {
      readMailbox()
      runJobs()
      runTimers()
      endTurn()
      poller.wait(milliseconds: millisecondsToWait()) { now = EventLoop.monotonicNanoseconds() }
    }
    readMailbox()
    runJobs()
    endTurn()
  }

  private func readMailbox() {
    guard waker.isPending || jobs.isEmpty else { return }
    let (calls, posted) = mailbox.withLock { mailbox in
      defer {
        mailbox.calls.removeAll(keepingCapacity: true)
        mailbox.jobs.removeAll(keepingCapacity: true)
        mailbox.isWakeUpUnderWay = false
      }
      return (mailbox.calls, mailbox.jobs)
    }
    waker.isPending = false
    jobs.append(contentsOf: posted)
    for call in calls { call() }
  }

  private func runJobs() {
    var budget = EventLoop.jobsPerTurn
    while !jobs.isEmpty, budget > 0 {
      let batch = jobs
      jobs = []
      jobs.reserveCapacity(batch.count)
      budget -= batch.count
      let executor = asUnownedTaskExecutor()
      for job in batch { job.runSynchronously(on: executor) }
    }
  }

  private func runTimers() {
    guard timers.earliest != nil else { return }
    let now = EventLoop.monotonicNanoseconds()
    while let work = timers.popExpired(at: now) { work() }
  }

  private func endTurn() {
    while !turnEnds.isEmpty {
      let ending = turnEnds
      turnEnds.removeAll(keepingCapacity: true)
      for observer in ending { observer.turnEnded() }
    }
  }

  private func millisecondsToWait() -> Int32 {
    if stopped || !jobs.isEmpty { return 0 }
    guard let earliest = timers.earliest else { return -1 }
    // Rounded up: a wait that ends just before the deadline would turn the loop in vain.
    let nanoseconds = earliest &- EventLoop.monotonicNanoseconds()
    return Int32(clamping: max(0, (nanoseconds &+ 999_999) / 1_000_000))
  }

  // MARK: Clocks

  /// CLOCK_MONOTONIC in nanoseconds.
  public static func monotonicNanoseconds() -> Int64 { read(CLOCK_MONOTONIC, unit: 1) }

  /// Milliseconds since the epoch, for what people and other machines read.
  public static func wallClockMilliseconds() -> Int64 { read(CLOCK_REALTIME, unit: 1_000_000) }

  /// A monotonic time that lies `delay` after `start`: past what the clock can say, the end of all time.
  public static func deadline(after delay: Duration, from start: Int64 = monotonicNanoseconds()) -> Int64 {
    let (deadline, overflow) = start.addingReportingOverflow(max(0, delay.nanoseconds))
    return overflow ? .max : deadline
  }

  private static func read(_ clock: clockid_t, unit: Int64) -> Int64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return (Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)) / unit
  }
}

/// Called once at the end of the turn in which it asked for it.
public protocol TurnEnding: AnyObject {
  func turnEnded()
}

/// The eventfd that ends a loop's wait.
private final class Waker: ReadinessHandler {
  private let descriptor: Int32
  private var registration: Registration?
  /// Set when the loop was woken and has to read its mailbox.
  var isPending = true

  init() throws(IOError) {
    descriptor = try system("eventfd") { eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC)) }
  }

  deinit { _ = Glibc.close(descriptor) }

  func register(with poller: Poller) throws(IOError) {
    registration = try poller.add(descriptor, .read, self)
  }

  /// From any thread. A full counter can't block or matter: the descriptor is readable then.
  func wake() { eventfd_write(descriptor, 1) }

  func ready(_ events: Interest) {
    var count: eventfd_t = 0
    eventfd_read(descriptor, &count)
    isPending = true
  }
}
