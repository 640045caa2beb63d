internal import Bytes
internal import FileStore
internal import GRPC
internal import HTTP2
internal import Reactor
internal import Schema
internal import Telemetry

/// What all downloads of an agent share. Belongs to its loop.
final class DownloadContext {
  let loop: EventLoop
  let pool: BlockingPool
  let directory: AgentDirectory
  let gateways: [HostPort]
  let limits: Download.Limits
  let log: Logger
  /// The gateway that the session is on.
  var liveGateway: () -> Int? = { nil }
  /// Takes what is to be said on the session's stream; while there is none, it is dropped.
  var report: (PushV1.FileStatus) -> Void = { _ in }
  /// Takes each file that has ended.
  var ended: (DownloadRecord) -> Void = { _ in }

  init(
    loop: EventLoop, pool: BlockingPool, directory: AgentDirectory, gateways: [HostPort], limits: Download.Limits,
    log: Logger
  ) {
    self.loop = loop
    self.pool = pool
    self.directory = directory
    self.gateways = gateways
    self.limits = limits
    self.log = log
  }

  /// Tells what became of a file, for each of its notices.
  func tell(_ record: DownloadRecord) {
    guard let ending = record.ending else { return }
    for notice in record.notices {
      var status = PushV1.FileStatus(record, notice, now: ending.endedAt)
      status.state = ending.error.isEmpty ? .verified : .failed
      status.bytesDone = ending.error.isEmpty ? record.size : record.kept
      status.md5 = ending.md5
      status.path = ending.path
      status.error = ending.error
      report(status)
    }
  }
}

extension PushV1.FileStatus {
  init(_ record: DownloadRecord, _ notice: DownloadRecord.Notice, now: Int64) {
    self.init()
    jobID = notice.jobID
    messageID = notice.messageID
    fileID = record.fileID
    fileSize = record.size
    durationMs = max(0, now - notice.noticedAt)
  }
}

/// Performs what one `Download` asks for. Belongs to its loop.
final class DownloadRunner {
  /// The length of a chunk that is asked for: large enough to cost few messages, small enough for a steady progress.
  static let chunkBytes: Int32 = 256 * 1024
  /// How far a gateway may be ahead of this endpoint's disk on one call.
  static let windowBytes: Int32 = 4 << 20

  private(set) var machine: Download
  var record: DownloadRecord
  private let context: DownloadContext
  private let id: FileID?
  private var writer: PartWriter?
  private var channel: (gateway: Int, channel: Channel)?
  private var call: ResponseStream<PushV1.FileChunk>?
  private var lastGateway: Int?
  private var content = Bytes()
  private var silenceTimer: LoopTimer?
  private var isStopping = false
  private let end = Wakeup()
  private let pauseEnd = Wakeup()
  private var hasEnded = false

  init(_ record: DownloadRecord, _ context: DownloadContext) {
    self.record = record
    self.context = context
    id = try? FileID(record.fileID)
    machine = Download(
      size: record.size, md5: record.md5, limits: context.limits, seed: .random(in: 0 ... .max),
      now: EventLoop.monotonicNanoseconds())
  }

  private var now: Int64 { EventLoop.monotonicNanoseconds() }

  // MARK: The story

  /// Runs until the file has ended, or `stop` was called.
  func run() async {
    var actions = await prepare()
    while !isStopping {
      while !actions.isEmpty, !isStopping { actions += await perform(actions.removeFirst()) }
      if isStopping { break }
      switch machine.phase {
      case .ended: return await tidy()
      case .fetching: actions = await receive()
      case .waiting(let until):
        await pause(until: until)
        actions = machine.timePassed(now: now)
      case .preparing, .verifying, .placing:
        // Each of these is left by what its action answers.
        actions = machine.localFailure("the download has come to a halt")
      }
    }
    _ = await perform(.cancel)
    if machine.kept > record.kept { _ = await perform(.checkpoint) }
    await tidy()
  }

  /// Makes `run` return soon, with what was fetched on record.
  func stop() {
    isStopping = true
    call?.cancel()
    pauseEnd.fire()
  }

  /// Waits until `announceEnd`.
  func ended() async {
    while !hasEnded { await end.wait() }
  }

  func announceEnd() {
    hasEnded = true
    end.fire()
  }

  private func tidy() async {
    silenceTimer?.cancel()
    await writer?.abandon()
    channel?.channel.close()
    channel = nil
  }

  private func prepare() async -> [Download.Action] {
    guard let id else { return machine.localFailure("the file id is not valid") }
    let (directory, record) = (context.directory, self.record)
    do {
      let delivered = try await context.pool.run { try directory.delivered(record.name, size: record.size) }
      if let delivered, delivered.md5 == record.md5 {
        return machine.found(path: delivered.path, md5: delivered.md5)
      }
      let (part, kept) = try await context.pool.run {
        let part = try directory.openPart(id)
        return (part, try part.digest(upTo: record.kept))
      }
      writer = PartWriter(loop: context.loop, pool: context.pool, part: part)
      return machine.prepared(kept: kept, now: now)
    } catch {
      return machine.localFailure("\(error)")
    }
  }

  // MARK: Actions

