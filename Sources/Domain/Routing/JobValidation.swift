public import Schema

extension JobDispatch {
  /// Checks a job that came from outside.
  static func validate(_ job: PushV1.Job, _ notice: PushV1.FileNotice?) throws(RoutingError) {
    try Name.validate(job.jobID, as: "job id")
    try validate(job.targets)
    guard job.ttlMs >= 0, job.deadlineMs >= 0 else {
      throw RoutingError(.invalid, "The job's time to live and its deadline can't be negative.")
    }
    guard job.qos == .atMostOnce || job.qos == .atLeastOnce else {
      throw RoutingError(.invalid, "The job's quality of service is neither 0 nor 1.")
    }
    try validate(route: job)
    try validate(slowReader: job)
    switch job.payload {
    case .text(let text):
      guard text.content.utf8.count <= maximumContentBytes else {
        throw RoutingError(.invalid, "The text is longer than \(maximumContentBytes) bytes.")
      }
    case .event(let event):
      guard !event.type.isEmpty else { throw RoutingError(.invalid, "The event has no type.") }
      guard event.type.utf8.count + event.details.utf8.count <= maximumContentBytes else {
        throw RoutingError(.invalid, "The event is longer than \(maximumContentBytes) bytes.")
      }
    case .fileID:
      guard notice != nil else { throw RoutingError(.notFound, "There is no published file of this id.") }
    case nil: throw RoutingError(.invalid, "The job has no payload: a text, a file id or an event.")
    }
  }

  private static func validate(route job: PushV1.Job) throws(RoutingError) {
    switch job.route {
    case .kafka: break
    case .direct:
      guard job.targets?.clientIDs.isEmpty == false else {
        throw RoutingError(.invalid, "The direct route is for named clients: what is for more goes through Kafka.")
      }
    case .unrecognized: throw RoutingError(.invalid, "The job's route is neither Kafka nor direct.")
    }
  }

  private static func validate(slowReader job: PushV1.Job) throws(RoutingError) {
    switch job.slowReader {
    case .slowReaderDefault, .disconnect: break
    case .wait:
      guard job.qos == .atLeastOnce else {
        throw RoutingError(.invalid, "A best-effort message is kept nowhere, so it can't wait for a slow reader.")
      }
    case .dropOldest:
      guard job.qos == .atMostOnce else {
        throw RoutingError(.invalid, "Messages that are kept until they are acknowledged can't be dropped.")
      }
    case .unrecognized: throw RoutingError(.invalid, "The job's policy for slow readers is not known.")
    }
  }

  private static func validate(_ targets: PushV1.Targets?) throws(RoutingError) {
    let kinds = [targets?.all == true, targets?.clientIDs.isEmpty == false, targets?.tags.isEmpty == false]
    guard let targets, kinds.contains(true) else {
      throw RoutingError(.invalid, "The job has no targets: client ids, tags, or all.")
    }
    guard kinds.count(where: { $0 }) == 1 else {
      throw RoutingError(.invalid, "The job's targets are client ids, tags or all: one of them, not several.")
    }
    try Registry.validate(tags: targets.tags)
    guard targets.clientIDs.count <= maximumTargets else {
      throw RoutingError(.invalid, "The job names more than \(maximumTargets) clients.")
    }
    for client in targets.clientIDs { try Name.validate(client, as: "client id") }
  }
}

extension PushV1.Targets {
  /// The job is for whoever has the tags, or for all: every client gets the same bytes.
  public var isForMembers: Bool { all || !tags.isEmpty }
}

extension JobLedger {
  /// Whether a job has a row for each client. A best-effort message to tags or to all has none: only counts, so that it
  /// costs no write to Redis per client.
  public static func keepsRows(of job: PushV1.Job) -> Bool {
    guard job.targets?.isForMembers == true, job.qos == .atMostOnce else { return true }
    if case .fileID = job.payload { return true }
    return false
  }
}
