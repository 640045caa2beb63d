public import Kafka

/// Brings messages to the nodes that hold their clients, through Kafka.
///
/// Belongs to its loop. A record is produced to the partition that the node's record names, with the node's id as its
/// header; so nobody but that node, and those that share its partition, reads it.
public final class Publisher {
  public static let pushTopic = "client-push"
  public static let broadcastTopic = "client-broadcast"
  /// Records of one call that wait for their delivery at once.
  static let window = 2000

  public enum Outcome: Equatable, Sendable {
    /// The record stands in Kafka.
    case routed(node: String)
    /// No client of this id is known.
    case unknown
    /// The client is connected to no living node.
    case offline
    /// Kafka did not take the record; a sentence.
    case failed(String)
  }

  private let registry: Registry
  private let producer: KafkaProducer

  public init(registry: Registry, producer: KafkaProducer) {
    self.registry = registry
    self.producer = producer
  }

  /// Looks up each record's client and produces the record to the node that holds it.
  ///
  /// - Parameter unlessHeldBy: a node that has just missed the client, so that what the registry still says of it is no
  ///   longer true: its clients count as offline.
  /// - Returns: one outcome each, in order; a target other than a client is `.unknown`.
  /// - Throws: `.unavailable` when the registry can't be read; records before that may have been produced.
  public func publish(
    _ records: [PushRecord], unlessHeldBy excluded: String? = nil
  ) async throws(RoutingError) -> [Outcome] {
    var outcomes: [Outcome] = []
    outcomes.reserveCapacity(records.count)
    var rest = records[...]
    while !rest.isEmpty {
      let slice = Array(rest.prefix(Publisher.window))
      rest = rest.dropFirst(Publisher.window)
      outcomes += try await publish(slice: slice, excluded)
    }
    return outcomes
  }

  private func publish(
    slice records: [PushRecord], _ excluded: String?
  ) async throws(RoutingError) -> [Outcome] {
    let locations = try await registry.locate(records.map(\.clientID))
    let deliveries = Deliveries(count: records.count)
    return await withUnsafeContinuation { continuation in
      deliveries.continuation = continuation
      for (index, (record, location)) in zip(records, locations).enumerated() {
        switch location {
        case .unknown: deliveries.set(index, .unknown)
        case .offline: deliveries.set(index, .offline)
        case .online(_, let node) where node.id == excluded: deliveries.set(index, .offline)
        case .online(_, let node):
          produce(record, to: node) { error in
            deliveries.set(index, error.map { .failed($0.message) } ?? .routed(node: node.id))
          }
        }
      }
    }
  }

  /// Produces one record to a node; `then` is called on the loop when it stands in Kafka, or with why not.
  public func produce(_ record: PushRecord, to node: NodeRecord, then: @escaping (RoutingError?) -> Void) {
    produce(
      topic: Publisher.pushTopic, partition: node.partition, record, [KafkaHeader(PushRecord.nodeHeader, node.id)], then
    )
  }

  /// Produces a record that every node reads.
  public func broadcast(_ record: PushRecord) async throws(RoutingError) {
    let error: RoutingError? = await withUnsafeContinuation { continuation in
      produce(topic: Publisher.broadcastTopic, partition: 0, record, []) { continuation.resume(returning: $0) }
    }
    if let error { throw error }
  }

  private func produce(
    topic: String, partition: Int32, _ record: PushRecord, _ headers: [KafkaHeader],
    _ then: @escaping (RoutingError?) -> Void
  ) {
    do throws(KafkaError) {
      try producer.produce(topic: topic, partition: partition, value: record.encoded(), headers: headers) { result in
        if case .failure(let error) = result { then(RoutingError(error)) } else { then(nil) }
      }
    } catch {
      then(RoutingError(error))
    }
  }

  /// The outcomes of a slice; the last one resumes the publisher.
  private final class Deliveries {
    private var outcomes: [Outcome]
    private var missing: Int
    var continuation: UnsafeContinuation<[Outcome], Never>?

    init(count: Int) {
      outcomes = Array(repeating: .unknown, count: count)
      missing = count
    }

    func set(_ index: Int, _ outcome: Outcome) {
      outcomes[index] = outcome
      missing -= 1
      if missing == 0 { continuation?.resume(returning: outcomes) }
    }
  }
}

extension RoutingError {
  init(_ error: KafkaError) {
    let code: Code = error.code == .queueFull ? .exhausted : error.code == .messageTooLarge ? .invalid : .unavailable
    self.init(code, "Kafka: \(error.message)")
  }
}

extension PushRecord {
  /// The client that the record is for; empty where it is for more.
  var clientID: String {
    if case .client(let id) = target { id } else { "" }
  }
}