  /// - Returns: what is to be done next on account of the result.
  private func perform(_ action: Download.Action) async -> [Download.Action] {
    do {
      switch action {
      case .fetch(let offset, _): return await fetch(from: offset)
      case .keep:
        writer?.append(content)
        content = Bytes()
        try await writer?.room()
      case .cancel: endCall()
      case .discard:
        endCall()
        await writer?.abandon()
        try await writer?.afterAll { try $0.discard() }
        record.kept = 0
      case .finish:
        endCall()
        guard let md5 = try await writer?.afterAll({ try $0.finish() }) else { break }
        return machine.digested(md5, now: now)
      case .place:
        guard let id else { break }
        let (directory, name) = (context.directory, record.name)
        let path = try await context.pool.run { try directory.place(id, as: name) }
        return machine.placed(path: path)
      case .checkpoint: try await checkpoint()
      case .report(let progress): try await report(progress)
      }
    } catch {
      return machine.localFailure("\(error)")
    }
    return []
  }

  private func endCall() {
    call?.cancel()
    call = nil
    silenceTimer?.cancel()
  }

  private func checkpoint() async throws {
    guard let kept = try await writer?.afterAll({ try $0.sync() }) else { return }
    record.kept = kept
    let (directory, record) = (context.directory, self.record)
    try await context.pool.run { try directory.save(record, durably: false) }
  }

  private func report(_ progress: Download.Progress) async throws {
    let time = EventLoop.wallClockMilliseconds()
    switch progress {
    case .downloading(let kept):
      for notice in record.notices {
        var status = PushV1.FileStatus(record, notice, now: time)
        status.state = .downloading
        status.bytesDone = kept
        context.report(status)
      }
      return
    case .verified(let path, let md5):
      record.kept = record.size
      record.ending = .init(path: path, md5: md5, error: "", endedAt: time)
    case .failed(let reason, let md5):
      record.kept = 0
      record.ending = .init(path: "", md5: md5, error: reason, endedAt: time)
    }
    await writer?.abandon()
    let (directory, id, record) = (context.directory, self.id, self.record)
    // The result is told even when it can't be written down: after a restart the file is looked at again.
    do {
      try await context.pool.run {
        try directory.save(record, durably: true)
        if let id { directory.removePart(id) }
      }
    } catch {
      context.log.error("the record of a file can't be written", ["file": record.fileID, "reason": "\(error)"])
    }
    context.tell(self.record)
    context.ended(self.record)
  }

  // MARK: The call

  /// The session's gateway first; after a break the next one that isn't the one that broke.
  private func nextGateway() -> Int {
    let live = context.liveGateway()
    guard let last = lastGateway else { return live ?? 0 }
    if let live, live != last { return live }
    return (last + 1) % context.gateways.count
  }

  private func fetch(from offset: Int64) async -> [Download.Action] {
    let gateway = nextGateway()
    lastGateway = gateway
    if channel?.gateway != gateway {
      channel?.channel.close()
      var options = ChannelOptions()
      options.http2.streamWindowBytes = Self.windowBytes
      channel = (gateway, Channel(loop: context.loop, target: context.gateways[gateway], options: options))
    }
    guard let channel = channel?.channel else { return [] }
    var request = PushV1.FileRequest()
    request.fileID = record.fileID
    request.offset = offset
    request.ticket = Bytes(record.ticket)
    request.chunkBytes = Self.chunkBytes
    context.log.debug(
      "fetching", ["file": record.fileID, "offset": offset, "gateway": context.gateways[gateway].description])
    watchSilence()
    do {
      call = try await PushV1.FileServiceClient(channel).downloadFile(request)
    } catch {
      return machine.callEnded(Self.classify(error), now: now)
    }
    return []
  }

  private func receive() async -> [Download.Action] {
    guard let call else { return machine.callEnded(.passing("the call was cut off"), now: now) }
    do {
      guard let chunk = try await call.next() else {
        self.call = nil
        return machine.callEnded(.passing("the gateway ended the call early"), now: now)
      }
      content = chunk.content
      return machine.chunk(
        offset: chunk.offset, length: Int64(chunk.content.count), isLast: chunk.isLast, now: now)
    } catch {
      self.call = nil
      let actions = machine.timePassed(now: now)
      guard actions.isEmpty else { return actions }
      context.log.info("a download broke off", ["file": record.fileID, "kept": machine.kept, "reason": "\(error)"])
      return machine.callEnded(Self.classify(error), now: now)
    }
  }

  /// Cancels the call when the machine's time is up, which makes `receive` go on.
  private func watchSilence() {
    silenceTimer?.cancel()
    guard case .fetching = machine.phase, let wake = machine.wakeTime else { return }
    silenceTimer = context.loop.schedule(after: .nanoseconds(max(0, wake - now))) { [unowned self] in
      guard let wake = machine.wakeTime, wake <= now else { return watchSilence() }
      call?.cancel()
      channel?.channel.close()
      channel = nil
    }
  }

  private func pause(until: Int64) async {
    guard until > now else { return }
    let timer = context.loop.schedule(after: .nanoseconds(until - now)) { [pauseEnd] in pauseEnd.fire() }
    await pauseEnd.wait()
    timer.cancel()
  }

  /// What no other gateway and no later time would answer differently.
  static func classify(_ error: any Error) -> Download.Break {
    let status = Status(error)
    switch status.code {
    case .notFound, .failedPrecondition, .invalidArgument, .outOfRange, .permissionDenied, .unauthenticated,
      .unimplemented:
      return .lasting(status.description)
    default:
      return .passing(status.description)
    }
  }
}
