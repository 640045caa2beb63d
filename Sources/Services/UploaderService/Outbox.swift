internal import FileStore
internal import GRPC
internal import Reactor
internal import Redis
internal import Safeguards
internal import Telemetry

/// The notices of finished files that have still to go out.
///
/// A notice stands in its upload's record (the truth) from the moment that the file is verified; `outbox:{n}` are sorted
/// sets of file ids by time that only tell where to look, and hold an id before its notice is pending. Every uploader
/// relays what it finds there; two that send the same notice send the same message id, so an agent sees it once.
/// Confined to the loop.
final class Outbox {
  /// The indexes that file ids spread over. It is part of the keys: don't change it with a store in use.
  static let indexes = 16

  private let redis: RedisClient
  private let records: UploadRecords
  private let sender: any NoticeSender
  private let loop: EventLoop
  private let limits: UploadLimits
  private let clock: () -> Int64
  private let log: Logger
  private let metrics: UploadMetrics
  /// Called when a file's notice has gone out: nothing is needed below `incoming` any more.
  var onPublished: ((FileID, _ fence: Int64) async -> Void)?

  init(
    redis: RedisClient, records: UploadRecords, sender: any NoticeSender, loop: EventLoop, limits: UploadLimits,
    clock: @escaping () -> Int64, log: Logger, metrics: UploadMetrics
  ) {
    self.redis = redis
    self.records = records
    self.sender = sender
    self.loop = loop
    self.limits = limits
    self.clock = clock
    self.log = log
    self.metrics = metrics
  }

  private static func key(_ index: Int) -> RedisArgument { "outbox:{\(index)}" }

  private static func key(of id: FileID) -> RedisArgument {
    // FNV-1a: the same on every node and in every version, unlike Swift's own hash.
    let hash = id.text.utf8.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    return key(Int(hash % UInt64(indexes)))
  }

  /// Notes that a file's notice is, or is about to be, pending.
  func index(_ id: FileID) async throws {
    _ = try await redis.send(
      "ZADD", Self.key(of: id), RedisArgument(clock()), .string(id.text))
  }

  /// A notice that its finaliser has at hand: it goes out also when Redis forgets it meanwhile.
  struct Pending {
    let notice: Notice
    let fence: Int64
  }

  /// Sends a file's pending notice; nothing when none is.
  ///
  /// - Parameter known: nil for what the record says.
  /// - Returns: the job that the notice started, nil without one.
  @discardableResult
  func publish(_ id: FileID, _ known: Pending? = nil) async throws -> String? {
    var job: String?
    var due = known
    if due == nil { due = try await pending(id) }
    if let pending = due {
      job = try await sender.send(pending.notice)
      FailPoint.reached(.noticeSent)
      if try await records.published(id) { metrics.publishedNotices.increment() }
      FailPoint.reached(.published)
      await onPublished?(id, pending.fence)
    }
    _ = try await redis.send("ZREM", Self.key(of: id), .string(id.text))
    return job
  }

  private func pending(_ id: FileID) async throws -> Pending? {
    guard let record = try await records.load(id), record.state == .verified, let notice = record.notice else {
      return nil
    }
    return Pending(notice: try Notice(encoded: notice), fence: record.fence)
  }

  /// Sends a file's pending notice, and waits no longer for it than `limits.waitForNotice`: what takes longer, or fails, is
  /// left to the relay.
  ///
  /// - Returns: the job that the notice started; nil without one, and when it isn't known yet.
  func publishWithinLimit(_ id: FileID, _ known: Pending? = nil, onFailure: @escaping () async -> Void) async -> String?
  {
    let answer = FirstAnswer()
    loop.spawn {
      do {
        answer.give(try await self.publish(id, known))
      } catch {
        self.log.warning("notice not sent yet", ["file": id.text, "error": "\(error)"])
        await onFailure()
        answer.give(nil)
      }
    }
    let timer = loop.schedule(after: limits.waitForNotice) { answer.give(nil) }
    defer { timer.cancel() }
    return await answer.wait()
  }

  /// The first of several answers; on one loop.
  private final class FirstAnswer {
    private var answer: String??
    private let given = Changes()

    func give(_ job: String?) {
      guard answer == nil else { return }
      answer = .some(job)
      given.signal()
    }

    func wait() async -> String? {
      while true {
        if let answer { return answer }
        await given.next()
      }
    }
  }

  /// Looks through the indexes once: sends what is pending, hands what was left in the middle of finalising to `resume`,
  /// and drops the rest.
  ///
  /// - Parameter age: entries younger than this are left to the node that is at it.
  func relay(olderThan age: Duration, resume: (FileID) async throws -> Void) async throws {
    let before = clock() - age.wholeMilliseconds
    let replies = try await redis.pipeline(
      (0..<Self.indexes).map {
        ["ZRANGEBYSCORE", Self.key($0), "-inf", RedisArgument(before), "LIMIT", 0, RedisArgument(limits.relayBatch)]
      })
    for reply in replies {
      if case .error(let message) = reply { throw RedisError(code: .reply, message: message) }
      for member in reply.asArray ?? [] {
        guard let id = try? FileID(member.asString ?? "") else { continue }
        do { try await relay(id, resume: resume) } catch {
          log.warning("notice not relayed", ["file": id.text, "error": "\(error)"])
        }
      }
    }
  }

  private func relay(_ id: FileID, resume: (FileID) async throws -> Void) async throws {
    let record = try await records.load(id)
    switch record?.state {
    case .verified: try await publish(id)
    case .uploading where record?.isComplete == true, .finalising:
      // Its writer is at it while its lease lives.
      guard let record, record.writer == nil || record.leaseEnd < clock() else { return }
      try await resume(id)
    case .uploading, .published, nil: _ = try await redis.send("ZREM", Self.key(of: id), .string(id.text))
    }
  }
}
