import FileStore
import GRPC
import GatewayService
import Kafka
import Reactor
import Redis
import Schema
import Telemetry
import Testing
import TestSupport

/// What several gateways share: Redis, a broker, a directory; and a loop that all of them run on.
final class Cluster {
  let loop: EventLoop
  let redisAddress: RedisAddress
  let bootstrap: String
  let store: StoreDirectory
  private var gateways: [TestGateway] = []
  private var channels: [Channel] = []

  init(loop: EventLoop, redis: RedisAddress, bootstrap: String, store: StoreDirectory) {
    self.loop = loop
    redisAddress = redis
    self.bootstrap = bootstrap
    self.store = store
  }

  /// Starts a gateway on a free port.
  func gateway(_ name: String, _ change: (inout GatewayOptions) -> Void = { _ in }) async throws -> TestGateway {
    var options = GatewayOptions(nodeID: name)
    change(&options)
    let redis = RedisClient(loop: loop, address: redisAddress)
    let metrics = MetricsRegistry()
    let gateway = try Gateway(
      options, loop: loop, redis: redis, kafka: KafkaConnection(bootstrap: bootstrap), store: store, metrics: metrics,
      log: .silent)
    let started = TestGateway(name: name, gateway: gateway, redis: redis, metrics: metrics)
    gateways.append(started)
    started.address = try await gateway.start(listen: HostPort(host: "127.0.0.1", port: 0)).description
    return started
  }

  func channel(to gateway: TestGateway) throws -> Channel {
    let target = try #require(HostPort(gateway.address))
    let channel = Channel(loop: loop, target: target)
    channels.append(channel)
    return channel
  }

  /// Connects a client and waits until it is registered.
  func client(
    _ id: String, at gateway: TestGateway, acknowledges: Bool = true, lastSession: String? = nil,
    positions: [PushV1.Position] = [], stream: Int64 = 0, tags: [String: String] = [:]
  ) async throws -> TestClient {
    let channel = try channel(to: gateway)
    let call = try await channel.bidirectional(PushV1.PushService.connect)
    let first: PushV1.ClientMessage.Payload =
      lastSession.map {
        .reconnect(PushV1.ReconnectRequest(clientID: id, lastSessionID: $0, acknowledges: acknowledges))
      }
      ?? .register(
        PushV1.RegisterRequest(
          clientID: id, tags: tags, acknowledges: acknowledges, positions: positions, streamNumber: stream))
    try await call.send(PushV1.ClientMessage(payload: first))
    let answer = try await call.next()
    guard case .registered(let registered) = answer?.payload else {
      throw Status(.internal, "the first answer is not registered: \(String(describing: answer))")
    }
    return TestClient(id: id, call: call, channel: channel, registered: registered)
  }

  func stop() async {
    for channel in channels { channel.close() }
    for gateway in gateways { await gateway.stop() }
  }

  /// Asks again until it holds. The test's own time limit ends it.
  func until(_ condition: () async throws -> Bool) async throws {
    while try await !condition() { try await loop.sleep(for: .milliseconds(10)) }
  }
}

final class TestGateway {
  let name: String
  let gateway: Gateway
  let redis: RedisClient
  let metrics: MetricsRegistry
  var address = ""
  private var isStopped = false

  init(name: String, gateway: Gateway, redis: RedisClient, metrics: MetricsRegistry) {
    self.name = name
    self.gateway = gateway
    self.redis = redis
    self.metrics = metrics
  }

  func stop() async {
    guard !isStopped else { return }
    isStopped = true
    await gateway.stop(grace: .milliseconds(200))
    redis.close()
  }

  /// Cuts it off from Redis, as a process that hangs is.
  func cutOff() { redis.close() }

  /// The value of a series, as /metrics shows it.
  func metric(_ series: String) -> Int {
    for line in metrics.render().split(separator: "\n") where line.hasPrefix(series + " ") {
      return Int(line.split(separator: " ").last ?? "") ?? -1
    }
    return 0
  }
}

struct TestClient {
  let id: String
  let call: BidirectionalCall<PushV1.ClientMessage, PushV1.ServerMessage>
  let channel: Channel
  let registered: PushV1.Registered

  /// The next message, without the answers to heartbeats.
  func next() async throws -> PushV1.ServerMessage? {
    while let message = try await call.next() {
      if case .heartbeat = message.payload { continue }
      return message
    }
    return nil
  }

  func text() async throws -> String? {
    guard case .text(let text) = try await next()?.payload else { return nil }
    return text.content
  }

  /// Acknowledges everything up to a message.
  func acknowledge(_ message: PushV1.ServerMessage) async throws {
    try await send(.ack(PushV1.Acknowledgement(position: Self.position(of: message))))
  }

  static func position(of message: PushV1.ServerMessage) -> PushV1.Position {
    PushV1.Position(source: message.source, inboxID: message.inboxID, seq: message.seq)
  }

  func send(_ payload: PushV1.ClientMessage.Payload) async throws {
    try await call.send(PushV1.ClientMessage(payload: payload))
  }
}

/// Runs a story on a loop of its own, with a Redis, a broker and a directory of its own.
func withCluster(
  partitions: Int = 4, _ body: @escaping @Sendable (Cluster) async throws -> Void
) async throws {
  let redis = try RedisServer()
  let broker = try Broker(topics: ["client-push:\(partitions)", "client-broadcast:1"])
  let directory = try temporaryDirectory("store")
  defer { removeDirectory(directory) }
  let store = try StoreDirectory(at: directory)
  let loop = try EventLoop.start(name: "test")
  defer { loop.stop() }
  let (address, bootstrap) = (try RedisAddress(redis.address), broker.bootstrap)
  try await loop.run {
    let cluster = Cluster(loop: loop, redis: address, bootstrap: bootstrap, store: store)
    do { try await body(cluster) } catch {
      await cluster.stop()
      throw error
    }
    await cluster.stop()
  }
  withExtendedLifetime((redis, broker)) {}
}
