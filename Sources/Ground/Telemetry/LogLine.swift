internal import Glibc

/// One record while it is being printed.
struct LogLine: ~Copyable {
  /// The longest message or attribute value that is printed, in bytes; what is longer is cut and ends in "…".
  static let maximumTextBytes = 8192

  let form: Logger.Form
  private(set) var bytes: [UInt8] = []

  init(form: Logger.Form) {
    self.form = form
    bytes.reserveCapacity(256)
  }

  mutating func begin(time: WallTime, level: Logger.Level, label: String, message: String) {
    switch form {
    case .json:
      append(ascii: "{\"time\":\"")
      append(ascii: time.iso8601)
      append(ascii: "\",\"level\":\"")
      append(ascii: level.name)
      append(ascii: "\",\"logger\":")
      append(quoted: label)
      append(ascii: ",\"message\":")
      append(quoted: message)
    case .people:
      append(ascii: time.clock)
      append(ascii: " ")
      append(ascii: level.tag)
      append(ascii: " ")
      append(printable: label)
      append(ascii: ": ")
      append(printable: message)
    }
  }

  mutating func append(key: String, _ value: any LogValue) {
    switch form {
    case .json:
      append(ascii: ",")
      append(quoted: key)
      append(ascii: ":")
      switch value.logged {
      case .text(let text): append(quoted: text)
      case .bare(let text): append(ascii: text)
      }
    case .people:
      append(ascii: "  ")
      append(printable: key)
      append(ascii: "=")
      switch value.logged {
      case .text(let text) where text.isEmpty || text.utf8.contains(where: { $0 == 0x20 || $0 == 0x22 }):
        append(quoted: text)
      case .text(let text), .bare(let text): append(printable: text)
      }
    }
  }

  mutating func append(raw: [UInt8]) { bytes += raw }

  mutating func end() {
    if form == .json { bytes.append(UInt8(ascii: "}")) }
    bytes.append(UInt8(ascii: "\n"))
  }

  borrowing func writeToStandardError() {
    // A short or failed write loses the rest of the line: there is nowhere left to report it, and trying again could
    // block a loop on a stuck reader.
    bytes.withUnsafeBytes { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }

  var string: String { String(decoding: bytes, as: UTF8.self) }

  private mutating func append(ascii text: String) { bytes += text.utf8 }

  /// Text as a JSON string.
  private mutating func append(quoted text: String) {
    bytes.append(UInt8(ascii: "\""))
    appendClipped(text) { byte, bytes in
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"):
        bytes.append(UInt8(ascii: "\\"))
        bytes.append(byte)
      case UInt8(ascii: "\n"): bytes += "\\n".utf8
      case UInt8(ascii: "\t"): bytes += "\\t".utf8
      case UInt8(ascii: "\r"): bytes += "\\r".utf8
      case 0..<0x20, 0x7F:
        let digits = Array("0123456789abcdef".utf8)
        bytes += "\\u00".utf8
        bytes.append(digits[Int(byte >> 4)])
        bytes.append(digits[Int(byte & 15)])
      default: bytes.append(byte)
      }
    }
    bytes.append(UInt8(ascii: "\""))
  }

  /// Text for a terminal: control characters, which could steer it, become "?".
  private mutating func append(printable text: String) {
    appendClipped(text) { byte, bytes in bytes.append(byte < 0x20 || byte == 0x7F ? UInt8(ascii: "?") : byte) }
  }

  private mutating func appendClipped(_ text: String, _ print: (UInt8, inout [UInt8]) -> Void) {
    var text = text
    text.withUTF8 { utf8 in
      var length = utf8.count
      if length > Self.maximumTextBytes {
        length = Self.maximumTextBytes
        while length > 0, utf8[length] & 0xC0 == 0x80 { length -= 1 }  // not inside a character
      }
      for byte in utf8[..<length] { print(byte, &bytes) }
      if length < utf8.count { bytes += "…".utf8 }
    }
  }
}

extension Logger.Level {
  /// Five characters, so that lines align.
  var tag: String {
    switch self {
    case .trace: "TRACE"
    case .debug: "DEBUG"
    case .info: "INFO "
    case .warning: "WARN "
    case .error: "ERROR"
    }
  }
}

func isStandardErrorTerminal() -> Bool { isatty(STDERR_FILENO) == 1 }
