import Bytes
import GRPC
import Kafka
import Reactor
import Schema
import Settings

/// `bench latency`: from the publisher's call until the endpoint has the message, by each way in turn, beside what bare
/// librdkafka takes from produce to consume on the same broker.
///
/// One endpoint at the last gateway, jobs for it submitted at the first: every message crosses between gateways. The ways
/// take turns, and the time between two messages is drawn, so that nothing beats with the broker's own rhythm.
struct Latency {
  private let gateways: [HostPort]
  private let kafka: String
  private let messages: Int
  private let rate: Int
  private let size: Int

  static let patience: Duration = .seconds(60)
  /// Of each way, before anything is counted.
  static let warmUp = 50
  static let client = "bench-latency"

  /// How a message goes.
  enum Way: String, CaseIterable {
    case bare = "bare_kafka"
    case kafkaOnce = "kafka_qos0"
    case kafkaKept = "kafka_qos1"
    case directOnce = "direct_qos0"
    case directKept = "direct_qos1"
    case pushWritten = "push_written"
    case pushAcknowledged = "push_acknowledged"
  }

  init(_ arguments: [String]) {
    var options = Options(
      "bench latency", about: "Time from the publisher's call to the endpoint, by each way, beside bare Kafka.",
      environmentFlags: [])
    let gateways = options.list("gateway", .hostPort, isRequired: true, help: "The gateways' addresses.")
    _ = options.list("process", .keyValue, help: "Ignored; for the sake of scripts.")
    let kafka = options.required("kafka", .string, help: "Kafka's bootstrap servers.")
    let messages = options.value("messages", .int(1...1_000_000), default: "500", help: "Messages of each way.")
    let rate = options.value("rate", .int(1...10_000), default: "100", help: "Messages a second, of all ways together.")
    let size = options.value("size", .bytes, default: "200", help: "The length of a text.")
    let parsed = options.parseOrExit(arguments)
    self.gateways = parsed[gateways]
    self.kafka = parsed[kafka]
    self.messages = parsed[messages]
    self.rate = parsed[rate]
    self.size = parsed[size]
  }

  func run(_ loop: EventLoop) async throws {
    let run = LatencyRun(loop: loop, text: String(repeating: "x", count: size))
    let bare = try await BareKafka(loop: loop, bootstrap: kafka, run)
    let receiver = Channel(loop: loop, target: gateways[gateways.count - 1])
    loop.spawn { await run.receive(on: receiver) }
    try await run.wait(within: Latency.patience, "the registration") { run.isRegistered }
    let publisher = Channel(loop: loop, target: gateways[0])
    let total = (Latency.warmUp + messages) * Way.allCases.count
    for number in 0..<total {
      let way = Way.allCases[number % Way.allCases.count]
      run.begin(way)
      if way == .bare {
        try bare.send("\(number) \(run.text)")
      } else {
        loop.spawn { await run.publish(number, way, on: publisher) }
      }
      if number % rate == 0 { await run.heartbeat() }
      // The pace, uneven so that it doesn't fall in step with anything.
      try await loop.sleep(for: .microseconds(Int64.random(in: 500_000...1_500_000) / Int64(rate)))
    }
    try await run.wait(within: Latency.patience, "\(total) messages") { run.received == total }
    for way in Way.allCases { print(run.line(way, skipping: Latency.warmUp)) }
    receiver.close()
    publisher.close()
    await bare.close()
  }
}

/// The times of a run. Lives on its loop.
final class LatencyRun {
  let text: String
  private let loop: EventLoop
  private var starts: [Int64] = []
  private var ways: [Latency.Way] = []
  private var taken: [Latency.Way: [Int64]] = [:]
  private var answered: [Latency.Way: [Int64]] = [:]
  private(set) var received = 0
  private(set) var isRegistered = false
  private var failure: (any Error)?
  private var call: BidirectionalCall<PushV1.ClientMessage, PushV1.ServerMessage>?
  private let progress = Wakeup()

  init(loop: EventLoop, text: String) {
    self.loop = loop
    self.text = text
  }

  func begin(_ way: Latency.Way) {
    ways.append(way)
    starts.append(EventLoop.monotonicNanoseconds())
  }

  /// A message has arrived; it begins with its number.
  func arrived(_ content: some StringProtocol) {
    guard let number = Int(content.prefix { $0 != " " }), starts.indices.contains(number) else { return }
    taken[ways[number], default: []].append(EventLoop.monotonicNanoseconds() - starts[number])
    received += 1
    progress.fire()
  }

  func publish(_ number: Int, _ way: Latency.Way, on channel: Channel) async {
    do {
      switch way {
      case .bare: return
      case .pushWritten, .pushAcknowledged: try await push(number, way, on: channel)
      case .kafkaOnce, .kafkaKept, .directOnce, .directKept: try await submit(number, way, on: channel)
      }
      answered[way, default: []].append(EventLoop.monotonicNanoseconds() - starts[number])
    } catch {
      failure = error
      progress.fire()
    }
  }

