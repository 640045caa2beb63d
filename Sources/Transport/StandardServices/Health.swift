public import GRPC
internal import Reactor
public import Schema

/// `grpc.health.v1.Health`: what load balancers and people ask whether a server takes calls. Belongs to its loop.
public final class HealthService {
  private var statuses: [String: GRPCHealthV1.HealthCheckResponse.ServingStatus] = [:]
  private var watchers: [ObjectIdentifier: Wakeup] = [:]

  /// - Parameter services: full names; the server as a whole (the empty name) is always among them. Not serving at first.
  public init(services: [String]) {
    for name in services + [""] { statuses[name] = .notServing }
  }

  /// Sets the status of all services and tells those who watch.
  public func set(serving: Bool) {
    for name in statuses.keys { statuses[name] = serving ? .serving : .notServing }
    for watcher in watchers.values { watcher.fire() }
  }
}

extension HealthService: GRPCHealthV1.HealthHandler {
  public func check(
    _ request: GRPCHealthV1.HealthCheckRequest, _ context: ServerContext
  ) async throws -> GRPCHealthV1.HealthCheckResponse {
    guard let status = statuses[request.service] else {
      throw Status(.notFound, "there is no service \(request.service)")
    }
    return GRPCHealthV1.HealthCheckResponse(status: status)
  }

  public func watch(
    _ request: GRPCHealthV1.HealthCheckRequest, _ responses: ResponseWriter<GRPCHealthV1.HealthCheckResponse>,
    _ context: ServerContext
  ) async throws {
    let change = Wakeup()
    watchers[ObjectIdentifier(change)] = change
    defer { watchers[ObjectIdentifier(change)] = nil }
    context.onCancel { change.fire() }
    var told: GRPCHealthV1.HealthCheckResponse.ServingStatus?
    while !context.isCancelled {
      let status = statuses[request.service] ?? .serviceUnknown
      if status != told {
        told = status
        try await responses.write(GRPCHealthV1.HealthCheckResponse(status: status))
      } else {
        await change.wait()
      }
    }
  }
}
