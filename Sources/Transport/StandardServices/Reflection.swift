internal import Bytes
public import GRPC
internal import Protobuf
internal import Schema

extension Router {
  /// Answers `grpc.reflection.v1.ServerReflection`, and the same under its older name, for the services registered so
  /// far: call it last.
  public mutating func addReflection() {
    let service = GRPCReflectionV1.ServerReflection.name
    add(serverReflection: ReflectionService(services: services + [service]))
    // v1alpha differs from v1 in its package's name only.
    alias(service: "grpc.reflection.v1alpha.ServerReflection", of: service)
  }
}

/// Tells clients such as grpcurl which services there are and what their messages look like.
final class ReflectionService: GRPCReflectionV1.ServerReflectionHandler {
  private typealias Response = GRPCReflectionV1.ServerReflectionResponse
  private let services: [String]

  init(services: [String]) { self.services = services.sorted() }

  func serverReflectionInfo(
    _ requests: RequestStream<GRPCReflectionV1.ServerReflectionRequest>,
    _ responses: ResponseWriter<GRPCReflectionV1.ServerReflectionResponse>, _ context: ServerContext
  ) async throws {
    while let request = try await requests.next() {
      try await responses.write(
        Response(validHost: request.host, originalRequest: request, messageResponse: answer(request)))
    }
  }

  private func answer(_ request: GRPCReflectionV1.ServerReflectionRequest) -> Response.MessageResponse {
    switch request.messageRequest {
    case .listServices:
      let list = services.map { GRPCReflectionV1.ServiceResponse(name: $0) }
      return .listServicesResponse(GRPCReflectionV1.ListServiceResponse(service: list))
    case .fileByFilename(let name):
      return files(SchemaDescriptors.files.first { $0.name == name }, "there is no file \(name)")
    case .fileContainingSymbol(let symbol):
      return files(
        SchemaDescriptors.files.first { $0.symbols.contains(symbol) }, "nothing is called \(symbol)")
    case .fileContainingExtension(let request):
      return error(.notFound, "\(request.containingType) has no extensions")
    case .allExtensionNumbersOfType(let type):
      guard SchemaDescriptors.files.contains(where: { $0.symbols.contains(type) }) else {
        return error(.notFound, "nothing is called \(type)")
      }
      return .allExtensionNumbersResponse(GRPCReflectionV1.ExtensionNumberResponse(baseTypeName: type))
    case nil:
      return error(.invalidArgument, "the request asks for nothing")
    }
  }

  /// The file and all that it imports, the file itself first.
  private func files(_ file: SchemaFile?, _ otherwise: String) -> Response.MessageResponse {
    guard let file else { return error(.notFound, otherwise) }
    var names = [file.name]
    var descriptors: [Bytes] = []
    var next = 0
    while next < names.count {
      if let file = SchemaDescriptors.files.first(where: { $0.name == names[next] }) {
        do throws(ProtobufError) { descriptors.append(try file.descriptor()) } catch {
          return self.error(.internal, "the descriptor of \(file.name) is damaged: \(error)")
        }
        names += file.dependencies.filter { !names.contains($0) }
      }
      next += 1
    }
    return .fileDescriptorResponse(GRPCReflectionV1.FileDescriptorResponse(fileDescriptorProto: descriptors))
  }

  private func error(_ code: StatusCode, _ sentence: String) -> Response.MessageResponse {
    .errorResponse(GRPCReflectionV1.ErrorResponse(errorCode: Int32(code.rawValue), errorMessage: sentence))
  }
}
