internal import CRdKafka
internal import Reactor

/// A topic to create.
public struct KafkaTopic: Equatable, Sendable {
  public var name: String
  public var partitions: Int
  /// Copies of each partition; -1 for the broker's default.
  public var replicas: Int

  public init(_ name: String, partitions: Int, replicas: Int = -1) {
    self.name = name
    self.partitions = partitions
    self.replicas = replicas
  }
}

extension KafkaHandle {
  func partitionCount(of topic: String, timeout: Duration) async throws(KafkaError) -> Int {
    guard let count = try await partitionCounts(timeout: timeout)[topic] else {
      throw KafkaError(code: .unknownTopicOrPartition, message: "there is no topic \(topic)")
    }
    return count
  }

  /// The partition counts of all topics: asking for one by name may create it on a broker that does so by itself.
  func partitionCounts(timeout: Duration) async throws(KafkaError) -> [String: Int] {
    try await blocking { client in
      var metadata: UnsafePointer<rd_kafka_metadata>?
      let error = rd_kafka_metadata(client.pointer, 1, nil, &metadata, timeout.milliseconds)
      guard error == RD_KAFKA_RESP_ERR_NO_ERROR, let metadata else { return .failure(KafkaError(error, "metadata")) }
      defer { rd_kafka_metadata_destroy(metadata) }
      var counts: [String: Int] = [:]
      for index in 0..<Int(metadata.pointee.topic_cnt) {
        let topic = metadata.pointee.topics[index]
        guard topic.err == RD_KAFKA_RESP_ERR_NO_ERROR else { continue }
        counts[String(cString: topic.topic)] = Int(topic.partition_cnt)
      }
      return .success(counts)
    }
  }

  /// Creates those of `topics` that are not there; one that has fewer partitions than asked for is left as it is.
  ///
  /// - Throws: `.unsupported` from librdkafka's mock cluster, whose topics are made where it runs.
  func createTopics(_ topics: [KafkaTopic], timeout: Duration) async throws(KafkaError) {
    let there = try await partitionCounts(timeout: timeout)
    let missing = topics.filter { there[$0.name] == nil }
    guard !missing.isEmpty else { return }
    try await blocking { client in
      KafkaHandle.create(missing, client.pointer, timeout.milliseconds)
    }
  }

  /// Asks on a queue of its own and waits for the answer. On the pool.
  private static func create(_ topics: [KafkaTopic], _ client: OpaquePointer, _ milliseconds: Int32) -> Result<
    Void, KafkaError
  > {
    var text = [CChar](repeating: 0, count: 512)
    var requests: [OpaquePointer?] = topics.map {
      rd_kafka_NewTopic_new($0.name, Int32(clamping: $0.partitions), Int32(clamping: $0.replicas), &text, text.count)
    }
    defer { for request in requests { if let request { rd_kafka_NewTopic_destroy(request) } } }
    guard requests.allSatisfy({ $0 != nil }) else {
      return .failure(KafkaError(code: .configuration, message: "create topics: a name or a count is not valid"))
    }
    let options = rd_kafka_AdminOptions_new(client, RD_KAFKA_ADMIN_OP_CREATETOPICS)
    defer { rd_kafka_AdminOptions_destroy(options) }
    rd_kafka_AdminOptions_set_request_timeout(options, milliseconds, &text, text.count)
    rd_kafka_AdminOptions_set_operation_timeout(options, milliseconds, &text, text.count)
    let queue = rd_kafka_queue_new(client)
    defer { rd_kafka_queue_destroy(queue) }
    rd_kafka_CreateTopics(client, &requests, requests.count, options, queue)
    // The result comes at the latest when the request times out, as an event of its own.
    guard let event = rd_kafka_queue_poll(queue, milliseconds &+ 1000) else {
      return .failure(KafkaError(RD_KAFKA_RESP_ERR__TIMED_OUT, "create topics"))
    }
    defer { rd_kafka_event_destroy(event) }
    return result(of: event)
  }

  private static func result(of event: OpaquePointer) -> Result<Void, KafkaError> {
    let error = rd_kafka_event_error(event)
    guard error == RD_KAFKA_RESP_ERR_NO_ERROR else {
      let detail = rd_kafka_event_error_string(event).map { String(cString: $0) }
      return .failure(KafkaError(error, "create topics", detail: detail))
    }
    guard let answer = rd_kafka_event_CreateTopics_result(event) else { return .success(()) }
    var count = 0
    let topics = rd_kafka_CreateTopics_result_topics(answer, &count)
    for index in 0..<count {
      guard let topic = topics?[index] else { continue }
      let error = rd_kafka_topic_result_error(topic)
      // Another process was faster: what was wanted is there.
      if error == RD_KAFKA_RESP_ERR_NO_ERROR || error == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS { continue }
      let name = rd_kafka_topic_result_name(topic).map { String(cString: $0) } ?? ""
      let detail = rd_kafka_topic_result_error_string(topic).map { String(cString: $0) }
      return .failure(KafkaError(error, "create topic \(name)", detail: detail))
    }
    return .success(())
  }
}
