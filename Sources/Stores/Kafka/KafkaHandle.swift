internal import CRdKafka
internal import Glibc
internal import Reactor

/// One librdkafka instance, with its main queue served on a loop: the only owner of the `rd_kafka_t`.
///
/// Nothing here is a callback: deliveries, fetched records, errors, statistics and logs all come through the main queue
/// as events. librdkafka writes to `wakeup` "whenever a new element is enqueued on a previously empty queue", so a drain
/// has to empty the queue, or come back by itself, or it is never woken again.
///
/// States: open (served) → closing (deaf; calls that block are waited for) → destroyed.
final class KafkaHandle: ReadinessHandler {
  /// The `rd_kafka_t`, for calls from the pool's threads.
  ///
  /// `@unchecked Sendable`: librdkafka's API may be called from any thread; `close` destroys the instance only after the
  /// last call of `blocking` has returned.
  struct Client: @unchecked Sendable {
    let pointer: OpaquePointer
  }

  let name: String
  let loop: EventLoop
  private let pool: BlockingPool
  private let client: Client
  private let queue: OpaquePointer
  private let wakeup: Int32
  private var registration: Registration?
  private var blockingCalls = 0
  private var afterLastCall: UnsafeContinuation<Void, Never>?
  private(set) var isOpen = true
  /// Called for every event, on the loop; the event is destroyed when it returns.
  var onEvent: ((OpaquePointer) -> Void)?
  /// Called when a drain ends, after its last event.
  var onDrained: (() -> Void)?

  /// Events that one turn takes; past that the loop looks at its other descriptors first.
  static let eventsPerTurn = 2048

  init(
    _ type: rd_kafka_type_t, _ settings: KafkaSettings, name: String, loop: EventLoop, pool: BlockingPool
  ) throws(KafkaError) {
    loop.assertCurrent()
    client = Client(pointer: try settings.makeClient(type, name))
    // "Use rd_kafka_queue_destroy() to loose the reference" before rd_kafka_destroy.
    guard let queue = rd_kafka_queue_get_main(client.pointer) else {
      rd_kafka_destroy(client.pointer)
      throw KafkaError(code: .other, message: "\(name): no main queue")
    }
    self.queue = queue
    self.name = name
    self.loop = loop
    self.pool = pool
    wakeup = fp_kafka_wakeup()
    do { registration = try loop.register(wakeup, .read, self) } catch {
      KafkaHandle.destroy(client.pointer, queue, wakeup)
      throw KafkaError(code: .other, message: "\(name): \(error)")
    }
    withUnsafeBytes(of: UInt64(1)) { rd_kafka_queue_io_event_enable(queue, wakeup, $0.baseAddress, $0.count) }
    rd_kafka_set_log_queue(client.pointer, queue)
  }

  deinit {
    guard isOpen else { return }
    // Dropped without close(): nothing calls from the pool (a call holds its caller, who holds us). This blocks the loop.
    registration?.cancel()
    KafkaHandle.destroy(client.pointer, queue, wakeup)
  }

  // MARK: Events

  func ready(_ events: Interest) {
    var count: UInt64 = 0
    _ = withUnsafeMutableBytes(of: &count) { read(wakeup, $0.baseAddress, $0.count) }
    drain()
  }

  private func drain() {
    var budget = KafkaHandle.eventsPerTurn
    while isOpen, budget > 0, let event = rd_kafka_queue_poll(queue, 0) {
      onEvent?(event)
      rd_kafka_event_destroy(event)
      budget -= 1
    }
    // Not empty perhaps, so librdkafka won't wake us: readable again, the descriptor does in the next turn.
    if budget == 0 { eventfd_write(wakeup, 1) }
    onDrained?()
  }

  // MARK: Calls

  /// The instance for a call that doesn't block. - Throws: `.closed`.
  func open() throws(KafkaError) -> OpaquePointer {
    guard isOpen else { throw KafkaError.closed }
    return client.pointer
  }

  /// The queue that is served here, for records of partitions to be routed to.
  var mainQueue: OpaquePointer { queue }

  /// Runs a call that blocks on the pool; the instance lives until it has returned.
  func blocking<T: Sendable>(
    _ call: @escaping @Sendable (Client) -> Result<T, KafkaError>
  ) async throws(KafkaError) -> T {
    let client = Client(pointer: try open())
    blockingCalls += 1
    let result = await pool.run { call(client) }
    blockingCalls -= 1
    if blockingCalls == 0 {
      afterLastCall?.resume()
      afterLastCall = nil
    }
    return try result.get()
  }

  /// Ends the serving, waits for the calls under way and destroys the instance, on the pool. A second call returns at once.
  func close() async {
    guard isOpen else { return }
    isOpen = false
    registration?.cancel()
    onEvent = nil
    onDrained = nil
    if blockingCalls > 0 { await withUnsafeContinuation { afterLastCall = $0 } }
    let (client, queue, wakeup) = (client, Client(pointer: queue), wakeup)
    await pool.run { KafkaHandle.destroy(client.pointer, queue.pointer, wakeup) }
  }

  /// The one place where an instance ends. Blocks until librdkafka's threads have.
  private static func destroy(_ client: OpaquePointer, _ queue: OpaquePointer, _ wakeup: Int32) {
    rd_kafka_queue_io_event_enable(queue, -1, nil, 0)
    rd_kafka_queue_destroy(queue)
    rd_kafka_destroy(client)
    _ = Glibc.close(wakeup)
  }
}
