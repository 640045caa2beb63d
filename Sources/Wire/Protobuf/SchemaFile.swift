public import Bytes

/// One .proto file, as reflection shows it.
public struct SchemaFile: Sendable {
  /// As other files import it, e.g. "push/v1/push.proto".
  public let name: String
  /// The names of the files that it imports.
  public let dependencies: [String]
  /// The full names of its services.
  public let services: [String]
  /// The full names of all that it declares: messages, enums, services and their methods.
  public let symbols: [String]
  private let base64: String

  public init(name: String, dependencies: [String], services: [String], symbols: [String], base64: String) {
    self.name = name
    self.dependencies = dependencies
    self.services = services
    self.symbols = symbols
    self.base64 = base64
  }

  /// The serialized google.protobuf.FileDescriptorProto; decoded anew at each call.
  public func descriptor() throws(ProtobufError) -> Bytes {
    try Base64.decode(base64)
  }
}

/// RFC 4648 with the standard alphabet and padding.
public enum Base64 {
  private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

  public static func encode(_ bytes: some Sequence<UInt8>) -> String {
    var text: [UInt8] = []
    var group: UInt32 = 0
    var filled = 0
    for byte in bytes {
      group = group << 8 | UInt32(byte)
      filled += 1
      if filled == 3 {
        for shift in [18, 12, 6, 0] as [UInt32] { text.append(alphabet[Int(group >> shift & 63)]) }
        (group, filled) = (0, 0)
      }
    }
    if filled > 0 {
      group <<= UInt32(3 - filled) * 8
      for place in 0..<4 {
        text.append(place <= filled ? alphabet[Int(group >> UInt32(18 - 6 * place) & 63)] : UInt8(ascii: "="))
      }
    }
    return String(decoding: text, as: UTF8.self)
  }

  /// Stops at the first padding character.
  public static func decode(_ text: String) throws(ProtobufError) -> Bytes {
    var bytes = ByteWriter(capacity: text.utf8.count / 4 * 3)
    var group: UInt32 = 0
    var bits: UInt32 = 0
    for character in text.utf8 where character != UInt8(ascii: "=") {
      guard let digit = value(of: character) else {
        throw ProtobufError(.invalidBase64, "a character that base64 doesn't have")
      }
      group = group << 6 | digit
      bits += 6
      if bits >= 8 {
        bits -= 8
        bytes.append(UInt8(truncatingIfNeeded: group >> bits))
      }
    }
    return bytes.finish()
  }

  private static func value(of character: UInt8) -> UInt32? {
    switch character {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(character) - 65
    case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(character) - 97 + 26
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(character) - 48 + 52
    case UInt8(ascii: "+"): 62
    case UInt8(ascii: "/"): 63
    default: nil
    }
  }
}
