internal import CRdKafka

/// Where the brokers are and how to reach them: what producers, consumers and the administration share.
public struct KafkaConnection: Sendable {
  /// `host:port[,host:port…]`.
  public var bootstrap: String
  /// What brokers and logs call this client.
  public var clientID: String
  /// The longest wait before a broken connection is tried again; doubling from 100 ms, with librdkafka's own jitter.
  public var reconnectBackoffLimit: Duration = .seconds(1)
  /// How often `KafkaEvent.statistics` comes; zero for never.
  public var statisticsInterval: Duration = .zero
  /// librdkafka's own settings, by its names (`security.protocol`, `sasl.username` …); they win over ours.
  public var overrides: [String: String] = [:]

  public init(bootstrap: String, clientID: String = "fleetpush") {
    self.bootstrap = bootstrap
    self.clientID = clientID
  }
}

/// librdkafka's names and values, on their way into an `rd_kafka_conf_t`.
struct KafkaSettings {
  private var values: [(name: String, value: String)] = []
  private let overrides: [String: String]

  init(_ connection: KafkaConnection) {
    overrides = connection.overrides
    self["bootstrap.servers"] = connection.bootstrap
    self["client.id"] = connection.clientID
    self["reconnect.backoff.ms"] = 100
    self["reconnect.backoff.max.ms"] = max(100, connection.reconnectBackoffLimit.milliseconds)
    self["statistics.interval.ms"] = connection.statisticsInterval.milliseconds
    // Small requests one at a time are the rule here: waiting to fill a segment would cost 40 ms.
    self["socket.nagle.disable"] = true
    self["socket.keepalive.enable"] = true
    self["log.queue"] = true
    // An idle connection that a broker closes is no event.
    self["log.connection.close"] = false
  }

  subscript(name: String) -> any CustomStringConvertible {
    get { values.last { $0.name == name }?.value ?? "" }
    set { values.append((name, newValue.description)) }
  }

  /// A new instance that reports everything as events. The caller owns it.
  func makeClient(_ type: rd_kafka_type_t, _ name: String) throws(KafkaError) -> OpaquePointer {
    let configuration = rd_kafka_conf_new()
    var text = [CChar](repeating: 0, count: 512)
    for (key, value) in values + overrides.map({ ($0.key, $0.value) })
    where rd_kafka_conf_set(configuration, key, value, &text, text.count) != RD_KAFKA_CONF_OK {
      rd_kafka_conf_destroy(configuration)
      throw KafkaError(code: .configuration, message: "\(name): \(KafkaSettings.string(text))")
    }
    rd_kafka_conf_set_events(
      configuration,
      RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_STATS | RD_KAFKA_EVENT_LOG)
    // "The conf object is freed by this function on success": on failure it stays ours.
    guard let client = rd_kafka_new(type, configuration, &text, text.count) else {
      rd_kafka_conf_destroy(configuration)
      throw KafkaError(code: .configuration, message: "\(name): \(KafkaSettings.string(text))")
    }
    return client
  }

  private static func string(_ text: [CChar]) -> String {
    String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

extension Duration {
  /// Whole milliseconds, rounded up, within what librdkafka's integers take.
  var milliseconds: Int32 {
    let (seconds, attoseconds) = components
    let parts = (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000
    return Int32(clamping: min(seconds, Int64(Int32.max)) * 1000 + parts)
  }
}
