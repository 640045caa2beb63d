internal import FoundationEssentials

/// What stands on the disk about one file that was announced: enough to go on after a restart, and to say again what
/// became of it.
struct DownloadRecord: Sendable, Hashable, Codable {
  /// Who announced it; each of them is told what becomes of the file.
  struct Notice: Sendable, Hashable, Codable {
    var jobID: String
    var messageID: String
    /// Milliseconds since the epoch.
    var noticedAt: Int64

    enum CodingKeys: String, CodingKey {
      case jobID = "job_id"
      case messageID = "message_id"
      case noticedAt = "noticed_at_ms"
    }
  }

  /// How it ended.
  struct Ending: Sendable, Hashable, Codable {
    /// Where the file stands; empty when it failed.
    var path: String
    /// As computed here; may be empty when it failed.
    var md5: String
    /// Why it failed; empty when it is verified.
    var error: String
    /// Milliseconds since the epoch.
    var endedAt: Int64

    enum CodingKeys: String, CodingKey {
      case path, md5, error
      case endedAt = "ended_at_ms"
    }
  }

  /// How many notices of one file are remembered; of more the oldest are forgotten.
  static let maximumNotices = 64

  var fileID: String
  var name: String
  var size: Int64
  /// Lower-case hex, or empty.
  var md5: String
  var ticket: Data
  var notices: [Notice]
  /// This much of the part file is safe on the disk.
  var kept: Int64
  var ending: Ending?

  enum CodingKeys: String, CodingKey {
    case name, size, md5, ticket, notices, kept, ending
    case fileID = "file_id"
  }

  mutating func add(_ notice: Notice) {
    if notices.contains(where: { $0.messageID == notice.messageID && $0.jobID == notice.jobID }) { return }
    notices.append(notice)
    if notices.count > Self.maximumNotices { notices.removeFirst() }
  }
}

/// What an agent remembers of its session.
struct AgentState: Sendable, Hashable, Codable {
  struct Position: Sendable, Hashable, Codable {
    var source: String
    var inboxID: String
    var seq: Int64

    enum CodingKeys: String, CodingKey {
      case source, seq
      case inboxID = "inbox_id"
    }
  }

  var clientID: String
  var lastSessionID: String?
  var positions: [Position] = []
  /// Of the newest messages, the oldest first.
  var messageIDs: [String]?

  enum CodingKeys: String, CodingKey {
    case positions
    case messageIDs = "message_ids"
    case clientID = "client_id"
    case lastSessionID = "last_session_id"
  }
}

/// JSON with sorted keys, so that equal values are equal files.
func encodeJSON(_ value: some Encodable) throws(AgentError) -> [UInt8] {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  do { return try Array(encoder.encode(value)) } catch { throw AgentError(.io, "a record can't be written as JSON") }
}

func decodeJSON<Value: Decodable>(_ type: Value.Type, _ bytes: [UInt8]) -> Value? {
  try? JSONDecoder().decode(type, from: Data(bytes))
}
