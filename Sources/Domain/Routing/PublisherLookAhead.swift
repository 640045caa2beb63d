/// What a publisher can ask Redis beside the caller's own next call.
extension Publisher {
  /// Clients that are asked for ahead at most; of more none is.
  static let maximumLookAhead = 200

  /// Clients that are being looked up.
  final class LookAhead {
    let clients: [String]
    let answers: Store.Answers

    init(_ clients: [String], _ answers: Store.Answers) {
      (self.clients, self.answers) = (clients, answers)
    }
  }

  /// Asks for the nodes that may be needed, and where clients are whose messages are kept nowhere, without waiting: so that
  /// these answers come with those of the caller's next call to Redis. Nothing is written, so it may come before the
  /// job stands.
  ///
  /// - Returns: what `publish` takes for records of just these clients; nil where it is to ask itself.
  func lookAhead(_ clients: [String], isKept: Bool) -> LookAhead? {
    recentNodes.readAhead()
    guard !isKept, !clients.isEmpty, clients.count <= Publisher.maximumLookAhead else { return nil }
    return LookAhead(clients, registry.store.begin(Registry.holderRequests(of: clients)))
  }
}
