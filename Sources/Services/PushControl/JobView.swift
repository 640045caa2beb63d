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
    if status.complete { byClient = [:] }
    for row in status.targets { byClient[row.clientID] = row }
  }
}
