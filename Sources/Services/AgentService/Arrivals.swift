internal import Glibc

/// Prints what arrives at the endpoint: one line each, for people or as JSON.
struct Arrivals: Sendable {
  /// What the user of the endpoint is shown. Only the fields that its kind has are set.
  struct Arrival: Encodable {
    var kind: String
    var messageID: String?
    var jobID: String?
    var content: String?
    var type: String?
    var details: String?
    var redelivered: Bool?
    var name: String?
    var path: String?
    var size: Int64?
    var md5: String?
    var durationMilliseconds: Int64?
    var error: String?

    init(_ kind: String) { self.kind = kind }

    enum CodingKeys: String, CodingKey {
      case kind, content, type, details, redelivered, name, path, size, md5, error
      case messageID = "message_id"
      case jobID = "job_id"
      case durationMilliseconds = "duration_ms"
    }
  }

  let asJSON: Bool
  /// Takes each line with its newline.
  let write: @Sendable ([UInt8]) -> Void

  init(asJSON: Bool, write: @escaping @Sendable ([UInt8]) -> Void = Arrivals.writeToStandardOutput) {
    self.asJSON = asJSON
    self.write = write
  }

  func print(_ arrival: Arrival) {
    if asJSON {
      if let line = try? encodeJSON(arrival) { write(line + [UInt8(ascii: "\n")]) }
    } else {
      write(Array((Self.printable(Self.sentence(arrival)) + "\n").utf8))
    }
  }

  private static func sentence(_ arrival: Arrival) -> String {
    switch arrival.kind {
    case "text": "text: \(arrival.content ?? "")"
    case "event": "event \(arrival.type ?? ""): \(arrival.details ?? "")"
    case "file":
      "file \(arrival.name ?? ""): \(arrival.size ?? 0) bytes, MD5 \(arrival.md5 ?? ""), "
        + "\(arrival.durationMilliseconds ?? 0) ms, \(arrival.path ?? "")"
    default: "\(arrival.kind) \(arrival.name ?? ""): \(arrival.error ?? "")"
    }
  }

  /// Without control characters, which could steer a terminal or fake a line.
  private static func printable(_ text: String) -> String {
    String(
      String.UnicodeScalarView(
        text.unicodeScalars.map { $0.value < 0x20 || (0x7F...0x9F).contains($0.value) ? "?" : $0 }))
  }

  /// A reader that has gone away (EPIPE) is nothing to stop for: files still have to arrive.
  static let writeToStandardOutput: @Sendable ([UInt8]) -> Void = { line in
    line.withUnsafeBytes { source in
      var rest = source[...]
      while !rest.isEmpty {
        let count = Glibc.write(STDOUT_FILENO, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { return }
        rest = rest.dropFirst(count)
      }
    }
  }
}
