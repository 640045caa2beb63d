public import Bytes
internal import HTTP2
internal import Protobuf

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
  public func binary(_ name: String) -> Bytes? { self[name].flatMap { try? Base64.decode($0) } }

  /// - Precondition: the name is of `[0-9a-z_.-]`; the value printable ASCII.
  public mutating func append(_ name: String, _ value: String) {
    precondition(Metadata.isName(name), "not a name of metadata")
    fields.append((name, value))
  }

  public mutating func append(_ name: String, binary value: Bytes) {
    precondition(name.hasSuffix("-bin"), "the name of a binary value ends in -bin")
    append(name, Base64.unpadded(value))
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

extension Base64 {
  /// As gRPC wants binary metadata: without padding.
  static func unpadded(_ bytes: Bytes) -> String {
    var text = encode(bytes.array)
    while text.last == "=" { text.removeLast() }
    return text
  }
}
