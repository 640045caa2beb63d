import Reactor
import Redis
import TestSupport

/// Runs a story on a loop of its own, with a Redis of its own.
func withRedis(_ body: @escaping @Sendable (EventLoop, RedisClient) async throws -> Void) async throws {
  let server = try RedisServer()
  let loop = try EventLoop.start(name: "test")
  defer { loop.stop() }
  let address = try RedisAddress(server.address)
  try await loop.run {
    let client = RedisClient(loop: loop, address: address)
    defer { client.close() }
    try await client.connect()
    try await body(loop, client)
  }
  withExtendedLifetime(server) {}
}
