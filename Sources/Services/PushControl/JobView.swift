internal import Schema

/// A job as far as it is known: its rows by client, put together from pages and changes.
struct JobView {
  let id: String
  private(set) var state = PushV1.JobStatus.State.unspecified
  private(set) var counts: [PushV1.StateCount] = []
  private(set) var submittedAt: Int64 = 0
  private(set) var updatedAt: Int64 = 0
  private(set) var reason = ""
  private(set) var isForFile = false
  private var byClient: [String: PushV1.JobTarget] = [:]

  init(id: String) { self.id = id }

  /// How many targets there are, how many have ended, and how many of these badly; of rows where there are some.
  var totals: (targets: Int64, ended: Int64, failed: Int64) {
    var totals: (targets: Int64, ended: Int64, failed: Int64) = (0, 0, 0)
    for count in counts {
      totals.targets += count.count
      switch count.state {
      case .verified: totals.ended += count.count
      case .acknowledged: totals.ended += isForFile ? 0 : count.count
      case .failed, .expired:
        totals.ended += count.count
        totals.failed += count.count
      case .written: totals.ended += hasRows ? 0 : count.count
      default: break
      }
    }
    return totals
  }

  /// Whether the job has a row for each target; a best-effort message to all has counts only.
  private(set) var hasRows = true

  /// So many rows, those that changed last; in the order of the clients' ids.
  func newestRows(_ limit: Int) -> [PushV1.JobTarget] {
    guard byClient.count > limit else { return rows }
    return byClient.values.sorted { ($0.updatedAtMs, $1.clientID) > ($1.updatedAtMs, $0.clientID) }.prefix(limit)
      .sorted { $0.clientID < $1.clientID }
  }

  /// How far all targets are together, 0 … 1; a download counts as far as it is.
  var fraction: Double {
    let totals = totals
    guard totals.targets > 0 else { return hasEnded ? 1 : 0 }
    var done = Double(totals.ended)
    for row in byClient.values where row.state == .downloading { done += Double(row.percent) / 100 }
    return min(1, done / Double(totals.targets))
  }

  /// In the order of the clients' ids.
  var rows: [PushV1.JobTarget] { byClient.values.sorted { $0.clientID < $1.clientID } }

  var hasEnded: Bool {
    switch state {
    case .succeeded, .failed, .cancelled: true
    case .unspecified, .running, .unrecognized: false
    }
  }

  var hasSucceeded: Bool { state == .succeeded }

  mutating func take(_ status: PushV1.JobStatus) {
    state = status.state
    counts = status.counts
    submittedAt = status.submittedAtMs
    updatedAt = status.updatedAtMs
    reason = status.reason
    if case .fileID? = status.job?.payload { isForFile = true }
    if let job = status.job { hasRows = job.targets?.all != true || job.qos != .atMostOnce || isForFile }
    if status.complete { byClient = [:] }
    for row in status.targets { byClient[row.clientID] = row }
  }
}