  private func submit(_ number: Int, _ way: Latency.Way, on channel: Channel) async throws {
    let job = PushV1.Job(
      jobID: "latency-\(starts[number])", targets: PushV1.Targets(clientIDs: [Latency.client]),
      payload: .text(PushV1.TextMessage(content: "\(number) \(text)")),
      qos: way == .kafkaOnce || way == .directOnce ? .atMostOnce : .atLeastOnce,
      route: way == .directOnce || way == .directKept ? .direct : .kafka)
    _ = try await PushV1.JobServiceClient(channel).submit(PushV1.SubmitRequest(job: job))
  }

  private func push(_ number: Int, _ way: Latency.Way, on channel: Channel) async throws {
    let request = PushV1.PushRequest(
      clientID: Latency.client, message: "\(number) \(text)", wait: way == .pushWritten ? .written : .acknowledged)
    let answer = try await PushV1.PushServiceClient(channel).pushToClient(request)
    guard answer.success else { throw BenchError("a push failed: \(answer.error)") }
  }

  // MARK: The endpoint

  /// Acknowledges each message at once.
  func receive(on channel: Channel) async {
    do {
      let call = try await PushV1.PushServiceClient(channel).connect()
      self.call = call
      try await call.send(
        PushV1.ClientMessage(
          payload: .register(PushV1.RegisterRequest(clientID: Latency.client, acknowledges: true))))
      while let message = try await call.next() {
        switch message.payload {
        case .registered:
          isRegistered = true
          progress.fire()
        case .text(let text):
          arrived(text.content)
          var acknowledgement = PushV1.Acknowledgement(messageIDs: [message.messageID])
          if message.seq > 0 {
            acknowledgement.position = PushV1.Position(
              source: message.source, inboxID: message.inboxID, seq: message.seq)
          }
          try await call.send(PushV1.ClientMessage(payload: .ack(acknowledgement)))
        default: break
        }
      }
    } catch {
      failure = failure ?? error
      progress.fire()
    }
  }

  func heartbeat() async {
    let heartbeat = PushV1.Heartbeat(clientID: Latency.client, timestamp: EventLoop.wallClockMilliseconds())
    try? await call?.send(PushV1.ClientMessage(payload: .heartbeat(heartbeat)))
  }

  // MARK: The end

  func wait(within limit: Duration, _ what: String, until done: () -> Bool) async throws {
    try await progress.wait(within: limit, on: loop, for: "\(what): \(received) came") {
      if done() { return true }
      if let failure { throw failure }
      return false
    }
  }

  /// One JSON object: the times until the endpoint has it, and until the publisher has its answer.
  func line(_ way: Latency.Way, skipping warmUp: Int) -> String {
    func sorted(_ times: [Int64]?) -> [Double] { (times ?? []).dropFirst(warmUp).map { Double($0) / 1e6 }.sorted() }
    let (arrival, answer) = (sorted(taken[way]), sorted(answered[way]))
    return jsonLine([
      ("way", "\"\(way.rawValue)\""), ("messages", "\(arrival.count)"),
      ("p50_ms", percentile(arrival, 0.5).rounded(to: 3)), ("p99_ms", percentile(arrival, 0.99).rounded(to: 3)),
      ("answer_p50_ms", percentile(answer, 0.5).rounded(to: 3)),
      ("answer_p99_ms", percentile(answer, 0.99).rounded(to: 3)),
    ])
  }
}

/// A producer and a consumer with the gateway's settings, and nothing between them. Lives on its loop.
final class BareKafka {
  /// The gateways' own topic; the partition is one that none of them leases.
  static let topic = "client-push"
  private let producer: KafkaProducer
  private let consumer: KafkaConsumer
  private let partition: Int32

  init(loop: EventLoop, bootstrap: String, _ run: LatencyRun) async throws {
    let connection = KafkaConnection(bootstrap: bootstrap, clientID: "bench")
    let producer = try KafkaProducer(connection, loop: loop)
    let consumer = try KafkaConsumer(connection, loop: loop)
    consumer.onRecords = { records in
      for record in records { run.arrived(record.value.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }) }
    }
    let partition = Int32(clamping: try await producer.partitionCount(of: BareKafka.topic) - 1)
    try await consumer.assign(topic: BareKafka.topic, partition: partition, from: .end)
    (self.producer, self.consumer, self.partition) = (producer, consumer, partition)
  }

  func send(_ text: String) throws {
    try producer.produce(topic: BareKafka.topic, partition: partition, value: Bytes(text)) { _ in }
  }

  func close() async {
    await consumer.close()
    await producer.close()
  }
}
