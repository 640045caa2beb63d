internal import CLinux
internal import Glibc

/// A host (name or numeric) and a port, as people write it: `10.0.0.7:8080`, `gateway-1:8080`, `[::1]:8080`.
public struct HostPort: Hashable, Sendable, CustomStringConvertible {
  public let host: String
  public let port: UInt16

  public init(host: String, port: UInt16) {
    self.host = host
    self.port = port
  }

  /// nil when the text has no port, the port is no number up to 65535, or the host is empty or no name and no address:
  /// of printable ASCII without brackets.
  public init?(_ text: String) {
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else { return nil }
    var host = text[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
    let isHost = host.utf8.allSatisfy {
      (0x21...0x7E).contains($0) && $0 != UInt8(ascii: "[") && $0 != UInt8(ascii: "]")
    }
    guard !host.isEmpty, isHost else { return nil }
    self.init(host: String(host), port: port)
  }

  public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// A resolved IPv4 or IPv6 address with its port.
public struct SocketAddress: Sendable, CustomStringConvertible {
  private var storage: sockaddr_storage
  private var length: socklen_t

  /// All addresses of a name, in the resolver's order. Blocks: call it on a `BlockingPool`.
  ///
  /// - Throws: `IOError` with EHOSTUNREACH and the resolver's words.
  public static func resolve(_ endpoint: HostPort) throws(IOError) -> [SocketAddress] {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    let result = getaddrinfo(endpoint.host, String(endpoint.port), &hints, &list)
    guard result == 0 else {
      throw IOError(code: EHOSTUNREACH, call: "resolve \(endpoint.host) (\(String(cString: gai_strerror(result))))")
    }
    defer { freeaddrinfo(list) }
    var addresses: [SocketAddress] = []
    var next = list
    while let info = next {
      addresses.append(SocketAddress(copying: info.pointee.ai_addr, length: info.pointee.ai_addrlen))
      next = info.pointee.ai_next
    }
    return addresses
  }

  init(copying address: UnsafePointer<sockaddr>, length: socklen_t) {
    storage = sockaddr_storage()
    self.length = min(length, socklen_t(MemoryLayout<sockaddr_storage>.size))
    withUnsafeMutableBytes(of: &storage) {
      $0.copyMemory(from: UnsafeRawBufferPointer(start: address, count: Int(self.length)))
    }
  }

  /// What `fill` writes: for accept, getsockname and getpeername.
  init(_ fill: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) throws(IOError) -> Void)
    throws(IOError)
  {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    var failure: IOError?
    withUnsafeMutablePointer(to: &storage) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        do throws(IOError) { try fill(address, &length) } catch { failure = error }
      }
    }
    if let failure { throw failure }
    self.storage = storage
    self.length = length
  }

  func withPointer<R>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
    withUnsafePointer(to: storage) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
    }
  }

  var family: Int32 { Int32(storage.ss_family) }

  public var port: UInt16 { HostPort(description)?.port ?? 0 }

  /// Numeric, `address:port`.
  public var description: String {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(NI_MAXHOST) + Int(NI_MAXSERV)) { text in
      guard let host = text.baseAddress else { return "?" }
      let port = host + Int(NI_MAXHOST)
      let flags = NI_NUMERICHOST | NI_NUMERICSERV
      let result = withPointer { address, length in
        getnameinfo(address, length, host, socklen_t(NI_MAXHOST), port, socklen_t(NI_MAXSERV), flags)
      }
      guard result == 0, let number = UInt16(String(cString: port)) else { return "?" }
      return HostPort(host: String(cString: host), port: number).description
    }
  }
}
