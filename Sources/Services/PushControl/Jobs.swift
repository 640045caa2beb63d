internal import GRPC
internal import Reactor
internal import Schema
internal import UploadClient

extension Control {
  /// Submits a job, and waits for its end when the order says so.
  ///
  /// - Returns: 0 when it was accepted; after waiting, when every target has ended well.
  public func push(_ order: PushOrder) async -> Int32 {
    await command {
      var job = PushV1.Job(
        jobID: order.jobID ?? randomID(),
        targets: .init(
          clientIDs: order.clients, all: order.clients.isEmpty && order.tags.isEmpty, tags: order.tags),
        qos: order.isAtLeastOnce ? .atLeastOnce : .atMostOnce)
      job.route = order.route == .direct ? .direct : .kafka
      switch order.slowReader {
      case .wait: job.slowReader = .wait
      case .dropOldest: job.slowReader = .dropOldest
      case .disconnect: job.slowReader = .disconnect
      case nil: break
      }
      var file: UploadedFile?
      switch order.payload {
      case .text(let text): job.payload = .text(.init(content: text))
      case .event(let type, let details): job.payload = .event(.init(type: type, details: details))
      case .fileID(let id): job.payload = .fileID(id)
      case .file(let path):
        let result = try await self.uploadFile(path, fileID: nil)
        if !self.options.printsJSON { self.terminal.print(Self.sentence(result)) }
        file = UploadedFile(path, result)
        job.payload = .fileID(result.fileID)
      }
      let answer = try await self.submit(job)
      if order.waits { return try await self.watch(answer.jobID, file: file) }
      let report = PushReport(
        jobID: answer.jobID, targetCount: answer.targetCount, storedCount: answer.storedCount,
        duplicate: answer.duplicate, file: file)
      let isCounted = order.tags.isEmpty || answer.targetCount > 0 || order.isAtLeastOnce
      try self.printResult(report, people: Self.sentence(answer, isCounted: isCounted))
      return true
    }
  }

  /// - Parameter isCounted: false for a job whose clients nobody counts before they have it.
  private static func sentence(_ answer: PushV1.SubmitResponse, isCounted: Bool) -> String {
    guard isCounted else { return "job \(answer.jobID) for who has the tags\(answer.duplicate ? ", as before" : "")" }
    let stored = answer.storedCount == 0 ? "" : ", stored for \(answer.storedCount) of them until they are back"
    return "job \(answer.jobID) for \(answer.targetCount) clients\(stored)\(answer.duplicate ? ", as before" : "")"
  }

  /// The id is chosen here, so that submitting it again at the next gateway is submitting it once.
  private func submit(_ job: PushV1.Job) async throws -> PushV1.SubmitResponse {
    try await gateways.call { channel in
      try await PushV1.JobServiceClient(channel).submit(.init(job: job), options: callOptions)
    }
  }

  /// Prints a job's state; with `watches`, waits for its end and shows its progress meanwhile.
  ///
  /// - Returns: 0 when the job is known; after watching, when every target has ended well.
  public func status(_ job: String, watches: Bool) async -> Int32 {
    await command {
      if watches { return try await self.watch(job, file: nil) }
      let view = try await self.get(job)
      try self.printResult(JobReport(view), people: Self.table(view))
      return true
    }
  }

  /// Ends a job and prints it as it is then: what waits for its clients is taken out, what they have stays.
  ///
  /// - Parameter reason: a sentence that is kept with the job; that of the first cancellation counts.
  /// - Returns: 0 when the job is cancelled, also when it was before.
  public func cancel(_ job: String, reason: String) async -> Int32 {
    await command {
      _ = try await self.gateways.call { channel in
        try await PushV1.JobServiceClient(channel).cancel(
          .init(jobID: job, reason: reason), options: self.callOptions)
      }
      // The answer holds the first rows; this reads all of them.
      let view = try await self.get(job)
      try self.printResult(JobReport(view), people: Self.table(view))
      return true
    }
  }

