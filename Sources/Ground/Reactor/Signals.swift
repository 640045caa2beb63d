internal import CLinux
internal import Glibc

/// Signals as events of a loop. Belongs to its loop; make it before any other thread is started, because the threads
/// inherit the mask that keeps the signals for the descriptor.
public final class Signals: ReadinessHandler {
  public static let terminate = SIGTERM
  public static let interrupt = SIGINT

  private let descriptor: Int32
  private var registration: Registration?
  private let received: (Int32) -> Void

  /// - Parameter received: called on the loop with the signal's number, every time.
  public init(
    loop: EventLoop, _ signals: [Int32] = [Signals.terminate, Signals.interrupt],
    received: @escaping (Int32) -> Void
  ) throws(IOError) {
    self.received = received
    var mask = sigset_t()
    sigemptyset(&mask)
    for signal in signals { sigaddset(&mask, signal) }
    pthread_sigmask(SIG_BLOCK, &mask, nil)
    descriptor = try system("signalfd") { signalfd(-1, &mask, Int32(SFD_NONBLOCK | SFD_CLOEXEC)) }
    registration = try loop.register(descriptor, .read, self)
  }

  deinit {
    registration?.cancel()
    Sockets.close(descriptor)
  }

  public func ready(_ events: Interest) {
    var info = signalfd_siginfo()
    while read(descriptor, &info, MemoryLayout<signalfd_siginfo>.size) == MemoryLayout<signalfd_siginfo>.size {
      received(Int32(info.ssi_signo))
    }
  }
}
