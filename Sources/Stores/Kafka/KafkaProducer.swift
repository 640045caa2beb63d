public import Bytes
internal import CRdKafka
public import Reactor

/// Writes records; each is acknowledged by all in-sync replicas, and reported, or reported as failed.
///
/// Idempotent: what librdkafka sends again after a broken connection stands in the log once, in order. Belongs to its
/// loop; `close` before it is dropped, or the loop waits for librdkafka's threads.
public final class KafkaProducer {
  public struct Options: Sendable {
    /// Messages that wait for delivery, at most; past that `produce` fails with `.queueFull`.
    public var maxQueuedMessages = 100_000
    /// Their keys and values, at most; past that `produce` fails with `.queueFull`.
    public var maxQueuedKilobytes = 64 * 1024
    /// The largest message, key and headers included; past that `produce` fails with `.messageTooLarge`.
    public var maxMessageBytes = 1_000_000
    /// From `produce` to the report at the latest: then the delivery has failed with `.timedOut`.
    public var deliveryTimeout: Duration = .seconds(10)
    /// How long a message waits for others to share its request.
    public var linger: Duration = .zero

    public init() {}
  }

  public typealias Delivery = (Result<Int64, KafkaError>) -> Void

  private let handle: KafkaHandle
  private var deliveries = DeliveryTable()
  /// Errors, statistics and logs. Called on the loop.
  public var onEvent: ((KafkaEvent) -> Void)?

  /// Starts the client; the brokers are looked for in the background. On the loop.
  public init(
    _ connection: KafkaConnection, options: Options = Options(), loop: EventLoop, pool: BlockingPool = .shared
  ) throws(KafkaError) {
    var settings = KafkaSettings(connection)
    settings["enable.idempotence"] = true
    settings["acks"] = "all"
    settings["linger.ms"] = options.linger.milliseconds
    settings["queue.buffering.max.messages"] = options.maxQueuedMessages
    settings["queue.buffering.max.kbytes"] = options.maxQueuedKilobytes
    settings["message.max.bytes"] = options.maxMessageBytes
    settings["message.timeout.ms"] = max(1, options.deliveryTimeout.milliseconds)
    handle = try KafkaHandle(RD_KAFKA_PRODUCER, settings, name: "Kafka producer", loop: loop, pool: pool)
    handle.onEvent = { [unowned self] in receive($0) }
  }

  /// Messages that were taken and are not reported yet.
  public var undelivered: Int { deliveries.count }

  /// Queues a record; `then` is called on the loop with its offset, or with why it was not delivered. The value, the key
  /// and the headers are copied before this returns.
  ///
  /// - Parameter partition: 0 … ; -1 leaves it to the hash of the key.
  /// - Throws: `.queueFull`, `.messageTooLarge`, `.unknownTopicOrPartition`, `.closed`: nothing was queued and `then`
  ///   is not called.
  public func produce(
    topic: String, partition: Int32, key: Bytes? = nil, value: Bytes, headers: [KafkaHeader] = [],
    then: @escaping Delivery
  ) throws(KafkaError) {
    let client = try handle.open()
    let list = headers.isEmpty ? nil : makeHeaders(headers)
    let ticket = deliveries.add(then)
    let error = value.withUnsafeBytes { value in
      (key ?? Bytes()).withUnsafeBytes { bytes in
        fp_kafka_produce(
          client, topic, partition, key == nil ? nil : bytes.baseAddress ?? emptyKey, bytes.count, value.baseAddress,
          value.count, list, UnsafeMutableRawPointer(bitPattern: ticket))
      }
    }
    guard error != RD_KAFKA_RESP_ERR_NO_ERROR else { return }
    _ = deliveries.remove(ticket)
    if let list { rd_kafka_headers_destroy(list) }
    throw KafkaError(error, "produce to \(topic)/\(partition)")
  }

  /// Writes a record and returns its offset.
  ///
  /// - Throws: as the other form, and what the delivery failed with; `mayHaveBeenWritten` tells whether the log may hold
  ///   the record all the same.
  public func produce(
    topic: String, partition: Int32, key: Bytes? = nil, value: Bytes, headers: [KafkaHeader] = []
  ) async throws(KafkaError) -> Int64 {
    let result: Result<Int64, KafkaError> = await withUnsafeContinuation { continuation in
      do throws(KafkaError) {
        try produce(topic: topic, partition: partition, key: key, value: value, headers: headers) {
          continuation.resume(returning: $0)
        }
      } catch {
        continuation.resume(returning: .failure(error))
      }
    }
    return try result.get()
  }

