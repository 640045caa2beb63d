internal import Bytes
internal import FileStore
internal import GRPC
internal import Reactor
internal import Redis

/// The records of uploads in Redis. Confined to the loop of its client; every call is one round trip or a pipeline of one.
final class UploadRecords {
  /// Who speaks for a file: only the writer at its fence changes its record.
  struct Pen: Sendable {
    let fence: Int64
    let writer: String
  }

  enum Written: Equatable {
    case ok
    /// Redis doesn't know the upload: it has lost it, or it has expired.
    case absent
    /// Another node is the writer, or has finished.
    case fenced
  }

  private let redis: RedisClient
  private let lifetime: Int64
  private let clock: () -> Int64

  /// - Parameter clock: ms since the epoch.
  init(redis: RedisClient, lifetime: Duration, clock: @escaping () -> Int64) {
    self.redis = redis
    self.lifetime = lifetime.wholeMilliseconds
    self.clock = clock
  }

  private static let record = RedisScript(UploadScripts.record)
  private static let renew = RedisScript(UploadScripts.renew)
  private static let release = RedisScript(UploadScripts.release)
  private static let beginFinalising = RedisScript(UploadScripts.beginFinalising)
  private static let verified = RedisScript(UploadScripts.verified)
  private static let startAgain = RedisScript(UploadScripts.startAgain)
  private static let published = RedisScript(UploadScripts.published)
  private static let restoreVerified = RedisScript(UploadScripts.restoreVerified)
  private static let lockForSweeping = RedisScript(UploadScripts.lockForSweeping)

  static func keys(_ id: FileID) -> [RedisArgument] {
    ["upload:{\(id.text)}", "upload:{\(id.text)}:offsets", "upload:{\(id.text)}:blocks", "upload:{\(id.text)}:lock"]
  }

  // MARK: Reading

  /// The record with its chunks and blocks; nil when there is none, or it has expired.
  func load(_ id: FileID) async throws -> UploadRecord? {
    let keys = Self.keys(id)
    let replies = try await redis.pipeline([
      ["HGETALL", keys[0]], ["ZRANGE", keys[1], 0, -1], ["HGETALL", keys[2]],
    ])
    guard replies.count == 3, let hash = replies[0].asArray, let offsets = replies[1].asArray,
      let blocks = replies[2].asArray
    else { throw Self.unreadable }
    guard !hash.isEmpty else { return nil }
    var record = try Self.record(hash[...])
    guard record.isDone || record.updatedAt + lifetime > clock() else { return nil }
    record.chunks = offsets.compactMap { member in
      let parts = (member.asString ?? "").split(separator: ":").compactMap { Int64($0) }
      guard parts.count == 2, parts[0] >= 0, parts[1] >= 0, parts[1] <= Upload.maximumSize else { return nil }
      return parts[0]..<(parts[0] + parts[1])
    }
    for (index, md5) in Self.pairs(blocks[...]) {
      if let index = Int(index) { record.blocks[index] = md5.string }
    }
    return record
  }

  static func record(_ hash: ArraySlice<RedisValue>) throws -> UploadRecord {
    guard let record = UploadRecord(fields: pairs(hash)) else { throw unreadable }
    return record
  }

  // MARK: The writer's steps

  /// Records what is safe on disk and in the journal.
  ///
  /// - Parameters:
  ///   - session: whose lock lives on with it; nil for none.
  ///   - durable: the bytes of the file that are durable then.
  ///   - forgettingOthers: what was recorded before counts no more.
  func record(
    _ id: FileID, _ pen: Pen, session: SessionLock?, lease: Duration, chunks: [Range<Int64>], blocks: [Int: String],
    durable: Int64, forgettingOthers: Bool = false
  ) async throws -> Written {
    var arguments: [RedisArgument] = [
      .string(session?.token ?? ""), RedisArgument(session?.lifetime.wholeMilliseconds ?? 1),
      RedisArgument(lease.wholeMilliseconds), RedisArgument(durable), RedisArgument(forgettingOthers ? 1 : 0),
      RedisArgument(chunks.count),
    ]
    for chunk in chunks { arguments += [RedisArgument(chunk.lowerBound), RedisArgument(chunk.count)] }
    for (index, md5) in blocks { arguments += [RedisArgument(index), .string(md5)] }
    return try await write(Self.record, id, pen, arguments)
  }

