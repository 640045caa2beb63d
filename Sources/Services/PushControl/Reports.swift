internal import FoundationEssentials
internal import Reactor
internal import Schema
internal import UploadClient

// What the commands print as JSON. Names are the contract's; what is empty there is left out, but for what a reader counts
// on.

struct UploadedFile: Encodable {
  var path: String
  var fileID: String?
  var name: String?
  var size: Int64
  var md5: String?
  var milliseconds: Int64?
  /// What was sent now, repeats too, and what was at the server before.
  var bytesSent: Int64?
  var bytesKnown: Int64?
  /// Why it isn't there.
  var error: String?

  enum CodingKeys: String, CodingKey {
    case path, name, size, md5, error
    case fileID = "file_id"
    case milliseconds = "duration_ms"
    case bytesSent = "bytes_sent"
    case bytesKnown = "bytes_known"
  }

  private init(path: String, size: Int64, error: String?) {
    self.path = path
    self.size = size
    self.error = error
  }

  init(_ path: String, _ result: UploadResult) {
    self.path = path
    fileID = result.fileID
    name = result.name
    size = result.size
    md5 = result.md5
    milliseconds = result.duration.wholeMilliseconds
    bytesSent = result.bytesSent
    bytesKnown = result.bytesKnown
  }

  init(_ report: UploadReport) {
    switch report.result {
    case .success(let result): self.init(report.path, result)
    case .failure(let failure): self.init(path: report.path, size: report.size, error: failure.message)
    }
  }
}

struct PushReport: Encodable {
  var jobID: String
  var targetCount: Int64
  /// How many of them are away: their messages wait until they return.
  var storedCount: Int64
  var duplicate: Bool
  var file: UploadedFile?

  enum CodingKeys: String, CodingKey {
    case duplicate, file
    case jobID = "job_id"
    case targetCount = "target_count"
    case storedCount = "stored_count"
  }
}

struct JobReport: Encodable {
  struct Row: Encodable {
    var clientID: String
    var state: String
    var percent: Int32
    var md5: String
    var size: Int64
    var bytesDone: Int64
    var milliseconds: Int64
    var updatedAt: Int64
    var gateway: String?
    var path: String?
    var reason: String?
    var messageID: String?

    enum CodingKeys: String, CodingKey {
      case state, percent, md5, size, gateway, path, reason
      case clientID = "client_id"
      case bytesDone = "bytes_done"
      case milliseconds = "duration_ms"
      case updatedAt = "updated_at_ms"
      case messageID = "message_id"
    }

    init(_ row: PushV1.JobTarget) {
      clientID = row.clientID
      state = row.state.name
      percent = row.percent
      md5 = row.md5
      size = row.size
      bytesDone = row.bytesDone
      milliseconds = row.durationMs
      updatedAt = row.updatedAtMs
      gateway = row.gateway.nonEmpty
      path = row.path.nonEmpty
      reason = row.reason.nonEmpty
      messageID = row.messageID.nonEmpty
    }
  }

  var jobID: String
  var state: String
  /// How many rows are in each state.
  var counts: [String: Int64]
  var targets: [Row]
  var submittedAt: Int64
  var updatedAt: Int64
  var reason: String?
  /// The file that was uploaded for it.
  var file: UploadedFile?

  enum CodingKeys: String, CodingKey {
    case state, counts, targets, reason, file
    case jobID = "job_id"
    case submittedAt = "submitted_at_ms"
    case updatedAt = "updated_at_ms"
  }

  init(_ job: JobView, file: UploadedFile? = nil) {
    jobID = job.id
    state = job.state.name
    counts = Dictionary(job.counts.map { ($0.state.name, $0.count) }, uniquingKeysWith: +)
    targets = job.rows.map { Row($0) }
    submittedAt = job.submittedAt
    updatedAt = job.updatedAt
    reason = job.reason.nonEmpty
    self.file = file
  }
}

struct ClientsReport: Encodable {
  struct Client: Encodable {
    var clientID: String
    var online: Bool
    var nodeID: String
    var sessionID: String
    var tags: [String: String]
    var connectedAt: Int64
    var lastActive: Int64
    var peer: String
    var sessionEpoch: Int64

    enum CodingKeys: String, CodingKey {
      case online, tags, peer
      case sessionEpoch = "session_epoch"
      case clientID = "client_id"
      case nodeID = "node_id"
      case sessionID = "session_id"
      case connectedAt = "connected_at_ms"
      case lastActive = "last_active_ms"
    }

    init(_ client: PushV1.ClientInfo) {
      clientID = client.clientID
      online = client.online
      nodeID = client.nodeID
      sessionID = client.sessionID
      tags = client.tags
      connectedAt = client.connectedAtMs
      lastActive = client.lastActiveMs
      peer = client.peer
      sessionEpoch = client.sessionEpoch
    }
  }
  var clients: [Client]
}

struct NodesReport: Encodable {
  struct Node: Encodable {
    var nodeID: String
    var address: String
    var partition: Int32
    var epoch: Int64
    var leaseLeft: Int64
    var clientCount: Int64
    var startedAt: Int64
    var draining: Bool

    enum CodingKeys: String, CodingKey {
      case address, partition, epoch, draining
      case nodeID = "node_id"
      case leaseLeft = "lease_left_ms"
      case clientCount = "client_count"
      case startedAt = "started_at_ms"
    }

    init(_ node: PushV1.NodeInfo) {
      nodeID = node.nodeID
      address = node.address
      partition = node.partition
      epoch = node.epoch
      leaseLeft = node.leaseLeftMs
      clientCount = node.clientCount
      startedAt = node.startedAtMs
      draining = node.draining
    }
  }
  var nodes: [Node]
}

/// A line of `clients --watch`.
struct PresenceReport: Encodable {
  var event: String
  var details: String
  var client: ClientsReport.Client
  var at: Int64
  /// The client's state when the watch began.
  var snapshot: Bool

  enum CodingKeys: String, CodingKey {
    case event, details, client, snapshot
    case at = "at_ms"
  }
}

struct DrainReport: Encodable {
  var nodeID: String
  var told: Int64
  /// Told at once, at the deadline.
  var left: Int64
  var milliseconds: Int64
  var deadlinePassed: Bool

  enum CodingKeys: String, CodingKey {
    case nodeID = "node_id"
    case told = "clients_told"
    case left = "clients_left"
    case milliseconds = "duration_ms"
    case deadlinePassed = "deadline_passed"
  }
}

extension String {
  fileprivate var nonEmpty: String? { isEmpty ? nil : self }
}

/// One line of JSON with sorted keys.
func jsonLine(_ value: some Encodable) throws -> String {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  return String(decoding: try encoder.encode(value), as: UTF8.self)
}
