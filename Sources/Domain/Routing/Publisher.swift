public import Kafka

/// Carries records to the nodes that they are for.
public protocol RecordCarrier: AnyObject {
  /// Hands one record to a node; `then` is called on the loop when it will surely come there, or with why not.
  func carry(_ record: PushRecord, to node: NodeRecord, then: @escaping (RoutingError?) -> Void)
}

/// Brings messages to the nodes that hold their clients: through Kafka, or by the direct route where the record says so
/// and there is one.
///
/// An at-least-once message is kept in its client's inbox first; its record in Kafka is a hint then, and one that is lost
/// is made up for by the node that holds the client.
///
/// Belongs to its loop. A record is produced to the partition that the node's record names, with the node's id as its
/// header; so nobody but that node, and those that share its partition, reads it.
public final class Publisher {
  public static let pushTopic = "client-push"
  public static let broadcastTopic = "client-broadcast"
  /// Records of one call that wait for their delivery at once.
  static let window = 2000

  public enum Outcome: Equatable, Sendable {
    /// The record stands in Kafka, or the node itself has taken it.
    case routed(node: String)
    /// The message is kept in the client's inbox. The client is away, or its node was not told for now.
    case stored
    /// The client has acknowledged the message before.
    case acknowledged
    /// The client's inbox takes no more; a sentence.
    case full(String)
    /// The message came after its time to live.
    case expired
    /// No client of this id is known.
    case unknown
    /// The client is connected to no living node, and its message is kept nowhere.
    case offline
    /// The record was not taken; a sentence.
    case failed(String)
  }

  let registry: Registry
  private let producer: KafkaProducer
  private let inboxes: Inboxes
  private let fleetLog: FleetLog
  /// What records of the direct route travel by; without one they go through Kafka.
  public var direct: (any RecordCarrier)?
  let recentNodes: RecentNodes

  public init(
    registry: Registry, producer: KafkaProducer, limits: Inboxes.Limits = Inboxes.Limits(),
    logLimits: FleetLog.Limits = FleetLog.Limits()
  ) {
    self.registry = registry
    self.producer = producer
    inboxes = Inboxes(registry, limits: limits)
    fleetLog = FleetLog(registry, limits: logLimits)
    recentNodes = RecentNodes(registry)
  }

  /// Keeps each record that is to be kept and isn't yet, looks up its client, and sends the record to the node that holds
  /// it.
  ///
  /// - Parameter unlessHeldBy: a node that has just missed the client, so that what the registry still says of it is no
  ///   longer true: its clients count as offline.
  /// - Returns: one outcome each, in order; a target other than a client is `.unknown`.
  /// - Throws: `.unavailable` when the registry can't be read; records before that may have been produced.
  public func publish(
    _ records: [PushRecord], unlessHeldBy excluded: String? = nil
  ) async throws(RoutingError) -> [Outcome] {
    try await publish(records, unlessHeldBy: excluded, ahead: nil)
  }

  /// - Parameter ahead: what was asked about the clients of these records; it is used once.
  func publish(
    _ records: [PushRecord], unlessHeldBy excluded: String? = nil, ahead: LookAhead?
  ) async throws(RoutingError) -> [Outcome] {
    var outcomes: [Outcome] = []
    outcomes.reserveCapacity(records.count)
    var rest = records[...]
    while !rest.isEmpty {
      let slice = Array(rest.prefix(Publisher.window))
      rest = rest.dropFirst(Publisher.window)
      outcomes += try await publish(slice: slice, excluded, ahead)
    }
    return outcomes
  }

  private func publish(
    slice records: [PushRecord], _ excluded: String?, _ ahead: LookAhead?
  ) async throws(RoutingError) -> [Outcome] {
    // Who comes back with a miss doesn't want to hear the same again.
    let isFresh = excluded != nil
    let isKept = records.map { $0.isAtLeastOnce && $0.place == nil && !$0.clientID.isEmpty }
    var kept = try await keep(zip(records, isKept).filter(\.1).map(\.0), isFresh).makeIterator()
    var located = try await locate(zip(records, isKept).filter { !$1 }.map(\.0), isFresh, ahead).makeIterator()
    let routes = isKept.compactMap { $0 ? kept.next() : located.next() }
    let deliveries = Deliveries(count: records.count)
    return await withUnsafeContinuation { continuation in
      deliveries.continuation = continuation
      for (index, route) in routes.enumerated() {
        switch route {
        case .settled(let outcome): deliveries.set(index, outcome)
        case .to(let node, let record) where node.id == excluded:
          deliveries.set(index, record.place == nil ? .offline : .stored)
        case .to(let node, let record):
          carry(record, to: node) { error in
            guard let error else { return deliveries.set(index, .routed(node: node.id)) }
            deliveries.set(index, record.place == nil ? .failed(error.message) : .stored)
          }
        }
      }
    }
  }

