internal import FileStore
internal import GRPC
internal import Reactor
internal import Redis
internal import Routing
internal import Telemetry

/// Names one download of a file among others: the client's own word, or a random one.
struct DownloadSession {
  /// A longer session id is refused.
  static let maximumLength = 128

  let text: String

  init(_ asked: String) throws(Status) {
    guard !asked.isEmpty else {
      text = Name.random()
      return
    }
    let isAllowed = asked.utf8.allSatisfy {
      $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "{") && $0 != UInt8(ascii: "}")
    }
    guard asked.utf8.count <= Self.maximumLength, isAllowed else {
      throw Status(
        .invalidArgument, "A session id has at most \(Self.maximumLength) printable ASCII characters without { and }.")
    }
    text = asked
  }
}

/// The records of downloads in Redis, `download:{FILE}:{SESSION}`: what the fleet's view shows and a client without memory
/// asks for. They are written without waiting: losing one costs a client some bytes again. Confined to the loop.
final class DownloadRecords {
  struct Record {
    var offset: Int64
    var size: Int64
  }

  private let redis: RedisClient
  private let lifetime: RedisArgument
  private let log: Logger

  init(redis: RedisClient, lifetime: Duration, log: Logger) {
    self.redis = redis
    self.lifetime = RedisArgument(lifetime.wholeMilliseconds)
    self.log = log
  }

  private static func key(_ id: FileID, _ session: DownloadSession) -> RedisArgument {
    "download:{\(id.text)}:{\(session.text)}"
  }

  func save(_ id: FileID, _ session: DownloadSession, _ record: Record) {
    let key = Self.key(id, session)
    let now = EventLoop.wallClockMilliseconds()
    let fields: [RedisArgument] = [
      "offset", RedisArgument(record.offset), "size", RedisArgument(record.size), "updated", RedisArgument(now),
    ]
    redis.send(["HSET", key] + fields, then: report)
    redis.send(["PEXPIRE", key, lifetime], then: report)
  }

  func remove(_ id: FileID, _ session: DownloadSession) {
    redis.send(["DEL", Self.key(id, session)], then: report)
  }

  private func report(_ result: Result<RedisValue, RedisError>) {
    if case .failure(let error) = result {
      log.debug("download record not written", ["error": error.message])
    }
  }

  func load(_ id: FileID, _ session: DownloadSession) async throws(Status) -> Record? {
    let reply: RedisValue
    do throws(RedisError) {
      reply = try await redis.send("HMGET", Self.key(id, session), "offset", "size")
    } catch {
      throw Status(.unavailable, "The store of download records doesn't answer; try again.", retryAfter: .seconds(1))
    }
    guard let fields = reply.asArray, fields.count == 2, let offset = fields[0].asInteger,
      let size = fields[1].asInteger
    else { return nil }
    return Record(offset: offset, size: size)
  }
}

/// Moves the record of one download as its bytes go out.
final class DownloadProgress {
  private let id: FileID
  private let session: DownloadSession
  private let size: Int64
  /// What the client had before, at least.
  private let floor: Int64
  private let records: DownloadRecords
  private let limits: DownloadLimits
  private var sent: Int64
  private var recorded: Int64

  init(
    _ id: FileID, _ session: DownloadSession, size: Int64, start: Int64, floor: Int64, _ records: DownloadRecords,
    _ limits: DownloadLimits
  ) {
    self.id = id
    self.session = session
    self.size = size
    self.floor = floor
    self.records = records
    self.limits = limits
    sent = start
    recorded = floor
  }

  func sent(upTo end: Int64) {
    sent = end
    let arrived = end - limits.bytesOnTheWay
    guard arrived - recorded >= limits.recordEveryBytes else { return }
    save(arrived / limits.recordEveryBytes * limits.recordEveryBytes)
  }

  /// The stream broke: what is certain to have arrived counts.
  func broke() { save(max(recorded, sent - limits.bytesOnTheWay)) }

  /// Everything asked for was handed over.
  func ended() { save(sent) }

  private func save(_ offset: Int64) {
    recorded = max(floor, offset)
    records.save(id, session, .init(offset: recorded, size: size))
  }
}
