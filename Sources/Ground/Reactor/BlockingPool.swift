internal import CLinux
internal import Glibc
internal import Synchronization

/// Threads for calls that block: fsync, files on NFS, name resolution, digests of large blocks.
///
/// Never the cooperative pool, which has one thread per core for everything. What is queued is not bounded here: the
/// callers bound what they have under way (a stream's window, a named number of blocks).
public final class BlockingPool: Sendable {
  /// Shared by a process for its occasional blocking calls.
  public static let shared = BlockingPool(threads: BlockingPool.sharedThreads, name: "blocking")
  static let sharedThreads = 4

  private let queue = BlockingQueue()

  /// - Parameter threads: started at once; they live as long as the process.
  public init(threads: Int, name: String) {
    for index in 0..<threads {
      let queue = self.queue
      // A process that can't start its threads can't do its work: the first `run` would wait for ever.
      do { _ = try startThread(name: "\(name)-\(index)") { queue.work() } } catch {
        preconditionFailure("can't start a thread: \(error)")
      }
    }
  }

  /// Runs `work` on a thread of the pool; the caller's story goes on, on its own loop, with the result.
  public func run<T: Sendable>(_ work: @escaping @Sendable () throws -> T) async throws -> T {
    let result: Result<T, any Error> = await withUnsafeContinuation { continuation in
      queue.put { continuation.resume(returning: Result { try work() }) }
    }
    return try result.get()
  }

  /// Runs `work` that can't fail on a thread of the pool.
  public func run<T: Sendable>(_ work: @escaping @Sendable () -> T) async -> T {
    await withUnsafeContinuation { continuation in
      queue.put { continuation.resume(returning: work()) }
    }
  }

  /// Runs `work` on a thread of the pool and calls `completion` with its result on the loop.
  public func run<T: Sendable>(
    _ work: @escaping @Sendable () -> T, on loop: EventLoop, then completion: @escaping @Sendable (T) -> Void
  ) {
    queue.put {
      let result = work()
      loop.execute { completion(result) }
    }
  }
}

/// A queue between threads: a mutex, a condition, an array.
///
/// `@unchecked Sendable`: `calls` is touched with `mutex` held.
private final class BlockingQueue: @unchecked Sendable {
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let filled = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private var calls: [@Sendable () -> Void] = []
  private var head = 0

  init() {
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(filled, nil)
  }

  deinit {
    pthread_cond_destroy(filled)
    pthread_mutex_destroy(mutex)
    filled.deallocate()
    mutex.deallocate()
  }

  func put(_ call: @escaping @Sendable () -> Void) {
    pthread_mutex_lock(mutex)
    calls.append(call)
    pthread_cond_signal(filled)
    pthread_mutex_unlock(mutex)
  }

  func work() {
    while true { take()() }
  }

  private func take() -> @Sendable () -> Void {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while head == calls.count { pthread_cond_wait(filled, mutex) }
    let call = calls[head]
    calls[head] = {}
    head += 1
    if head == calls.count || head > 1024 {
      calls.removeFirst(head)
      head = 0
    }
    return call
  }
}

/// Starts a thread that runs `body`; `name` is cut to the kernel's 15 bytes.
func startThread(name: String, _ body: @escaping @Sendable () -> Void) throws(IOError) -> pthread_t {
  final class Start {
    let name: String
    let body: @Sendable () -> Void
    init(name: String, body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }
  }
  var thread = pthread_t()
  let start = Unmanaged.passRetained(Start(name: name, body: body))
  // pthread_create returns an errno instead of setting it.
  let result = pthread_create(
    &thread, nil,
    { argument in
      guard let argument else { return nil }
      let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
      _ = fp_set_thread_name(String(decoding: start.name.utf8.prefix(15), as: UTF8.self))
      start.body()
      return nil
    }, start.toOpaque())
  guard result == 0 else {
    start.release()
    throw IOError(code: result, call: "pthread_create")
  }
  return thread
}
