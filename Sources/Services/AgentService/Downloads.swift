internal import Bytes
internal import FileStore
internal import FoundationEssentials
internal import Reactor
internal import Schema
internal import Telemetry

/// All files that were announced to this endpoint: which are known, which are fetched now, which wait. Belongs to its
/// loop.
final class Downloads {
  /// How many files are fetched at once; further ones wait for their turn.
  static let maximumConcurrent = 4
  /// How many files are known and haven't ended, at most; a notice past that is answered with a failure.
  static let maximumOpen = 1000
  /// How long after its end a file's result is told again to each new session, milliseconds: a gateway that died may
  /// have taken the report with it.
  static let retellFor: Int64 = 10 * 60 * 1000

  private let context: DownloadContext
  private var records: [String: DownloadRecord] = [:]
  private var running: [String: DownloadRunner] = [:]
  private var waiting: [String] = []
  private var isStopped = false

  init(_ context: DownloadContext) { self.context = context }

  /// Takes over what an earlier run left.
  func restore(_ records: [DownloadRecord]) {
    for record in records {
      self.records[record.fileID] = record
      if record.ending == nil { start(record.fileID) }
    }
  }

  /// Takes a notice. When this returns, the file is on record: it is fetched, or what became of it is told.
  ///
  /// - Throws: `AgentError` when the record can't be written; the notice is to come again.
  func accept(_ notice: PushV1.FileNotice, from origin: DownloadRecord.Notice) async throws {
    let id: FileID
    let name: String
    do {
      id = try FileID(notice.fileID)
      name = try AgentDirectory.deliveryName(notice.fileName)
      guard notice.fileSize >= 0 else { throw AgentError(.badNotice, "The announced size is negative.") }
      let open = records.values.count { $0.ending == nil }
      guard records[id.text] != nil || open < Self.maximumOpen else {
        throw AgentError(.full, "\(Self.maximumOpen) files are waiting already.")
      }
    } catch {
      return refuse(notice, origin, reason: "\(error)")
    }
    if var known = records[id.text] {
      let isRepetition = known.notices.contains { $0.messageID == origin.messageID && $0.jobID == origin.jobID }
      if known.ending == nil {
        known.add(origin)
        try await save(known)
        // The download may have ended meanwhile, and told all notices but this one.
        if let now = records[id.text], now.ending != nil { context.tell(now) }
        return
      }
      if isRepetition { return context.tell(known) }
    }
    let record = DownloadRecord(
      fileID: id.text, name: name, size: notice.fileSize, md5: Digest.normalised(notice.md5, .md5) ?? "",
      ticket: Data(notice.ticket.array), notices: [origin], kept: 0)
    try await save(record)
    start(id.text)
  }

  private func refuse(_ notice: PushV1.FileNotice, _ origin: DownloadRecord.Notice, reason: String) {
    let ending = DownloadRecord.Ending(
      path: "", md5: "", error: reason, endedAt: EventLoop.wallClockMilliseconds())
    context.tell(
      DownloadRecord(
        fileID: notice.fileID, name: notice.fileName, size: notice.fileSize, md5: "", ticket: Data(),
        notices: [origin], kept: 0, ending: ending))
  }

  private func save(_ record: DownloadRecord) async throws {
    records[record.fileID] = record
    running[record.fileID]?.record.notices = record.notices
    let directory = context.directory
    try await context.pool.run { try directory.save(record, durably: true) }
  }

  /// Tells a new session what has ended lately.
  func retell() {
    let since = EventLoop.wallClockMilliseconds() - Self.retellFor
    for record in records.values {
      if let ending = record.ending, ending.endedAt >= since { context.tell(record) }
    }
  }

  /// Ends all calls and writes down how far each file is.
  func stop() async {
    isStopped = true
    waiting = []
    for runner in running.values { runner.stop() }
    while let (_, runner) = running.first { await runner.ended() }
  }

  private func start(_ id: String) {
    guard !isStopped, running[id] == nil, let record = records[id] else { return }
    guard running.count < Self.maximumConcurrent else {
      if !waiting.contains(id) { waiting.append(id) }
      return
    }
    let runner = DownloadRunner(record, context)
    running[id] = runner
    context.loop.spawn {
      await runner.run()
      self.records[id] = runner.record
      self.running[id] = nil
      runner.announceEnd()
      self.startNext()
    }
  }

  private func startNext() {
    // The one that has just ended may be wanted again: a notice came while its last record was written.
    while running.count < Self.maximumConcurrent, !waiting.isEmpty { start(waiting.removeFirst()) }
  }
}
