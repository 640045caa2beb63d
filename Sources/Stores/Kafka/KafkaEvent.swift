internal import CRdKafka

/// What a producer or a consumer reports beside its records and deliveries.
public enum KafkaEvent: Sendable {
  /// A broker can't be reached, all are down, and the like: librdkafka goes on by itself unless the code is `.fatal`.
  case error(KafkaError)
  /// The offset to read next is not in the log: what stood there is lost to this reader. The partition is read no more
  /// until it is assigned again, with an offset that exists.
  case offsetReset(topic: String, partition: Int32, KafkaError)
  /// One partition can't be read at present (no leader, not authorised, gone); librdkafka tries again.
  case partitionError(topic: String, partition: Int32, KafkaError)
  /// librdkafka's statistics, JSON, every `statisticsInterval`.
  case statistics(String)
  /// A line of librdkafka's log. The level is syslog's: 3 error, 4 warning, 6 information, 7 debug.
  case log(level: Int32, facility: String, message: String)
}

extension KafkaEvent {
  /// Reads an ERROR, STATS or LOG event of librdkafka, nil for any other. The event stays the caller's.
  init?(_ event: OpaquePointer, of client: String) {
    switch rd_kafka_event_type(event) {
    case RD_KAFKA_EVENT_ERROR: self = KafkaEvent.error(of: event, client)
    case RD_KAFKA_EVENT_STATS:
      guard let text = rd_kafka_event_stats(event) else { return nil }
      self = .statistics(String(cString: text))
    case RD_KAFKA_EVENT_LOG:
      var facility: UnsafePointer<CChar>?
      var text: UnsafePointer<CChar>?
      var level: Int32 = 0
      guard rd_kafka_event_log(event, &facility, &text, &level) == 0, let facility, let text else { return nil }
      self = .log(level: level, facility: String(cString: facility), message: String(cString: text))
    default: return nil
    }
  }

  private static func error(of event: OpaquePointer, _ client: String) -> KafkaEvent {
    let code = rd_kafka_event_error(event)
    let detail = rd_kafka_event_error_string(event).map { String(cString: $0) }
    if rd_kafka_event_error_is_fatal(event) != 0 {
      return .error(KafkaError(code: .fatal, message: "\(client): \(detail ?? "fatal error")"))
    }
    // Set for errors of one partition only; "must be freed with rd_kafka_topic_partition_destroy".
    guard let place = rd_kafka_event_topic_partition(event) else {
      return .error(KafkaError(code, client, detail: detail))
    }
    defer { rd_kafka_topic_partition_destroy(place) }
    let topic = String(cString: place.pointee.topic)
    let partition = place.pointee.partition
    let error = KafkaError(code, "\(topic)/\(partition)", detail: detail)
    return error.code == .offsetOutOfRange
      ? .offsetReset(topic: topic, partition: partition, error)
      : .partitionError(topic: topic, partition: partition, error)
  }
}
