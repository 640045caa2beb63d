internal import CMicrohttpd
internal import Glibc
internal import Synchronization
public import Telemetry

/// The admin port of a process: `/healthz`, `/readyz` and `/metrics` over HTTP/1.1, on a thread of its own.
///
///     let admin = try AdminServer(host: "127.0.0.1", port: 0, metrics: metrics, readiness: { readiness.reason })
///     log.info("admin port open", ["port": admin.port])
///     …
///     admin.stop()
///
/// It answers as long as the process lives, even when the process's loop is stuck: that is what it is for.
/// Usable from any thread.
public final class AdminServer: Sendable {
  /// Connections at once; further ones wait in the kernel's queue, then are refused.
  public static let maximumConnections = 64
  /// A connection that is idle for so long is closed.
  public static let idleTimeoutSeconds = 15
  /// The request line and headers of a connection have to fit in here; more is answered with 431.
  public static let connectionMemoryBytes = 32 * 1024

  /// Owns the daemon and what its callback refers to. `@unchecked Sendable`: the pointer is used only to stop the daemon,
  /// by whoever takes it out of the mutex.
  private struct Daemon: @unchecked Sendable {
    let pointer: OpaquePointer
    let pages: Unmanaged<AdminPages>
  }

  private let daemon: Mutex<Daemon?>
  /// The address that was asked for.
  public let host: String
  /// The port that is bound, also when 0 was asked for.
  public let port: UInt16

  /// Binds and starts to answer.
  ///
  /// - Parameters:
  ///   - host: a name or an address; the first address that can be bound is taken.
  ///   - port: 0 takes a free one.
  ///   - readiness: called on the admin thread for each `/readyz`: nil when the process is ready, else why it isn't.
  public init(
    host: String, port: UInt16, metrics: MetricsRegistry, readiness: @escaping @Sendable () -> String? = { nil }
  ) throws(AdminError) {
    let (socket, boundPort) = try listen(host: host, port: port)
    let pages = Unmanaged.passRetained(AdminPages(metrics: metrics, readiness: readiness))
    guard
      let pointer = fp_mhd_start(
        socket, answerRequest, pages.toOpaque(), UInt32(Self.maximumConnections), UInt32(Self.idleTimeoutSeconds),
        Self.connectionMemoryBytes)
    else {
      // The socket is left alone: whether a failed start has closed it already isn't documented.
      pages.release()
      throw AdminError(code: .startFailed, message: "the admin port's thread could not be started")
    }
    self.host = host
    self.port = boundPort
    daemon = Mutex(Daemon(pointer: pointer, pages: pages))
  }

  deinit { stop() }

  /// Closes the port and all its connections and waits for the thread. Further calls do nothing.
  ///
  /// Not from `readiness` or a computed metric: they run on the thread that this waits for.
  public func stop() {
    let taken = daemon.withLock { daemon in
      defer { daemon = nil }
      return daemon
    }
    guard let taken else { return }
    MHD_stop_daemon(taken.pointer)  // closes the listening socket too, and joins the thread
    taken.pages.release()
  }
}

/// Why the admin port can't be opened.
public struct AdminError: Error, Sendable, CustomStringConvertible {
  public enum Code: Sendable {
    case badAddress, bindFailed, startFailed
  }
  public let code: Code
  public let message: String
  public var description: String { message }
}

/// A socket that listens, and its port.
private func listen(host: String, port: UInt16) throws(AdminError) -> (socket: Int32, port: UInt16) {
  var hints = addrinfo()
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV
  hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
  var list: UnsafeMutablePointer<addrinfo>?
  let status = getaddrinfo(host, String(port), &hints, &list)
  guard status == 0, let list else {
    throw AdminError(
      code: .badAddress,
      message: "the admin address \(host):\(port) is unknown: \(String(cString: gai_strerror(status)))")
  }
  defer { freeaddrinfo(list) }
  var failure: Int32 = 0
  var next: UnsafeMutablePointer<addrinfo>? = list
  while let address = next?.pointee {
    next = address.ai_next
    let file = socket(address.ai_family, address.ai_socktype | Int32(SOCK_CLOEXEC.rawValue), address.ai_protocol)
    guard file >= 0 else {
      failure = errno
      continue
    }
    var one: Int32 = 1
    setsockopt(file, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
    if bind(file, address.ai_addr, address.ai_addrlen) == 0, Glibc.listen(file, SOMAXCONN) == 0 {
      return (file, boundPort(of: file) ?? port)
    }
    failure = errno
    close(file)
  }
  throw AdminError(
    code: .bindFailed, message: "the admin port can't bind \(host):\(port): \(String(cString: strerror(failure)))")
}

private func boundPort(of file: Int32) -> UInt16? {
  var address = sockaddr_storage()
  var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
  let status = withUnsafeMutablePointer(to: &address) { pointer in
    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(file, $0, &length) }
  }
  guard status == 0 else { return nil }
  // sin_port and sin6_port stand at the same place, after the family.
  return withUnsafeBytes(of: &address) { UInt16(bigEndian: $0.load(fromByteOffset: 2, as: UInt16.self)) }
}
