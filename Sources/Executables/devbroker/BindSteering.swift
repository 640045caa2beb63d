public import Glibc

/// Where the mock cluster's listening sockets are bound, which librdkafka leaves to chance (127.0.0.1, port 0).
///
/// An executable's `bind` comes before the C library's when the dynamic linker resolves librdkafka's call, so the one
/// below sees it, changes the address of an IPv4 socket that asks for any port, and calls the C library's. librdkafka
/// then reads the address back with getsockname and announces that to its clients. So a broker that is started again
/// can be found where it was, and containers can reach it.
enum BindSteering {
  /// Written before librdkafka's threads start, read by their calls of bind; the mock cluster binds in its constructor,
  /// on the thread that steered.
  nonisolated(unsafe) private static var host: in_addr?
  nonisolated(unsafe) private static var nextPort: UInt16 = 0

  /// - Parameter port: of the first socket; each next one gets the next. 0 leaves the ports free.
  static func steer(to host: String, port: UInt16) {
    var address = in_addr()
    guard inet_pton(AF_INET, host, &address) == 1 else { return }
    self.host = address
    nextPort = port
  }

  fileprivate static func steered(_ asked: sockaddr_in) -> sockaddr_in? {
    guard let host, asked.sin_family == sa_family_t(AF_INET), asked.sin_port == 0 else { return nil }
    var address = asked
    address.sin_addr = host
    address.sin_port = nextPort.bigEndian
    if nextPort > 0 { nextPort &+= 1 }
    return address
  }
}

private typealias Bind = @convention(c) (Int32, UnsafePointer<sockaddr>?, socklen_t) -> Int32

@c(bind)
public func steeredBind(_ descriptor: Int32, _ address: UnsafePointer<sockaddr>?, _ length: socklen_t) -> Int32 {
  // -1 is RTLD_NEXT, a cast in C: the next object after this one that has the symbol.
  guard let symbol = dlsym(UnsafeMutableRawPointer(bitPattern: -1), "bind") else {
    errno = ENOSYS
    return -1
  }
  let bind = unsafeBitCast(symbol, to: Bind.self)
  guard let address, Int(length) >= MemoryLayout<sockaddr_in>.size,
    var steered = BindSteering.steered(UnsafeRawPointer(address).loadUnaligned(as: sockaddr_in.self))
  else { return bind(descriptor, address, length) }
  // The port is in TIME_WAIT for a minute after a broker with connections has ended.
  var yes: Int32 = 1
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
  return withUnsafePointer(to: &steered) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, length) }
  }
}
