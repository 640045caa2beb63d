public import Bytes

/// A reply of Redis (RESP2).
public enum RedisValue: Equatable, Sendable {
  case null
  case integer(Int64)
  /// A string of any bytes.
  case bulk(Bytes)
  /// A status line, as `OK`.
  case simple(String)
  case array([RedisValue])
  /// An error inside an array (EXEC, a pipeline); a reply that is an error as a whole comes as a `RedisError`.
  case error(String)

  public var isNull: Bool { self == .null }

  /// The number of an integer, or of a string that is one; else nil.
  public var asInteger: Int64? {
    switch self {
    case .integer(let number): number
    case .bulk(let bytes): bytes.string.flatMap { Int64($0) }
    default: nil
    }
  }

  /// The bytes of a string or a status; else nil.
  public var asBytes: Bytes? {
    switch self {
    case .bulk(let bytes): bytes
    case .simple(let text): Bytes(text)
    default: nil
    }
  }

  /// The text of a string or a status; nil for anything else, and for bytes that are not UTF-8.
  public var asString: String? {
    switch self {
    case .bulk(let bytes): bytes.string
    case .simple(let text): text
    default: nil
    }
  }

  /// The elements of an array; else nil.
  public var asArray: [RedisValue]? {
    if case .array(let elements) = self { elements } else { nil }
  }
}

/// A word of a command: text, bytes or a number. Literals do: `client.send("SET", "a", 1)`.
public enum RedisArgument: Sendable, ExpressibleByStringInterpolation, ExpressibleByIntegerLiteral {
  case string(String)
  case bytes(Bytes)
  case integer(Int64)

  public init(stringLiteral value: String) { self = .string(value) }
  public init(integerLiteral value: Int64) { self = .integer(value) }
  public init(_ text: String) { self = .string(text) }
  public init(_ bytes: Bytes) { self = .bytes(bytes) }
  public init(_ number: some BinaryInteger) { self = .integer(Int64(clamping: number)) }
}
