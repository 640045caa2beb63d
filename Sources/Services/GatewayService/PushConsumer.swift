internal import Bytes
internal import Kafka
internal import Reactor
internal import Routing
internal import Telemetry

/// Reads this node's partition of `client-push` and the whole of `client-broadcast`, and keeps what is for this node.
///
/// Belongs to its loop. No group: the node reads the partition that it leases, from the end that it looked up before it
/// let clients in. Where it goes on after the log has lost its offset is the end again: what stood there is lost to it.
final class PushConsumer {
  private let consumer: KafkaConsumer
  private let nodeID: Bytes
  private let metrics: GatewayMetrics
  private let log: Logger
  private let loop: EventLoop
  private let deliver: (PushRecord) -> Void
  /// Records may have been passed over.
  var onGap: () -> Void = {}
  /// Before a partition that could not be assigned is tried again.
  static let retryDelay: Duration = .seconds(1)

  init(
    _ consumer: KafkaConsumer, nodeID: String, loop: EventLoop, metrics: GatewayMetrics, log: Logger,
    deliver: @escaping (PushRecord) -> Void
  ) {
    self.consumer = consumer
    self.nodeID = Bytes(nodeID)
    self.loop = loop
    self.metrics = metrics
    self.log = log
    self.deliver = deliver
    consumer.onRecords = { [unowned self] in receive($0) }
    consumer.onEvent = { [unowned self] in receive($0) }
  }

  /// Begins to read; everything that is produced after this has returned will come.
  func start(partition: Int32) async throws {
    try await consumer.assign(topic: Publisher.pushTopic, partition: partition, from: .end)
    try await consumer.assign(topic: Publisher.broadcastTopic, partition: 0, from: .end)
  }

  func close() async { await consumer.close() }

  private func receive(_ records: [KafkaRecord]) {
    for record in records {
      let isPush = record.topic == Publisher.pushTopic
      let topic = isPush ? metrics.push : metrics.broadcast
      topic.consumed.increment()
      if isPush, record.header(PushRecord.nodeHeader) != nodeID {
        topic.filtered.increment()
        continue
      }
      topic.kept.increment()
      do throws(RoutingError) {
        deliver(try PushRecord(encoded: record.value))
      } catch {
        metrics.malformed.increment()
        log.warning(
          "record dropped", ["topic": record.topic, "offset": record.offset, "error": error.message])
      }
    }
  }

  private func receive(_ event: KafkaEvent) {
    switch event {
    case .error(let error): log.warning("Kafka consumer", ["error": error.message])
    case .partitionError(let topic, let partition, let error):
      log.warning("partition not readable", ["topic": topic, "partition": partition, "error": error.message])
    case .offsetReset(let topic, let partition, let error):
      metrics.offsetResets.increment()
      log.warning("offset gone", ["topic": topic, "partition": partition, "error": error.message])
      loop.spawn { [self] in await assignAgain(topic, partition) }
    case .log(let level, _, let message): log.log(level <= 4 ? .info : .debug, "librdkafka", ["message": message])
    case .statistics: break
    }
  }

  private func assignAgain(_ topic: String, _ partition: Int32) async {
    while true {
      do throws(KafkaError) {
        try await consumer.assign(topic: topic, partition: partition, from: .end)
        return onGap()
      } catch {
        if error.code == .closed { return }
        log.warning("partition not assigned", ["topic": topic, "partition": partition, "error": error.message])
        try? await loop.sleep(for: PushConsumer.retryDelay)
      }
    }
  }
}
