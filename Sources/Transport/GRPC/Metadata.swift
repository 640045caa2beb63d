public import Bytes
internal import HTTP2

/// The custom metadata of a call: names (lower case ASCII) with text values, or with binary ones for names in `-bin`.
public struct Metadata: Sendable, Equatable, Sequence, ExpressibleByDictionaryLiteral {
  private var fields: [(name: String, value: String)] = []

  public init() {}

  public init(dictionaryLiteral elements: (String, String)...) {
    for (name, value) in elements { append(name, value) }
  }

  /// What a peer sent, without the fields of HTTP and of gRPC itself.
  init(_ headers: HeaderList) {
    for index in 0..<headers.count {
      let field = headers[index]
      if !Metadata.isReserved(field.name) { fields.append(field) }
    }
  }

  /// Every field of a trailer block, the status among them.
  init(all headers: HeaderList) {
    for index in 0..<headers.count { fields.append(headers[index]) }
  }

  public var isEmpty: Bool { fields.isEmpty }

  /// The first value of a name.
  public subscript(name: String) -> String? { fields.first { $0.name == name }?.value }

  /// The first value of a name that ends in `-bin`, decoded; nil also when it isn't base64.
  public func binary(_ name: String) -> Bytes? { self[name].flatMap(Base64.decode) }

  /// - Precondition: the name is of `[0-9a-z_.-]`; the value printable ASCII.
  public mutating func append(_ name: String, _ value: String) {
    precondition(Metadata.isName(name), "not a name of metadata")
    fields.append((name, value))
  }

  public mutating func append(_ name: String, binary value: Bytes) {
    precondition(name.hasSuffix("-bin"), "the name of a binary value ends in -bin")
    append(name, Base64.encode(value))
  }

  public func makeIterator() -> IndexingIterator<[(name: String, value: String)]> { fields.makeIterator() }

  public static func == (a: Metadata, b: Metadata) -> Bool {
    a.fields.elementsEqual(b.fields) { $0.name == $1.name && $0.value == $1.value }
  }

  var headerFields: [HeaderField] { fields.map { HeaderField($0.name, $0.value) } }

  private static func isName(_ name: String) -> Bool {
    !name.isEmpty
      && name.utf8.allSatisfy {
        switch $0 {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        case UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "."): true
        default: false
        }
      }
  }

  private static func isReserved(_ name: String) -> Bool {
    name.hasPrefix(":") || name.hasPrefix("grpc-") || name == "te" || name == "content-type" || name == "user-agent"
  }
}

/// RFC 4648 base64: written without padding, as gRPC wants it, and read with or without.
enum Base64 {
  private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
  private static let values: [UInt8] = {
    var values = [UInt8](repeating: 0xFF, count: 256)
    for (value, letter) in alphabet.enumerated() { values[Int(letter)] = UInt8(value) }
    return values
  }()

  static func encode(_ bytes: Bytes) -> String {
    var text: [UInt8] = []
    text.reserveCapacity((bytes.count * 4 + 2) / 3)
    var buffer: UInt32 = 0
    var bits = 0
    bytes.withUnsafeBytes { source in
      for byte in source {
        buffer = buffer << 8 | UInt32(byte)
        bits += 8
        while bits >= 6 {
          bits -= 6
          text.append(alphabet[Int(buffer >> UInt32(bits) & 63)])
        }
      }
    }
    if bits > 0 { text.append(alphabet[Int(buffer << UInt32(6 - bits) & 63)]) }
    return String(decoding: text, as: UTF8.self)
  }

  static func decode(_ text: String) -> Bytes? {
    var bytes: [UInt8] = []
    var buffer: UInt32 = 0
    var bits = 0
    for letter in text.utf8 where letter != UInt8(ascii: "=") {
      let value = values[Int(letter)]
      guard value != 0xFF else { return nil }
      buffer = buffer << 6 | UInt32(value)
      bits += 6
      if bits >= 8 {
        bits -= 8
        bytes.append(UInt8(truncatingIfNeeded: buffer >> UInt32(bits)))
      }
    }
    return Bytes(bytes)
  }
}
