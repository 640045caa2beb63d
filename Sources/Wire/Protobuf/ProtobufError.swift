/// Why bytes are not a message.
public struct ProtobufError: Error, Sendable, Equatable, CustomStringConvertible {
  public enum Code: Sendable {
    /// The input ends inside a field.
    case truncated
    /// A varint of more than 10 bytes, a tag of more than 5 bytes or 32 bits, field number 0, an unknown wire type, an end of a group
    /// that was never opened.
    case malformed
    /// A `string` that is not UTF-8.
    case invalidUTF8
    /// More than `WireReader.depthLimit` messages or groups inside each other.
    case tooDeep
    /// Text that is not base64.
    case invalidBase64
  }

  public let code: Code
  /// A sentence for people.
  public let message: String

  public init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  public var description: String { message }

  @usableFromInline static let truncated = ProtobufError(.truncated, "the message ends inside a field")
  @usableFromInline static let longVarint = ProtobufError(.malformed, "a varint is longer than 10 bytes")
  @usableFromInline static let badTag = ProtobufError(.malformed, "a tag has field number 0 or is too long")
  @usableFromInline static let badWireType = ProtobufError(.malformed, "a field has an unknown wire type")
  @usableFromInline static let strayEndGroup = ProtobufError(.malformed, "a group ends that was not opened")
  @usableFromInline static let invalidUTF8 = ProtobufError(.invalidUTF8, "a string field is not UTF-8")
  @usableFromInline static let tooDeep = ProtobufError(.tooDeep, "messages are nested too deeply")
}
