public import Bytes
internal import HTTP2
internal import Protobuf
internal import Reactor

/// gRPC's status codes.
public enum StatusCode: Int, Sendable, CaseIterable {
  case ok = 0
  case cancelled, unknown, invalidArgument, deadlineExceeded, notFound, alreadyExists, permissionDenied
  case resourceExhausted, failedPrecondition, aborted, outOfRange, unimplemented, `internal`, unavailable, dataLoss
  case unauthenticated

  /// As the specification spells it: `INVALID_ARGUMENT`.
  public var name: String {
    switch self {
    case .ok: "OK"
    case .cancelled: "CANCELLED"
    case .unknown: "UNKNOWN"
    case .invalidArgument: "INVALID_ARGUMENT"
    case .deadlineExceeded: "DEADLINE_EXCEEDED"
    case .notFound: "NOT_FOUND"
    case .alreadyExists: "ALREADY_EXISTS"
    case .permissionDenied: "PERMISSION_DENIED"
    case .resourceExhausted: "RESOURCE_EXHAUSTED"
    case .failedPrecondition: "FAILED_PRECONDITION"
    case .aborted: "ABORTED"
    case .outOfRange: "OUT_OF_RANGE"
    case .unimplemented: "UNIMPLEMENTED"
    case .internal: "INTERNAL"
    case .unavailable: "UNAVAILABLE"
    case .dataLoss: "DATA_LOSS"
    case .unauthenticated: "UNAUTHENTICATED"
    }
  }
}

/// How a call ended: a code and a sentence; thrown by handlers and by calls.
public struct Status: Error, Sendable, Equatable, CustomStringConvertible {
  public var code: StatusCode
  /// A sentence for people.
  public var message: String
  /// A serialized google.rpc.Status or what the service defines; travels as `grpc-status-details-bin`.
  public var details: Bytes
  /// When to try again, for UNAVAILABLE and RESOURCE_EXHAUSTED; travels as `grpc-retry-pushback-ms`.
  public var retryAfter: Duration?

  public init(_ code: StatusCode, _ message: String = "", details: Bytes = Bytes(), retryAfter: Duration? = nil) {
    self.code = code
    self.message = message
    self.details = details
    self.retryAfter = retryAfter
  }

  public static let ok = Status(.ok)

  public var description: String { message.isEmpty ? code.name : "\(code.name): \(message)" }

  /// The status for an error that a handler threw: its own, or UNKNOWN with its description.
  public init(_ error: any Error) {
    switch error {
    case let status as Status: self = status
    case is CancellationError: self = Status(.cancelled, "the call was cancelled")
    default: self = Status(.unknown, "\(error)")
    }
  }

  // MARK: On the wire

  /// The trailer fields that carry this status, then those of `metadata`.
  func trailerFields(_ metadata: Metadata = Metadata()) -> [HeaderField] {
    var fields = [HeaderField("grpc-status", String(code.rawValue))]
    if !message.isEmpty {
      fields.append(HeaderField("grpc-message", Status.percentEncoded(message, limit: 2048)))
    }
    if !details.isEmpty { fields.append(HeaderField("grpc-status-details-bin", Base64.unpadded(details))) }
    if let retryAfter {
      fields.append(HeaderField("grpc-retry-pushback-ms", String(max(.zero, retryAfter).wholeMilliseconds)))
    }
    return fields + metadata.headerFields
  }

  /// Reads the status out of trailers; nil when they hold none.
  init?(trailers: Metadata) {
    guard let text = trailers["grpc-status"] else { return nil }
    let code = Int(text).flatMap(StatusCode.init(rawValue:)) ?? .unknown
    let message = trailers["grpc-message"].map(Status.percentDecoded) ?? ""
    let pushback = trailers["grpc-retry-pushback-ms"].flatMap { Int64($0) }.flatMap { $0 < 0 ? nil : $0 }
    self.init(
      code, message, details: trailers.binary("grpc-status-details-bin") ?? Bytes(),
      retryAfter: pushback.map { .milliseconds($0) })
  }

  /// RFC 3986's form of everything outside of printable ASCII, and of `%`.
  ///
  /// - Parameter limit: the most bytes of the result; the rest of the text is cut off.
  static func percentEncoded(_ text: String, limit: Int = .max) -> String {
    let isPlain = text.utf8.allSatisfy { $0 >= 0x20 && $0 <= 0x7E && $0 != UInt8(ascii: "%") }
    if isPlain, text.utf8.count <= limit { return text }
    let digits = Array("0123456789ABCDEF".utf8)
    var encoded: [UInt8] = []
    for scalar in text.unicodeScalars {
      let start = encoded.count
      for byte in String(scalar).utf8 {
        if byte >= 0x20, byte <= 0x7E, byte != UInt8(ascii: "%") {
          encoded.append(byte)
        } else {
          encoded += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
        }
      }
      if encoded.count > limit {
        encoded.removeSubrange(start...)
        break
      }
    }
    return String(decoding: encoded, as: UTF8.self)
  }

  /// What isn't a valid escape stays as it is.
  static func percentDecoded(_ text: String) -> String {
    let source = Array(text.utf8)
    func digit(_ index: Int) -> UInt8? {
      index < source.count ? Character(UnicodeScalar(source[index])).hexDigitValue.map(UInt8.init) : nil
    }
    var decoded: [UInt8] = []
    var index = 0
    while index < source.count {
      if source[index] == UInt8(ascii: "%"), let high = digit(index + 1), let low = digit(index + 2) {
        decoded.append(high << 4 | low)
        index += 3
      } else {
        decoded.append(source[index])
        index += 1
      }
    }
    return String(decoding: decoded, as: UTF8.self)
  }
}