  func renew(_ id: FileID, _ pen: Pen, lease: Duration) async throws -> Written {
    try await write(Self.renew, id, pen, [RedisArgument(lease.wholeMilliseconds)])
  }

  func release(_ id: FileID, _ pen: Pen) async throws { _ = try await write(Self.release, id, pen, []) }

  /// - Returns: the record as it is then; nil when this node may not, or bytes are missing.
  func beginFinalising(_ id: FileID, _ pen: Pen) async throws -> UploadRecord? {
    let reply = try await call(Self.beginFinalising, id, pen.arguments)
    return reply.word == "ok" ? try Self.record(reply.dropFirst()) : nil
  }

  /// - Parameter isWhole: the file came in one message, and was never said to be finalising.
  func verified(_ id: FileID, _ pen: Pen, md5: String, notice: Bytes, isWhole: Bool = false) async throws -> Written {
    try await write(Self.verified, id, pen, [.string(md5), .bytes(notice), RedisArgument(isWhole ? 1 : 0)])
  }

  func startAgain(_ id: FileID, _ pen: Pen) async throws -> Written { try await write(Self.startAgain, id, pen, []) }

  private func write(
    _ script: RedisScript, _ id: FileID, _ pen: Pen, _ arguments: [RedisArgument]
  ) async throws -> Written {
    switch try await call(script, id, pen.arguments + arguments).word {
    case "ok": .ok
    case "absent": .absent
    default: .fenced
    }
  }

  // MARK: Anybody's steps

  /// - Returns: false when no notice was pending.
  @discardableResult
  func published(_ id: FileID) async throws -> Bool { try await call(Self.published, id, []).word == "ok" }

  /// Brings back the record of a finished file with its notice pending, unless there is one.
  func restoreVerified(_ id: FileID, size: Int64, fence: Int64, md5: String, notice: Bytes) async throws {
    _ = try await call(
      Self.restoreVerified, id, [RedisArgument(size), RedisArgument(fence), .string(md5), .bytes(notice)])
  }

  /// - Returns: false when the upload lives, or somebody else has its lock.
  func lockForSweeping(_ id: FileID, lifetime: Duration) async throws -> Bool {
    try await call(Self.lockForSweeping, id, [RedisArgument(lifetime.wholeMilliseconds)]).word == "ok"
  }

  func unlock(_ id: FileID) async throws { _ = try await redis.send("DEL", Self.keys(id)[3]) }

  // MARK: By digest

  private static func key(ofMD5 md5: String) -> RedisArgument { "upload-md5:{\(md5)}" }

  /// Lets `id(ofMD5:)` find an upload by the digest that its client has declared. The newest upload of a digest counts.
  func index(_ id: FileID, md5: String) async throws {
    _ = try await redis.send("SET", Self.key(ofMD5: md5), .string(id.text), "PX", RedisArgument(lifetime))
  }

  func id(ofMD5 md5: String) async throws -> FileID? {
    try await redis.send("GET", Self.key(ofMD5: md5)).asString.flatMap { try? FileID($0) }
  }

  // MARK: Calls

  /// Every script takes now and the lifetime first.
  func call(_ script: RedisScript, _ id: FileID, _ arguments: [RedisArgument]) async throws -> [RedisValue] {
    let reply = try await redis.run(
      script, keys: Self.keys(id), arguments: [RedisArgument(clock()), RedisArgument(lifetime)] + arguments)
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

extension UploadRecords.Pen {
  fileprivate var arguments: [RedisArgument] { [RedisArgument(fence), .string(writer)] }
}

extension [RedisValue] {
  var word: String? { first?.asString }
  func text(_ index: Int) -> String { index < count ? self[index].asString ?? "" : "" }
  func number(_ index: Int) -> Int64 { index < count ? self[index].asInteger ?? 0 : 0 }
}
