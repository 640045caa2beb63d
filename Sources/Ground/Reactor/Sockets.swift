internal import CLinux
internal import Glibc

/// The system calls on sockets; every descriptor is non-blocking and closed on exec.
enum Sockets {
  private static let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)

  static func make(_ family: Int32) throws(IOError) -> Int32 {
    try system("socket") { socket(family, kind, Int32(IPPROTO_TCP)) }
  }

  static func setOption(_ descriptor: Int32, _ level: Int32, _ option: Int32, _ value: Int32) throws(IOError) {
    var value = value
    try system("setsockopt") {
      setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
    }
  }

  /// Small messages leave at once: what belongs together is joined per turn before it gets here.
  static func disableNagle(_ descriptor: Int32) {
    // Only sockets that aren't TCP refuse it, and they have no Nagle.
    try? setOption(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
  }

  static func close(_ descriptor: Int32) { _ = Glibc.close(descriptor) }

  static func localAddress(_ descriptor: Int32) throws(IOError) -> SocketAddress {
    try SocketAddress { address, length throws(IOError) in
      try system("getsockname") { getsockname(descriptor, address, length) }
    }
  }

  static func peerAddress(_ descriptor: Int32) throws(IOError) -> SocketAddress {
    try SocketAddress { address, length throws(IOError) in
      try system("getpeername") { getpeername(descriptor, address, length) }
    }
  }

  static func takeError(_ descriptor: Int32) -> Int32 {
    var code: Int32 = 0
    var length = socklen_t(MemoryLayout<Int32>.size)
    return getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &length) == 0 ? code : errno
  }
}

extension EventLoop {
  /// Connects to the first address of the endpoint that answers, within `timeout` in all. A story on this loop.
  ///
  /// - Returns: a connected descriptor, which the caller owns.
  /// - Throws: `IOError` of the last address tried; ETIMEDOUT when the time is over.
  public func connect(to endpoint: HostPort, timeout: Duration) async throws -> Int32 {
    assertCurrent()
    let deadline = EventLoop.deadline(after: timeout)
    let addresses = try await BlockingPool.shared.run { try SocketAddress.resolve(endpoint) }
    var failure = IOError(code: EHOSTUNREACH, call: "connect \(endpoint)")
    for address in addresses {
      let left = Duration.nanoseconds(deadline &- EventLoop.monotonicNanoseconds())
      guard left > .zero else { throw IOError(code: ETIMEDOUT, call: "connect \(endpoint)") }
      do {
        return try await ConnectAttempt(loop: self, address: address).finish(within: left)
      } catch {
        failure = error
      }
    }
    throw failure
  }
}

/// One non-blocking connect: waits for writability, then asks SO_ERROR how it went.
private final class ConnectAttempt: ReadinessHandler {
  private let loop: EventLoop
  private let address: SocketAddress
  private let descriptor: Int32
  private var registration: Registration?
  private var timer: LoopTimer?
  private var continuation: UnsafeContinuation<Int32, Never>?

  init(loop: EventLoop, address: SocketAddress) throws(IOError) {
    self.loop = loop
    self.address = address
    descriptor = try Sockets.make(address.family)
    Sockets.disableNagle(descriptor)
  }

  func finish(within timeout: Duration) async throws(IOError) -> Int32 {
    let started = address.withPointer { Glibc.connect(descriptor, $0, $1) }
    var code = started == 0 ? 0 : errno
    if code == EINPROGRESS || code == EINTR {
      do throws(IOError) {
        registration = try loop.register(descriptor, .write, self)
        timer = loop.schedule(after: timeout) { self.end(with: ETIMEDOUT) }
        code = await withUnsafeContinuation { continuation = $0 }
      } catch {
        code = error.code
      }
    }
    guard code == 0 else {
      Sockets.close(descriptor)
      throw IOError(code: code, call: "connect \(address)")
    }
    return descriptor
  }

  func ready(_ events: Interest) { end(with: Sockets.takeError(descriptor)) }

  private func end(with code: Int32) {
    registration?.cancel()
    registration = nil
    timer?.cancel()
    timer = nil
    continuation?.resume(returning: code)
    continuation = nil
  }
}
