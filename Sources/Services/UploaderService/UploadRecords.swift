internal import Bytes
internal import FileStore
internal import GRPC
internal import Reactor
internal import Redis

/// The records of uploads in Redis. Confined to the loop of its client; every call is one round trip or a pipeline of one.
final class UploadRecords {
  /// What `declare` found.
  enum Declared {
    case record(UploadRecord)
    /// There is none, and no size to begin one with.
    case absent
    /// What was told contradicts what stands.
    case otherSize(Int64)
    case otherMD5(String)
  }

  enum Recorded {
    case recorded(durableBytes: Int64, conflicts: Set<Int64>)
    /// The upload isn't at this fence, or isn't being uploaded, any more.
    case fenced
  }

  enum Finalising {
    case granted(fenceBefore: Int64, fenceNow: Int64)
    case busy, done, absent, incomplete
  }

  private let redis: RedisClient
  private let lifetime: Int64

  init(redis: RedisClient, lifetime: Duration) {
    self.redis = redis
    self.lifetime = lifetime.wholeMilliseconds
  }

  private static let declare = RedisScript(UploadScripts.declare)
  private static let recordChunks = RedisScript(UploadScripts.record)
  private static let beginFinalising = RedisScript(UploadScripts.beginFinalising)
  private static let renewFinaliser = RedisScript(UploadScripts.renewFinaliser)
  private static let verified = RedisScript(UploadScripts.verified)
  private static let published = RedisScript(UploadScripts.published)
  private static let startAgain = RedisScript(UploadScripts.startAgain)

  static func keys(_ id: FileID) -> [RedisArgument] {
    ["upload:{\(id.text)}", "upload:{\(id.text)}:offsets"]
  }
  private var now: RedisArgument { RedisArgument(EventLoop.wallClockMilliseconds()) }

  /// Opens the record, or adds to what is declared in it.
  func declare(_ id: FileID, _ declaration: Declaration) async throws -> Declared {
    let reply = try await call(
      Self.declare, id,
      [
        RedisArgument(declaration.size ?? -1), .string(declaration.md5 ?? ""), .string(declaration.name ?? ""),
        .string(declaration.sha256 ?? ""), .bytes(declaration.job ?? Bytes()),
      ])
    switch reply.word {
    case "absent": return .absent
    case "size": return .otherSize(reply.number(1))
    case "md5": return .otherMD5(reply.text(1))
    default:
      guard let record = UploadRecord(fields: Self.pairs(reply.dropFirst())) else { throw Self.unreadable }
      return .record(record)
    }
  }

  /// The record with its chunks; nil when there is none.
  func load(_ id: FileID) async throws -> UploadRecord? {
    let keys = Self.keys(id)
    let replies = try await redis.pipeline([["HGETALL", keys[0]], ["ZRANGE", keys[1], 0, -1]])
    guard replies.count == 2, let hash = replies[0].asArray, let offsets = replies[1].asArray else {
      throw Self.unreadable
    }
    guard !hash.isEmpty else { return nil }
    guard var record = UploadRecord(fields: Self.pairs(hash[...])) else { throw Self.unreadable }
    record.chunks = offsets.compactMap { member in
      let parts = (member.asString ?? "").split(separator: ":").compactMap { Int64($0) }
      guard parts.count == 2, parts[0] >= 0, parts[1] >= 0, parts[1] <= Upload.maximumSize else { return nil }
      return parts[0]..<(parts[0] + parts[1])
    }
    return record
  }

  /// Records chunks that are safe on disk.
  func record(_ id: FileID, fence: Int64, _ chunks: [Range<Int64>]) async throws -> Recorded {
    var arguments = [RedisArgument(fence)]
    for chunk in chunks {
      arguments.append(RedisArgument(chunk.lowerBound))
      arguments.append(RedisArgument(chunk.count))
    }
    let reply = try await call(Self.recordChunks, id, arguments)
    guard reply.word == "ok" else { return .fenced }
    let conflicts = (3..<max(3, reply.count)).map { reply.number($0) }
    return .recorded(durableBytes: reply.number(1), conflicts: Set(conflicts))
  }

  /// Asks to be the one that finalises.
  func beginFinalising(_ id: FileID, node: String, lease: Duration) async throws -> Finalising {
    let reply = try await call(Self.beginFinalising, id, [.string(node), RedisArgument(lease.wholeMilliseconds)])
    switch reply.word {
    case "ok": return .granted(fenceBefore: reply.number(1), fenceNow: reply.number(2))
    case "busy": return .busy
    case "done": return .done
    case "incomplete": return .incomplete
    default: return .absent
    }
  }

  /// - Returns: false when somebody else has taken over.
  func renewFinaliser(_ id: FileID, fence: Int64, lease: Duration) async throws -> Bool {
    try await call(Self.renewFinaliser, id, [RedisArgument(fence), RedisArgument(lease.wholeMilliseconds)]).isOK
  }

  /// - Returns: false when somebody else has taken over.
  func verified(_ id: FileID, fence: Int64, md5: String, notice: Bytes) async throws -> Bool {
    try await call(Self.verified, id, [RedisArgument(fence), .string(md5), .bytes(notice)]).isOK
  }

  /// - Returns: false when no notice was pending.
  @discardableResult
  func published(_ id: FileID) async throws -> Bool { try await call(Self.published, id, []).isOK }

  /// - Returns: the new fence, nil when somebody else has taken over.
  func startAgain(_ id: FileID, fence: Int64) async throws -> Int64? {
    let reply = try await call(Self.startAgain, id, [RedisArgument(fence)])
    return reply.isOK ? reply.number(1) : nil
  }

  /// Every script takes now and the lifetime first.
  private func call(_ script: RedisScript, _ id: FileID, _ arguments: [RedisArgument]) async throws -> [RedisValue] {
    let reply = try await redis.run(
      script, keys: Self.keys(id), arguments: [now, RedisArgument(lifetime)] + arguments)
    guard let words = reply.asArray else { throw Self.unreadable }
    return words
  }

  /// Fields and values in turn, as HGETALL replies them.
  private static func pairs(_ values: ArraySlice<RedisValue>) -> [String: Bytes] {
    var fields: [String: Bytes] = [:]
    var index = values.startIndex
    while index + 1 < values.endIndex {
      if let name = values[index].asString { fields[name] = values[index + 1].asBytes }
      index += 2
    }
    return fields
  }

  private static let unreadable = Status(.internal, "The record of the upload can't be read.")
}

extension [RedisValue] {
  fileprivate var word: String? { first?.asString }
  fileprivate var isOK: Bool { word == "ok" }
  fileprivate func text(_ index: Int) -> String { index < count ? self[index].asString ?? "" : "" }
  fileprivate func number(_ index: Int) -> Int64 { index < count ? self[index].asInteger ?? 0 : 0 }
}