  private func get(_ job: String) async throws -> JobView {
    try await gateways.call { channel in
      var view = JobView(id: job)
      var token = ""
      repeat {
        let page = try await PushV1.JobServiceClient(channel).get(
          .init(jobID: job, pageToken: token), options: callOptions)
        view.take(page)
        token = page.nextPageToken
      } while !token.isEmpty
      return view
    }
  }

  /// Follows a job to its end, on another gateway when one breaks.
  private func watch(_ job: String, file: UploadedFile?) async throws -> Bool {
    let bars = ProgressBars(terminal)
    let view = try await gateways.call { channel in
      var view = JobView(id: job)
      let updates = try await PushV1.JobServiceClient(channel).watch(.init(jobID: job))
      while !view.hasEnded, let update = try await updates.next() {
        view.take(update)
        show(view, bars)
      }
      // The end may come with the state alone, and rows in further messages.
      while let update = try await updates.next() { view.take(update) }
      guard view.hasEnded else { throw Status(.unavailable, "the gateway ended the watch before the job") }
      show(view, bars)
      return view
    }
    try printResult(JobReport(view, file: file), people: Self.table(view))
    return view.hasSucceeded
  }

  /// A line with the totals, then a bar for each target, as many as there is room for: of more, those that changed last.
  private func show(_ view: JobView, _ bars: ProgressBars) {
    let rows = view.newestRows(ProgressBars.maximumBars)
    let hidden = view.totals.targets - Int64(rows.count)
    bars.show(
      head: [Self.totals(view)],
      rows.map { row in
        let isDone = row.state == .verified || row.state == .acknowledged && !view.isForFile
        return .init(
          label: row.clientID, fraction: isDone ? 1 : Double(row.percent) / 100,
          note: row.state.name.lowercased() + (row.reason.isEmpty ? "" : ": \(row.reason)"))
      }, foot: rows.isEmpty || hidden <= 0 ? [] : ["… and \(hidden) more, which changed earlier"])
  }

  /// `running: 7 of 10 done (70 %), 1 of them failed; written 3, acknowledged 6, failed 1`
  private static func totals(_ view: JobView) -> String {
    let totals = view.totals
    guard totals.targets > 0 else { return "\(view.state.name.lowercased()): \(sums(view))" }
    let failed = totals.failed == 0 ? "" : ", \(totals.failed) of them failed"
    return "\(view.state.name.lowercased()): \(totals.ended) of \(totals.targets) done "
      + "(\(Int(view.fraction * 100)) %)\(failed); \(states(view))"
  }

  private static func states(_ view: JobView) -> String {
    view.counts.map { "\($0.state.name.lowercased()) \($0.count)" }.joined(separator: ", ")
  }

  private static func sums(_ view: JobView) -> String {
    "clients: \(view.counts.isEmpty ? "none so far" : states(view))"
  }

  static func table(_ view: JobView) -> String {
    let rows = view.rows.map { row in
      [
        row.clientID, row.state.name.lowercased(), "\(row.percent) %", row.gateway, readableSize(row.size),
        readableSeconds(row.durationMs), row.md5, row.path.isEmpty ? row.reason : row.path,
      ]
    }
    let head = ["CLIENT", "STATE", "DONE", "GATEWAY", "SIZE", "TIME", "MD5", "PATH"]
    let reason = view.reason.isEmpty ? "" : ": \(printable(view.reason))"
    let title = "job \(printable(view.id)): \(view.state.name.lowercased())\(reason)"
    // A best-effort job for tags or for all has sums only.
    if rows.isEmpty { return "\(title)\n\(sums(view))" }
    let foot = view.counts.isEmpty ? "" : "\n\(totals(view))"
    if view.isForFile { return "\(title)\n\(columns(head, rows))\(foot)" }
    let short = view.rows.map { [$0.clientID, $0.state.name.lowercased(), $0.gateway, $0.reason] }
    return "\(title)\n\(columns(["CLIENT", "STATE", "GATEWAY", "REASON"], short))\(foot)"
  }
}
