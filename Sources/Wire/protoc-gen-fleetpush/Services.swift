/// Writes what both sides of one service need: its methods, a client, a handler protocol and its registration.
struct ServiceWriter {
  typealias MethodDescriptor = ServiceDescriptor.MethodDescriptor

  let catalogue: Catalogue
  let file: FileDescriptor
  let descriptor: ServiceDescriptor
  let path: [Int32]

  init(_ descriptor: ServiceDescriptor, path: [Int32], _ file: FileDescriptor, _ catalogue: Catalogue) {
    self.descriptor = descriptor
    self.path = path
    self.file = file
    self.catalogue = catalogue
  }

  private var fullName: String {
    file.package.isEmpty ? descriptor.name : "\(file.package).\(descriptor.name)"
  }

  private func comment(_ index: Int) -> String? { file.comments[path + [2, Int32(index)]] }

  private func types(_ method: MethodDescriptor) -> (input: String, output: String) {
    (catalogue.swiftName(method.input), catalogue.swiftName(method.output))
  }

  private func kind(_ method: MethodDescriptor) -> String {
    switch (method.clientStreaming, method.serverStreaming) {
    case (false, false): "unary"
    case (true, false): "clientStreaming"
    case (false, true): "serverStreaming"
    case (true, true): "bidirectional"
    }
  }

  /// Inside the namespace.
  func write(to source: inout Source) {
    methods(&source)
    source.line()
    client(&source)
    source.line()
    handler(&source)
  }

  private func methods(_ source: inout Source) {
    source.documentation(file.comments[path])
    source.block("public enum \(descriptor.name)") { source in
      source.line("public static let name = \"\(fullName)\"")
      for (index, method) in descriptor.methods.enumerated() {
        let (input, output) = types(method)
        source.documentation(comment(index))
        source.line("public static let \(propertyName(method.name)) = Method<\(input), \(output)>(")
        source.line("  service: name, name: \"\(method.name)\", kind: .\(kind(method)))")
      }
    }
  }

  private func client(_ source: inout Source) {
    source.line("/// Calls \(fullName) over one channel, on the channel's loop.")
    source.block("public struct \(descriptor.name)Client") { source in
      source.line("public let channel: Channel")
      source.line()
      source.line("public init(_ channel: Channel) { self.channel = channel }")
      for (index, method) in descriptor.methods.enumerated() {
        let (input, output) = types(method)
        let name = propertyName(method.name)
        let constant = "\(descriptor.name).\(name)"
        source.line()
        source.documentation(comment(index))
        switch kind(method) {
        case "unary":
          let head = "public func \(name)(_ request: \(input), options: CallOptions = CallOptions())"
          source.block("\(head) async throws -> \(output)") { source in
            source.line("try await channel.unary(\(constant), request, options: options)")
          }
        case "serverStreaming":
          let head = "public func \(name)(_ request: \(input), options: CallOptions = CallOptions())"
          source.block("\(head) async throws -> ResponseStream<\(output)>") { source in
            source.line("try await channel.serverStreaming(\(constant), request, options: options)")
          }
        case "clientStreaming":
          let head = "public func \(name)(options: CallOptions = CallOptions())"
          source.block("\(head) async throws -> ClientStreamingCall<\(input), \(output)>") { source in
            source.line("try await channel.clientStreaming(\(constant), options: options)")
          }
        default:
          let head = "public func \(name)(options: CallOptions = CallOptions())"
          source.block("\(head) async throws -> BidirectionalCall<\(input), \(output)>") { source in
            source.line("try await channel.bidirectional(\(constant), options: options)")
          }
        }
      }
    }
  }

  private func handler(_ source: inout Source) {
    source.line("/// Answers \(fullName); registered with `Router.add(\(label):)`.")
    source.block("public protocol \(descriptor.name)Handler") { source in
      for (index, method) in descriptor.methods.enumerated() {
        let (input, output) = types(method)
        source.documentation(comment(index))
        let request = method.clientStreaming ? "_ requests: RequestStream<\(input)>" : "_ request: \(input)"
        let response = method.serverStreaming ? ", _ responses: ResponseWriter<\(output)>" : ""
        let result = method.serverStreaming ? "" : " -> \(output)"
        source.line(
          "func \(propertyName(method.name))(\(request)\(response), _ context: ServerContext) async throws\(result)")
      }
    }
  }

  private var label: String { lowerCamel(descriptor.name) }

  /// At file scope.
  func writeRegistration(to source: inout Source) {
    let outer = namespace(of: file)
    source.line()
    source.block("extension Router") { source in
      source.line("/// Answers \(fullName) with a handler.")
      source.block("public mutating func add(\(label) handler: some \(outer).\(descriptor.name)Handler)") { source in
        for method in descriptor.methods {
          let name = propertyName(method.name)
          let constant = "\(outer).\(descriptor.name).\(name)"
          if method.serverStreaming {
            source.line("\(kind(method))(\(constant)) { try await handler.\(name)($0, $1, $2) }")
          } else {
            source.line("\(kind(method))(\(constant)) { try await handler.\(name)($0, $1) }")
          }
        }
      }
    }
  }
}
