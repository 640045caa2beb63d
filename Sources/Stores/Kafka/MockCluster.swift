internal import CRdKafka

/// librdkafka's mock cluster: brokers in this process that speak Kafka's protocol on 127.0.0.1 and keep a little in memory.
///
/// For one machine and for tests. It keeps about 5 MiB (or 100,000 batches) a partition, doesn't dedupe, and doesn't
/// create topics on request. Its threads are librdkafka's; confined to one thread of the caller's.
public final class MockCluster {
  private let client: OpaquePointer
  private let cluster: OpaquePointer

  public init(brokers: Int) throws(KafkaError) {
    var settings = KafkaSettings(KafkaConnection(bootstrap: "", clientID: "devbroker"))
    settings["log.queue"] = false
    // The instance is only the frame that the cluster runs in: it connects to nothing, and errors alone are of interest.
    settings["log_level"] = 3
    client = try settings.makeClient(RD_KAFKA_PRODUCER, "mock cluster")
    guard let cluster = rd_kafka_mock_cluster_new(client, Int32(clamping: brokers)) else {
      rd_kafka_destroy(client)
      throw KafkaError(code: .other, message: "the mock cluster can't listen")
    }
    self.cluster = cluster
  }

  deinit {
    rd_kafka_mock_cluster_destroy(cluster)
    rd_kafka_destroy(client)
  }

  /// `host:port[,host:port…]`.
  public var bootstrap: String { String(cString: rd_kafka_mock_cluster_bootstraps(cluster)) }

  /// Creates a topic. - Throws: when it is there already, or the count is not valid.
  public func create(_ topic: KafkaTopic) throws(KafkaError) {
    let error = rd_kafka_mock_topic_create(
      cluster, topic.name, Int32(clamping: topic.partitions), Int32(max(1, topic.replicas)))
    guard error == RD_KAFKA_RESP_ERR_NO_ERROR else { throw KafkaError(error, "create topic \(topic.name)") }
  }

  /// Cuts a broker's connections and refuses new ones, or takes them again. Brokers count from 1.
  public func set(broker: Int, isUp: Bool) {
    if isUp {
      rd_kafka_mock_broker_set_up(cluster, Int32(clamping: broker))
    } else {
      rd_kafka_mock_broker_set_down(cluster, Int32(clamping: broker))
    }
  }
}