  /// What is to be done about a record.
  private enum Route {
    case to(NodeRecord, PushRecord)
    case settled(Outcome)
  }

  /// Where the clients of records are that are kept already, or never are.
  private func locate(
    _ records: [PushRecord], _ isFresh: Bool, _ ahead: LookAhead?
  ) async throws(RoutingError) -> [Route] {
    guard !records.isEmpty else { return [] }
    let clients = records.map(\.clientID)
    let holders: [Holder?]
    if let ahead, ahead.clients == clients {
      holders = try Registry.holders(from: await ahead.answers.all())
    } else {
      holders = try await registry.holders(of: clients)
    }
    let nodes = try await recentNodes.holding(Set(holders.compactMap { $0 }), isFresh: isFresh)
    return zip(records, holders).map { record, holder in
      guard let holder else { return .settled(.unknown) }
      guard let node = nodes[holder.node], node.epoch == holder.epoch else {
        return .settled(record.place == nil ? .offline : .stored)
      }
      return .to(node, record)
    }
  }

  /// Puts records into the inboxes of their clients, which tell in the same call where the clients are.
  private func keep(_ records: [PushRecord], _ isFresh: Bool) async throws(RoutingError) -> [Route] {
    guard !records.isEmpty else { return [] }
    let answers = await inboxes.append(records)
    var holders: Set<Holder> = []
    for case .success(.kept(_, let node, let epoch)) in answers { holders.insert(Holder(node: node, epoch: epoch)) }
    // What is kept is accepted, whether its node can be found now or not.
    let nodes = (try? await recentNodes.holding(holders, isFresh: isFresh)) ?? [:]
    var routes: [Route] = []
    for (record, answer) in zip(records, answers) {
      switch answer {
      case .success(.kept(let place, let name, let epoch)):
        var record = record
        record.place = place
        if let node = nodes[name], node.epoch == epoch {
          routes.append(.to(node, record))
        } else {
          routes.append(.settled(.stored))
        }
      case .success(.acknowledged): routes.append(.settled(.acknowledged))
      case .success(.unknown): routes.append(.settled(.unknown))
      case .success(.full(let reason)): routes.append(.settled(.full(reason)))
      case .success(.expired): routes.append(.settled(.expired))
      case .failure(let error): routes.append(.settled(.failed(error.message)))
      }
    }
    return routes
  }

  private func carry(_ record: PushRecord, to node: NodeRecord, then: @escaping (RoutingError?) -> Void) {
    if record.route == .direct, let direct {
      direct.carry(record, to: node, then: then)
    } else {
      produce(record, to: node, then: then)
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
      broadcast(record) { continuation.resume(returning: $0) }
    }
    if let error { throw error }
  }

  /// As above; `then` is called on the loop when the record stands in Kafka, or with why not.
  public func broadcast(_ record: PushRecord, then: @escaping (RoutingError?) -> Void) {
    produce(topic: Publisher.broadcastTopic, partition: 0, record, [], then)
  }

  /// What has become of a message to tags or to all.
  struct Logged: Equatable {
    /// It stands in the log; false when its time was over, or it was removed before.
    var isKept: Bool
    /// Messages that the log had no more room for.
    var trimmed: [String]
  }

  /// Keeps a message to tags or to all in the fleet's log, once, and tells every node. What is kept is accepted, whether
  /// the nodes can be told or not: they look at the log themselves.
  func publishToLog(_ record: PushRecord) async throws(RoutingError) -> Logged {
    guard case .kept(let place, let trimmed) = try await fleetLog.append(record) else {
      return Logged(isKept: false, trimmed: [])
    }
    var record = record
    record.place = place
    try? await broadcast(record)
    return Logged(isKept: true, trimmed: trimmed)
  }

  /// Whether a message was put into the fleet's log before.
  func hasLogged(_ messageID: String) async throws(RoutingError) -> Bool { try await fleetLog.knows(messageID) }

  /// Takes the messages of a job out of where they wait, and tells every node.
  ///
  /// - Parameter clients: those whose inboxes hold a message of it.
  func withdraw(_ job: String, from clients: [String]) async throws(RoutingError) {
    try await inboxes.withdraw(clients.map { ($0, MessageID(job: job, client: $0).description) })
    _ = try await fleetLog.withdraw(MessageID(job: job, client: nil).description)
    try await broadcast(PushRecord(target: .cancelled(job: job)))
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
