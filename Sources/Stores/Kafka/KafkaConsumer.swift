internal import Bytes
internal import CRdKafka
public import Reactor

/// Reads partitions that it is told to, from offsets that it is told: no group, so no coordinator and no rebalance.
///
/// Belongs to its loop; `close` before it is dropped, or the loop waits for librdkafka's threads.
public final class KafkaConsumer {
  public struct Options: Sendable {
    /// How long the broker holds a fetch that finds nothing. A broker answers as soon as there is data, so this is only
    /// the rate of idle requests; librdkafka's mock cluster doesn't, so there it is the delay of a record.
    public var fetchWait: Duration = .milliseconds(10)
    /// Records that librdkafka fetches ahead of the loop, at most, in memory; past that it stops fetching.
    public var maxPrefetchedKilobytes = 16 * 1024
    /// The largest answer to one fetch for one partition; a larger single record still comes through.
    public var maxFetchBytes = 1024 * 1024

    public init() {}
  }

  /// Where to begin to read.
  public enum Start: Equatable, Sendable {
    /// The first record that the log holds.
    case beginning
    /// What is produced after `assign` has returned: the end is looked up, not left to the first fetch.
    case end
    case offset(Int64)
  }

  private struct Place: Hashable {
    let topic: String
    let partition: Int32
  }

  let handle: KafkaHandle
  private var topics: [String: OpaquePointer] = [:]
  private var names: [OpaquePointer: String] = [:]
  private var assigned: Set<Place> = []
  private var batch: [KafkaRecord] = []
  /// Records in the order of each partition, all that a turn found. Called on the loop, never with an empty batch.
  public var onRecords: (([KafkaRecord]) -> Void)?
  /// Errors, offset resets, statistics and logs. Called on the loop.
  public var onEvent: ((KafkaEvent) -> Void)?

  /// Starts the client; the brokers are looked for in the background. On the loop.
  public init(
    _ connection: KafkaConnection, options: Options = Options(), loop: EventLoop, pool: BlockingPool = .shared
  ) throws(KafkaError) {
    var settings = KafkaSettings(connection)
    settings["fetch.wait.max.ms"] = options.fetchWait.milliseconds
    settings["fetch.min.bytes"] = 1
    settings["fetch.message.max.bytes"] = options.maxFetchBytes
    settings["queued.max.messages.kbytes"] = options.maxPrefetchedKilobytes
    settings["enable.auto.commit"] = false
    // A reader whose offset is gone has lost records: its owner has to know, and to say where to go on.
    settings["auto.offset.reset"] = "error"
    handle = try KafkaHandle(RD_KAFKA_CONSUMER, settings, name: "Kafka consumer", loop: loop, pool: pool)
    handle.onEvent = { [unowned self] in receive($0) }
    handle.onDrained = { [unowned self] in deliver() }
  }

  /// Begins to read a partition; one that is read already goes on from `start` instead.
  ///
  /// - Returns: the offset of the first record that can come. For `.end`, everything that is produced after this has
  ///   returned has that offset or a higher one.
  /// - Throws: `.unknownTopicOrPartition`, `.timedOut`, `.transport`, `.closed`; the partition is not read then.
  @discardableResult
  public func assign(
    topic: String, partition: Int32, from start: Start, timeout: Duration = .seconds(5)
  ) async throws(KafkaError) -> Int64 {
    let offset: Int64
    switch start {
    case .offset(let number): offset = number
    case .beginning: offset = try await watermarks(topic: topic, partition: partition, timeout: timeout).low
    case .end: offset = try await watermarks(topic: topic, partition: partition, timeout: timeout).high
    }
    try await unassign(topic: topic, partition: partition)
    let handleOfTopic = try open(topic)
    // Returns -1 with the error in this thread's rd_kafka_last_error.
    guard rd_kafka_consume_start_queue(handleOfTopic, partition, offset, handle.mainQueue) == 0 else {
      throw KafkaError(rd_kafka_last_error(), "read \(topic)/\(partition) from \(offset)")
    }
    assigned.insert(Place(topic: topic, partition: partition))
    return offset
  }

  /// Stops to read a partition; no record of it comes after this has been called.
  public func unassign(topic: String, partition: Int32) async throws(KafkaError) {
    guard assigned.remove(Place(topic: topic, partition: partition)) != nil else { return }
    batch.removeAll { $0.topic == topic && $0.partition == partition }
    let pointer = KafkaHandle.Client(pointer: try open(topic))
    // "This call will block until the internal fetcher has terminated."
    try await handle.blocking { _ in
      rd_kafka_consume_stop(pointer.pointer, partition) == 0
        ? .success(()) : .failure(KafkaError(rd_kafka_last_error(), "stop reading"))
    }
  }

  /// The offsets of the first record that the log holds and of the next that will be written, asked of the broker.
  public func watermarks(
    topic: String, partition: Int32, timeout: Duration = .seconds(5)
  ) async throws(KafkaError) -> (low: Int64, high: Int64) {
    try await handle.blocking { client in
      var (low, high): (Int64, Int64) = (0, 0)
      let error = rd_kafka_query_watermark_offsets(client.pointer, topic, partition, &low, &high, timeout.milliseconds)
      guard error == RD_KAFKA_RESP_ERR_NO_ERROR else {
        return .failure(KafkaError(error, "offsets of \(topic)/\(partition)"))
      }
      return .success((low, high))
    }
  }

  /// How many partitions a topic has. - Throws: `.unknownTopicOrPartition`, `.timedOut`, `.transport`.
  public func partitionCount(of topic: String, timeout: Duration = .seconds(5)) async throws(KafkaError) -> Int {
    try await handle.partitionCount(of: topic, timeout: timeout)
  }

  /// Stops reading and ends the client.
  public func close() async {
    guard handle.isOpen else { return }
    onRecords = nil
    // "The application needs to stop all consumers before calling rd_kafka_destroy()."
    for place in assigned { try? await unassign(topic: place.topic, partition: place.partition) }
    for topic in topics.values { rd_kafka_topic_destroy(topic) }
    topics = [:]
    names = [:]
    await handle.close()
  }

  /// The topic's handle, made once and destroyed in `close`.
  private func open(_ topic: String) throws(KafkaError) -> OpaquePointer {
    let client = try handle.open()
    if let known = topics[topic] { return known }
    guard let made = rd_kafka_topic_new(client, topic, nil) else {
      throw KafkaError(rd_kafka_last_error(), "topic \(topic)")
    }
    topics[topic] = made
    names[made] = topic
    return made
  }

  private func receive(_ event: OpaquePointer) {
    guard rd_kafka_event_type(event) == RD_KAFKA_EVENT_FETCH else {
      if let event = KafkaEvent(event, of: handle.name) { onEvent?(event) }
      return
    }
    while let message = rd_kafka_event_message_next(event) {
      guard let topic = names[message.pointee.rkt],
        assigned.contains(Place(topic: topic, partition: message.pointee.partition))
      else { continue }
      batch.append(KafkaRecord(copying: message, topic: topic))
    }
  }

  private func deliver() {
    guard !batch.isEmpty else { return }
    let records = batch
    batch = []
    onRecords?(records)
  }
}
