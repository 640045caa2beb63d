import GRPC
import Reactor
import Schema
import StandardServices
import Testing

@Suite(.timeLimit(.minutes(1))) struct StandardServicesTests {
  private func with<T: Sendable>(
    _ body: @escaping @Sendable (HealthService, Channel) async throws -> T
  ) async throws -> T {
    let loop = try EventLoop.start(name: "standard")
    defer { loop.stop() }
    return try await loop.run {
      let health = HealthService(services: [PushV1.PushService.name])
      var router = Router()
      router.add(health: health)
      router.addReflection()
      let server = Server(loop: loop, router: router)
      let address = try await server.listen(on: HostPort(host: "127.0.0.1", port: 0))
      let channel = Channel(loop: loop, target: HostPort(host: "127.0.0.1", port: address.port))
      let result = try await body(health, channel)
      channel.close()
      await server.shutdown(grace: .zero)
      return result
    }
  }

  @Test func healthIsCheckedAndWatched() async throws {
    let (first, watched, unknown) = try await with { health, channel in
      let client = GRPCHealthV1.HealthClient(channel)
      let first = try await client.check(GRPCHealthV1.HealthCheckRequest()).status
      let watch = try await client.watch(GRPCHealthV1.HealthCheckRequest(service: PushV1.PushService.name))
      var watched = [try await watch.next()?.status]
      health.set(serving: true)
      watched.append(try await watch.next()?.status)
      watch.cancel()
      var unknown = StatusCode.ok
      do { _ = try await client.check(GRPCHealthV1.HealthCheckRequest(service: "nobody")) } catch {
        unknown = Status(error).code
      }
      return (first, watched, unknown)
    }
    #expect(first == .notServing)
    #expect(watched == [.notServing, .serving])
    #expect(unknown == .notFound)
  }

  @Test func reflectionListsServicesAndTheirFiles() async throws {
    let (services, files, error) = try await with { _, channel in
      let call = try await GRPCReflectionV1.ServerReflectionClient(channel).serverReflectionInfo()
      typealias Request = GRPCReflectionV1.ServerReflectionRequest
      var services: [String] = []
      var files = 0
      var error: Int32 = 0
      try await call.send(Request(messageRequest: .listServices("")))
      if case .listServicesResponse(let list) = try await call.next()?.messageResponse {
        services = list.service.map(\.name)
      }
      try await call.send(Request(messageRequest: .fileContainingSymbol("push.v1.JobService")))
      if case .fileDescriptorResponse(let found) = try await call.next()?.messageResponse {
        files = found.fileDescriptorProto.count
      }
      try await call.send(Request(messageRequest: .fileContainingSymbol("no.such.Thing")))
      if case .errorResponse(let response) = try await call.next()?.messageResponse { error = response.errorCode }
      call.finishSending()
      return (services, files, error)
    }
    #expect(services == ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"])
    #expect(files == 2)
    #expect(error == 5)
  }
}
