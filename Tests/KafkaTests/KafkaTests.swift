import Bytes
import Reactor
import TestSupport
import Testing

@testable import Kafka

/// Against a devbroker of the test's own, or the Kafka that KAFKA_BOOTSTRAP names; asserts only what both promise.
@Suite(.timeLimit(.minutes(2))) struct KafkaTests {
  /// Topics of this run: an outside broker keeps those of others.
  private let topic = "test-\(UInt32.random(in: 0 ... .max))"

  /// Runs a story with a producer and a consumer on a loop of its own.
  private func withClients(
    _ broker: Broker, deliveryTimeout: Duration = .seconds(10), maxQueued: Int = 100_000, partitions: Int = 3,
    _ body: @escaping @Sendable (KafkaProducer, KafkaConsumer, Arrivals) async throws -> Void
  ) async throws {
    let loop = try EventLoop.start(name: "kafka test")
    let topic = self.topic
    do {
      try await loop.run {
        let connection = KafkaConnection(bootstrap: broker.bootstrap, clientID: "test")
        var options = KafkaProducer.Options()
        options.deliveryTimeout = deliveryTimeout
        options.maxQueuedMessages = maxQueued
        let producer = try KafkaProducer(connection, options: options, loop: loop)
        let consumer = try KafkaConsumer(connection, loop: loop)
        let arrivals = Arrivals(consumer)
        if Broker.isOutside { try await producer.createTopics([KafkaTopic(topic, partitions: partitions)]) }
        do { try await body(producer, consumer, arrivals) } catch { Issue.record(error) }
        await consumer.close()
        await producer.close()
      }
    } catch {
      Issue.record(error)
    }
    loop.stop()
  }

  private func broker() throws -> Broker { try Broker(topics: ["\(topic):3"]) }

  @Test func recordsArriveAsTheyWereProduced() async throws {
    try await withClients(try broker()) { producer, consumer, arrivals in
      try await consumer.assign(topic: topic, partition: 1, from: .end)
      let headers = [KafkaHeader("node", "gateway-1"), KafkaHeader("empty", Bytes()), KafkaHeader("node", "gateway-2")]
      let offset = try await producer.produce(
        topic: topic, partition: 1, key: Bytes("k"), value: Bytes([0, 255]), headers: headers)
      let bare = try await producer.produce(topic: topic, partition: 1, value: Bytes())
      let records = try await arrivals.wait(for: 2)
      #expect(records.map(\.offset) == [offset, bare])
      #expect(records[0].topic == topic && records[0].partition == 1)
      #expect(records[0].key == Bytes("k") && records[0].value == Bytes([0, 255]))
      #expect(records[0].headers == headers)
      #expect(records[0].header("node")?.string == "gateway-2")
      #expect(records[1].key == nil && records[1].value.isEmpty && records[1].headers.isEmpty)
      #expect(abs(records[0].timestamp - EventLoop.wallClockMilliseconds()) < 60_000)
    }
  }

  @Test func theEndIsKnownBeforeListening() async throws {
    try await withClients(try broker()) { producer, consumer, arrivals in
      let old = try await producer.produce(topic: topic, partition: 0, value: Bytes("old"))
      let start = try await consumer.assign(topic: topic, partition: 0, from: .end)
      #expect(start == old + 1)
      // At once after: a fetch that looked the end up itself could begin behind this one.
      let new = try await producer.produce(topic: topic, partition: 0, value: Bytes("new"))
      #expect(new == start)
      #expect(try await arrivals.wait(for: 1).map(\.value.string) == ["new"])
      #expect(try await consumer.watermarks(topic: topic, partition: 0).high == start + 1)
    }
  }

  @Test func onlyAssignedPartitionsAreRead() async throws {
    try await withClients(try broker()) { producer, consumer, arrivals in
      try await consumer.assign(topic: topic, partition: 2, from: .beginning)
      for round in 0..<20 {
        for partition in 0..<3 {
          _ = try await producer.produce(topic: topic, partition: Int32(partition), value: Bytes("\(round)"))
        }
      }
      let records = try await arrivals.wait(for: 20)
      #expect(records.allSatisfy { $0.partition == 2 })
      #expect(records.map(\.value.string) == (0..<20).map { "\($0)" })
      try await consumer.unassign(topic: topic, partition: 2)
      _ = try await producer.produce(topic: topic, partition: 2, value: Bytes("unheard"))
      // Assigned again from an offset: what was read before comes again, in order.
      arrivals.clear()
      try await consumer.assign(topic: topic, partition: 2, from: .offset(records[18].offset))
      #expect(try await arrivals.wait(for: 3).map(\.value.string) == ["18", "19", "unheard"])
    }
  }

  @Test func manyRecordsKeepTheirOrder() async throws {
    try await withClients(try broker()) { producer, consumer, arrivals in
      try await consumer.assign(topic: topic, partition: 0, from: .end)
      var failures = 0
      for number in 0..<5000 {
        try producer.produce(topic: topic, partition: 0, value: Bytes("\(number)")) {
          if case .failure = $0 { failures += 1 }
        }
      }
      try await producer.flush(within: .seconds(30))
      #expect(failures == 0)
      let records = try await arrivals.wait(for: 5000)
      #expect(records.map(\.value.string) == (0..<5000).map { "\($0)" })
      #expect(producer.undelivered == 0)
    }
  }

  @Test func aTopicThatIsNotThereIsNamed() async throws {
    try await withClients(try broker()) { producer, consumer, _ in
      #expect(try await consumer.partitionCount(of: topic) == 3)
      await #expect {
        try await producer.partitionCount(of: "\(topic)-none")
      } throws: { ($0 as? KafkaError)?.code == .unknownTopicOrPartition }
      // A topic that is there is left alone, on a broker that can't create any too.
      try await producer.createTopics([KafkaTopic(topic, partitions: 3)])
    }
  }

  @Test func anOffsetThatIsGoneIsTold() async throws {
    try await withClients(try broker()) { producer, consumer, arrivals in
      _ = try await producer.produce(topic: topic, partition: 0, value: Bytes("0"))
      let told: KafkaError = await withUnsafeContinuation { done in
        var isTold = false
        consumer.onEvent = { event in
          guard case .offsetReset(topic, 0, let error) = event, !isTold else { return }
          isTold = true
          done.resume(returning: error)
        }
        consumer.assignLater(topic: topic, partition: 0, from: .offset(100_000))
      }
      #expect(told.code == .offsetOutOfRange)
      try await consumer.assign(topic: topic, partition: 0, from: .beginning)
      #expect(try await arrivals.wait(for: 1).first?.offset == 0)
    }
  }

  @Test(.enabled(if: !Broker.isOutside)) func aDeliveryFailsWhenTheBrokerIsGone() async throws {
    let broker = try broker()
    try await withClients(broker, deliveryTimeout: .seconds(1), maxQueued: 5) { producer, consumer, _ in
      // On a busy machine the first connection alone may take longer than a delivery is given here.
      while (try? await producer.produce(topic: topic, partition: 0, value: Bytes("before"))) == nil {}
      var events: [KafkaError] = []
      producer.onEvent = { if case .error(let error) = $0 { events.append(error) } }
      #expect(broker.process?.kill() == 137)
      await #expect {
        try await producer.produce(topic: topic, partition: 0, value: Bytes("lost"))
      } throws: { ($0 as? KafkaError)?.code == .timedOut }
      #expect(events.contains { $0.code == .transport })
      // The queue is bounded, and full of what can't leave.
      var failed = 0
      #expect {
        for _ in 0..<10 { try producer.produce(topic: topic, partition: 0, value: Bytes("x")) { _ in failed += 1 } }
      } throws: { ($0 as? KafkaError)?.code == .queueFull }
      #expect(producer.undelivered == 5)
      await #expect {
        try await producer.flush(within: .milliseconds(10))
      } throws: { ($0 as? KafkaError)?.code == .timedOut }
      try await producer.flush(within: .seconds(10))
      #expect(failed == 5)
    }
  }

  @Test(.enabled(if: !Broker.isOutside)) func aBrokerThatComesBackIsFoundWhereItWas() async throws {
    let broker = try broker()
    try await withClients(broker) { producer, consumer, arrivals in
      try await consumer.assign(topic: topic, partition: 0, from: .end)
      _ = try await producer.produce(topic: topic, partition: 0, value: Bytes("1"))
      _ = try await arrivals.wait(for: 1)
      #expect(broker.process?.stop() == 0)
      try broker.restart()
      // Its log is empty: it is read from the beginning, as after an offset reset.
      try await consumer.assign(topic: topic, partition: 0, from: .beginning, timeout: .seconds(20))
      _ = try await producer.produce(topic: topic, partition: 0, value: Bytes("2"))
      #expect(try await arrivals.wait(for: 2).last?.value.string == "2")
    }
  }

  @Test func aClosedClientSaysSo() async throws {
    try await withClients(try broker()) { producer, consumer, _ in
      await producer.close()
      await consumer.close()
      await #expect {
        try await producer.produce(topic: topic, partition: 0, value: Bytes())
      } throws: { ($0 as? KafkaError)?.code == .closed }
      await #expect {
        try await consumer.assign(topic: topic, partition: 0, from: .end)
      } throws: { ($0 as? KafkaError)?.code == .closed }
    }
  }

  @Test func aWrongSettingIsRefused() async throws {
    let loop = try EventLoop.start(name: "kafka test")
    await #expect {
      try await loop.run {
        var connection = KafkaConnection(bootstrap: "127.0.0.1:1")
        connection.overrides["no.such.setting"] = "1"
        _ = try KafkaProducer(connection, loop: loop)
      }
    } throws: { ($0 as? KafkaError)?.code == .configuration && "\($0)".contains("no.such.setting") }
    loop.stop()
  }

  @Test func ticketsAreUsedAgain() {
    var table = DeliveryTable()
    let first = table.add { _ in }
    let second = table.add { _ in }
    #expect(first != second && first != 0)
    #expect(table.remove(first) != nil && table.remove(first) == nil && table.remove(999) == nil)
    #expect(table.add { _ in } == first)
    #expect(table.count == 2 && table.removeAll().count == 2 && table.count == 0)
  }
}

/// The records that a consumer hands over, for a story to wait for. Belongs to the consumer's loop.
private final class Arrivals {
  private var records: [KafkaRecord] = []
  private var waiter: (count: Int, continuation: UnsafeContinuation<Void, Never>)?
  private let consumer: KafkaConsumer

  init(_ consumer: KafkaConsumer) {
    self.consumer = consumer
    consumer.onRecords = { [unowned self] batch in
      records += batch
      if let waiter, records.count >= waiter.count { wake() }
    }
  }

  func clear() { records = [] }

  /// All records so far, as soon as there are `count`, or as many as there are after 20 s.
  func wait(for count: Int) async throws -> [KafkaRecord] {
    if records.count < count {
      let timer = consumer.handle.loop.schedule(after: .seconds(20)) { self.wake() }
      await withUnsafeContinuation { waiter = (count, $0) }
      timer.cancel()
    }
    #expect(records.count == count)
    return records
  }

  private func wake() {
    waiter?.continuation.resume()
    waiter = nil
  }
}

extension KafkaConsumer {
  fileprivate func assignLater(topic: String, partition: Int32, from start: Start) {
    handle.loop.spawn { _ = try? await self.assign(topic: topic, partition: partition, from: start) }
  }
}