  /// Waits until everything that was queued is reported.
  ///
  /// - Throws: `.timedOut` when messages are left after `deadline`; they stay queued.
  public func flush(within deadline: Duration) async throws(KafkaError) {
    // "If RD_KAFKA_EVENT_DR has been enabled this function will not call rd_kafka_poll()": the loop serves the reports
    // meanwhile.
    try await handle.blocking { client in
      let error = rd_kafka_flush(client.pointer, deadline.milliseconds)
      return error == RD_KAFKA_RESP_ERR_NO_ERROR ? .success(()) : .failure(KafkaError(error, "flush"))
    }
  }

  /// How many partitions a topic has. - Throws: `.unknownTopicOrPartition`, `.timedOut`, `.transport`.
  public func partitionCount(of topic: String, timeout: Duration = .seconds(5)) async throws(KafkaError) -> Int {
    try await handle.partitionCount(of: topic, timeout: timeout)
  }

  /// Creates the topics that are not there. See `KafkaTopic`.
  public func createTopics(_ topics: [KafkaTopic], timeout: Duration = .seconds(10)) async throws(KafkaError) {
    try await handle.createTopics(topics, timeout: timeout)
  }

  /// Ends the client. What is not delivered yet fails with `.closed`: flush first.
  public func close() async {
    await handle.close()
    for then in deliveries.removeAll() {
      then(.failure(KafkaError(code: .closed, message: KafkaError.closed.message, mayHaveBeenWritten: true)))
    }
  }

  private func makeHeaders(_ headers: [KafkaHeader]) -> OpaquePointer? {
    let list = rd_kafka_headers_new(headers.count)
    for header in headers {
      // -1: "the length of name is calculated"; both are copied.
      header.value.withUnsafeBytes {
        _ = rd_kafka_header_add(list, header.name, -1, $0.baseAddress ?? emptyKey, $0.count)
      }
    }
    return list
  }

  private func receive(_ event: OpaquePointer) {
    guard rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR else {
      if let event = KafkaEvent(event, of: handle.name) { onEvent?(event) }
      return
    }
    while let message = rd_kafka_event_message_next(event) {
      guard let ticket = message.pointee._private, let then = deliveries.remove(Int(bitPattern: ticket)) else {
        continue
      }
      let error = message.pointee.err
      if error == RD_KAFKA_RESP_ERR_NO_ERROR {
        then(.success(message.pointee.offset))
      } else {
        let written = rd_kafka_message_status(message) != RD_KAFKA_MSG_STATUS_NOT_PERSISTED
        then(.failure(KafkaError(error, "delivery", mayHaveBeenWritten: written)))
      }
    }
  }
}

/// An address for an empty key or header value: librdkafka reads NULL as "there is none".
private nonisolated(unsafe) let emptyKey: UnsafeRawPointer = UnsafeRawPointer(
  UnsafeMutableRawPointer.allocate(byteCount: 1, alignment: 1))

/// The callbacks of messages under way, by the number that travels through librdkafka as a message's opaque pointer.
struct DeliveryTable {
  private var slots: [KafkaProducer.Delivery?] = []
  private var free: [Int] = []
  private(set) var count = 0

  /// - Returns: a number other than zero.
  mutating func add(_ then: @escaping KafkaProducer.Delivery) -> Int {
    count += 1
    if let slot = free.popLast() {
      slots[slot] = then
      return slot + 1
    }
    slots.append(then)
    return slots.count
  }

  mutating func remove(_ ticket: Int) -> KafkaProducer.Delivery? {
    guard slots.indices.contains(ticket - 1), let then = slots[ticket - 1] else { return nil }
    slots[ticket - 1] = nil
    free.append(ticket - 1)
    count -= 1
    return then
  }

  mutating func removeAll() -> [KafkaProducer.Delivery] {
    defer { self = DeliveryTable() }
    return slots.compactMap { $0 }
  }
}
