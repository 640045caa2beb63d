internal import Bytes
internal import Protobuf
internal import Redis
public import Schema

/// What a step tells about a row, beside its new state; nil leaves a field as it is.
public struct RowFields: Hashable, Sendable {
  public var reason: String?
  /// The node that wrote to the client, or reported last.
  public var gateway: String?
  /// 0 … 100, of the file.
  public var percent: Int32?
  public var bytesDone: Int64?
  /// Bytes of the file.
  public var size: Int64?
  public var md5: String?
  /// Where the file stands on the endpoint.
  public var path: String?
  /// ms, as the endpoint measured it.
  public var duration: Int64?

  public init(
    reason: String? = nil, gateway: String? = nil, percent: Int32? = nil,
    bytesDone: Int64? = nil, size: Int64? = nil, md5: String? = nil, path: String? = nil, duration: Int64? = nil
  ) {
    self.reason = reason
    self.gateway = gateway
    self.percent = percent
    self.bytesDone = bytesDone
    self.size = size
    self.md5 = md5
    self.path = path
    self.duration = duration
  }

  /// Names and values in turn, as the row's hash has them.
  var words: [String] {
    var words: [String] = []
    func put(_ name: String, _ value: (some CustomStringConvertible)?) {
      if let value { words += [name, value.description] }
    }
    put("reason", reason)
    put("gateway", gateway)
    put("percent", percent)
    put("bytes_done", bytesDone)
    put("size", size)
    put("md5", md5)
    put("path", path)
    put("duration", duration)
    return words
  }
}

/// A step of some rows of one job to the same state, with the same fields.
public struct RowStep: Equatable, Sendable {
  public var job: String
  public var clients: [String]
  public var state: JobRowState
  public var fields: RowFields

  public init(job: String, clients: [String], to state: JobRowState, _ fields: RowFields = RowFields()) {
    self.job = job
    self.clients = clients
    self.state = state
    self.fields = fields
  }
}

extension PushV1.JobTarget {
  /// A row's hash; nil when there is none.
  init?(client: String, _ fields: [(name: String, value: RedisValue)]) {
    guard !fields.isEmpty else { return nil }
    self.init()
    clientID = client
    for (name, value) in fields {
      switch name {
      case "state": state = State(rawValue: Int32(clamping: value.number))
      case "percent": percent = Int32(clamping: value.number)
      case "reason": reason = value.text
      case "gateway": gateway = value.text
      case "path": path = value.text
      case "size": size = value.number
      case "md5": md5 = value.text
      case "duration": durationMs = value.number
      case "updated_at": updatedAtMs = value.number
      case "bytes_done": bytesDone = value.number
      default: break
      }
    }
  }
}

/// A job without its rows.
public struct JobSummary: Sendable {
  public var job: PushV1.Job
  /// What the job's clients are told of its file; nil without one.
  public var notice: PushV1.FileNotice?
  public var kind: JobKind
  public var counts: [JobRowState: Int]
  /// ms since the epoch.
  public var submittedAt: Int64
  /// ms since the epoch.
  public var updatedAt: Int64
  /// Grows with each change of a row.
  public var ordinal: Int64
  public var isCancelled: Bool
  /// Why it was cancelled.
  public var reason: String

  /// What follows from the counts. A job without rows is over when it stands in Kafka: nobody answers for its clients.
  public var state: JobState {
    let counts = JobLedger.keepsRows(of: job) ? self.counts : [:]
    return JobState(counts: counts, kind: kind, isCancelled: isCancelled)
  }

  /// nil for an empty hash: there is no such job.
  init?(_ fields: [(name: String, value: RedisValue)]) throws(RoutingError) {
    guard !fields.isEmpty else { return nil }
    job = PushV1.Job()
    (kind, counts, submittedAt, updatedAt, ordinal, isCancelled, reason) = (.message, [:], 0, 0, 0, false, "")
    for (name, value) in fields {
      switch name {
      case "spec": job = try JobSummary.read(value)
      case "notice": notice = value.asBytes?.isEmpty == false ? try JobSummary.read(value) : nil
      case "kind": kind = JobKind(rawValue: value.text) ?? .message
      case "submitted_at": submittedAt = value.number
      case "updated_at": updatedAt = value.number
      case "ordinal": ordinal = value.number
      case "cancelled": isCancelled = true
      case "reason": reason = value.text
      default:
        guard name.hasPrefix("s"), let state = UInt8(name.dropFirst()).flatMap(JobRowState.init) else { continue }
        counts[state] = Int(value.number)
      }
    }
  }
}

extension JobSummary {
  fileprivate static func read<M: Message>(_ value: RedisValue) throws(RoutingError) -> M {
    do throws(ProtobufError) {
      return try M(serialized: value.asBytes ?? Bytes())
    } catch {
      throw RoutingError(.corrupt, "A job in the ledger can't be read: \(error.message).")
    }
  }
}
