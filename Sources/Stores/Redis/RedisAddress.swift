public import Reactor

/// Where a Redis is, and who we are to it: `redis://user:password@host:port/database`, or `host:port`, or `host`.
public struct RedisAddress: Equatable, Sendable, CustomStringConvertible {
  public var endpoint: HostPort
  public var user: String?
  public var password: String?
  public var database: Int

  /// Redis's own.
  public static let defaultPort: UInt16 = 6379

  public init(endpoint: HostPort, user: String? = nil, password: String? = nil, database: Int = 0) {
    self.endpoint = endpoint
    self.user = user
    self.password = password
    self.database = database
  }

  /// - Throws: `.badAddress`, without the password in its message.
  public init(_ text: String) throws(RedisError) {
    var rest = Substring(text)
    var user: String?
    var password: String?
    var database = 0
    if rest.hasPrefix("redis://") {
      rest = rest.dropFirst("redis://".count)
    } else if rest.contains("://") {
      throw RedisError(code: .badAddress, message: "a Redis address begins with redis:// or is host:port")
    }
    // The last @: a password may hold one.
    if let at = rest.lastIndex(of: "@") {
      let words = rest[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
      if words.count == 2, !words[0].isEmpty { user = try RedisAddress.decode(words[0]) }
      password = try RedisAddress.decode(words[words.count - 1])
      rest = rest[rest.index(after: at)...]
    }
    if let slash = rest.firstIndex(of: "/") {
      let number = rest[rest.index(after: slash)...]
      guard let index = number.isEmpty ? 0 : Int(number), index >= 0 else {
        throw RedisError(code: .badAddress, message: "the database of a Redis address is a number, not '\(number)'")
      }
      database = index
      rest = rest[..<slash]
    }
    guard let endpoint = HostPort(String(rest)) ?? RedisAddress.withDefaultPort(rest) else {
      throw RedisError(code: .badAddress, message: "'\(rest)' is not the host:port of a Redis")
    }
    self.init(endpoint: endpoint, user: user, password: password, database: database)
  }

  private static func withDefaultPort(_ host: Substring) -> HostPort? {
    host.isEmpty || host.contains(":") ? nil : HostPort(host: String(host), port: defaultPort)
  }

  /// Undoes `%40` and the like.
  private static func decode(_ text: Substring) throws(RedisError) -> String {
    var bytes: [UInt8] = []
    var rest = text.utf8[...]
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "%") else {
        bytes.append(byte)
        continue
      }
      guard let code = Substring(rest.prefix(2)).hexadecimalByte else {
        throw RedisError(
          code: .badAddress, message: "the password of a Redis address has a % without two digits after it")
      }
      bytes.append(code)
      rest = rest.dropFirst(2)
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Without the password: for logs.
  public var description: String { database == 0 ? endpoint.description : "\(endpoint)/\(database)" }
}

extension Substring {
  /// The byte that exactly two hexadecimal digits stand for.
  fileprivate var hexadecimalByte: UInt8? { utf8.count == 2 ? UInt8(self, radix: 16) : nil }
}
