public import Protobuf

/// A method that a server answers.
public final class Route {
  public let service: String
  public let method: String
  public let kind: MethodKind
  /// A small number, unique in its router, for interceptors that keep something per method.
  public let index: Int
  let start: (ServerCall) -> any ServerStreamHandler

  init(
    service: String, method: String, kind: MethodKind, index: Int,
    start: @escaping (ServerCall) -> any ServerStreamHandler
  ) {
    self.service = service
    self.method = method
    self.kind = kind
    self.index = index
    self.start = start
  }
}

/// The methods of a server by path. A value: fill it, then give it to `Server`.
public struct Router {
  private var routes: [String: Route] = [:]
  private var names: [String] = []
  private var count = 0

  public init() {}

  /// The full names of the services, in the order of their registration.
  public var services: [String] { names }

  func route(_ path: String) -> Route? { routes[path] }

  /// Answers a method with callbacks: for streams that are many and live long.
  ///
  /// - Parameter start: called when the call's header block is there; its handler belongs to the call.
  public mutating func stream<Q: Message, R: Message>(
    _ method: Method<Q, R>, _ start: @escaping (ServerCall) -> any ServerStreamHandler
  ) {
    routes[method.path] = Route(
      service: method.service, method: method.name, kind: method.kind, index: count, start: start)
    count += 1
    if !names.contains(method.service) { names.append(method.service) }
  }

  /// Answers the methods of a service under a second name as well. Register its methods before.
  public mutating func alias(service alias: String, of service: String) {
    for route in routes.values where route.service == service { routes["/\(alias)/\(route.method)"] = route }
  }

  public mutating func unary<Q: Message, R: Message>(
    _ method: Method<Q, R>, _ body: @escaping (Q, ServerContext) async throws -> R
  ) {
    stream(method) { call in UnaryHandler(call, body) }
  }

  public mutating func clientStreaming<Q: Message, R: Message>(
    _ method: Method<Q, R>, _ body: @escaping (RequestStream<Q>, ServerContext) async throws -> R
  ) {
    stream(method) { call in
      StoryHandler(call) { requests, responses, context in
        try responses.writeLast(try await body(requests, context))
      } as StoryHandler<Q, R>
    }
  }

  public mutating func serverStreaming<Q: Message, R: Message>(
    _ method: Method<Q, R>, _ body: @escaping (Q, ResponseWriter<R>, ServerContext) async throws -> Void
  ) {
    stream(method) { call in
      StoryHandler(call) { requests, responses, context in
        try await body(try await requests.only(), responses, context)
      } as StoryHandler<Q, R>
    }
  }

  public mutating func bidirectional<Q: Message, R: Message>(
    _ method: Method<Q, R>, _ body: @escaping (RequestStream<Q>, ResponseWriter<R>, ServerContext) async throws -> Void
  ) {
    stream(method) { call in StoryHandler(call, body) as StoryHandler<Q, R> }
  }
}
