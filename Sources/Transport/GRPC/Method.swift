public import Protobuf

/// Which side of a call streams.
public enum MethodKind: Sendable {
  case unary, clientStreaming, serverStreaming, bidirectional
}

/// A method of a service with the types of its messages; generated from Protos/.
public struct Method<Request: Message, Response: Message>: Sendable {
  /// The service's full name: `push.v1.PushService`.
  public let service: String
  public let name: String
  public let kind: MethodKind

  public init(service: String, name: String, kind: MethodKind) {
    self.service = service
    self.name = name
    self.kind = kind
  }

  /// What stands in `:path`.
  public var path: String { "/\(service)/\(name)" }
}
