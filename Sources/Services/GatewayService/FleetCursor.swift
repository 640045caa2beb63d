internal import Routing

/// How far one session is in the fleet's log, and which of the log's messages its client still has to acknowledge.
///
/// | in                         | what follows                                                                     |
/// |----------------------------|----------------------------------------------------------------------------------|
/// | another log                | begin at the cursor's place in it, or at its beginning                           |
/// | entry of another's         | covered                                                                          |
/// | entry, at or below stated  | covered; the client has acknowledged it                                          |
/// | entry, window full         | stays where it is until the client has acknowledged something                    |
/// | entry                      | written, covered; unacknowledged where the client acknowledges                   |
/// | acknowledged position, ids | what they name is no longer unacknowledged, each is told once                    |
///
/// `covered` is what was judged: written, or not for this client. `done` is what the client's next session need not see: all
/// that is covered below the first message that is unacknowledged. A value without I/O.
struct FleetCursor {
  /// Messages of the log that one client has not acknowledged at most; past that it is given no further ones.
  static let window = 1000

  enum Verdict: Equatable { case write, acknowledged, wait }

  private struct Unacknowledged {
    let seq: Int64
    let job: String
    var isOver = false
  }

  private let stored: FleetPosition
  private let positions: [InboxPosition]
  /// nil before the session has begun with a log; empty when there is none.
  private(set) var logID: String?
  private(set) var covered: Int64 = 0
  /// What the client was given last, which the next message names as the one before it.
  private(set) var written: Int64 = 0
  private var stated: Int64 = 0
  private var unacknowledged: [Unacknowledged] = []
  private var first = 0
  /// What was told to the client's cursor.
  private var told: Int64 = 0

  /// - Parameter stated: where the client says that it stands.
  init(stored: FleetPosition = FleetPosition(), stated: [InboxPosition] = []) {
    self.stored = stored
    positions = stated
  }

  /// The log that the client's cursor names.
  var storedLogID: String { stored.logID }
  /// Up to there rows say whether the client is a member.
  var judged: Int64 { stored.judged }
  var isWindowFull: Bool { unacknowledged.count - first >= FleetCursor.window }

  /// Begins with a log. What the client says of its place counts up to the newest entry: the log may have lost some.
  mutating func begin(_ id: String, newest: Int64) {
    let isFirst = logID == nil
    logID = id
    covered = isFirst && stored.logID == id ? stored.acknowledged : 0
    stated = isFirst ? positions.filter { $0.inboxID == id && $0.seq <= newest }.map(\.seq).max() ?? 0 : 0
    (written, told) = (stated, covered)
    (unacknowledged, first) = ([], 0)
  }

  func verdict(on seq: Int64) -> Verdict { seq <= stated ? .acknowledged : isWindowFull ? .wait : .write }

  mutating func passed(_ seq: Int64) { covered = max(covered, seq) }

  /// A message goes out: says what it is labelled with.
  mutating func wrote(_ seq: Int64, job: String, isAcknowledged: Bool) -> InboxCursor.Label {
    let label = InboxCursor.Label(
      inboxID: logID ?? "", seq: seq, previous: written, redelivered: seq <= stored.written)
    (covered, written) = (seq, seq)
    if !isAcknowledged { unacknowledged.append(Unacknowledged(seq: seq, job: job)) }
    return label
  }

  /// The client has everything up to a place. - Returns: the jobs whose messages it has now.
  mutating func acknowledged(upTo seq: Int64, in id: String) -> [String] {
    guard id == logID else { return [] }
    var jobs: [String] = []
    while first < unacknowledged.count, unacknowledged[first].seq <= seq {
      if !unacknowledged[first].isOver { jobs.append(unacknowledged[first].job) }
      first += 1
    }
    compact()
    return jobs
  }

  /// The client has the messages of these jobs. - Returns: those whose messages it has now.
  mutating func acknowledged(jobs: Set<String>) -> [String] {
    guard !jobs.isEmpty else { return [] }
    var known: [String] = []
    for index in first..<unacknowledged.count
    where !unacknowledged[index].isOver && jobs.contains(unacknowledged[index].job) {
      unacknowledged[index].isOver = true
      known.append(unacknowledged[index].job)
    }
    while first < unacknowledged.count, unacknowledged[first].isOver { first += 1 }
    compact()
    return known
  }

  private mutating func compact() {
    guard first == unacknowledged.count || first >= FleetCursor.window else { return }
    unacknowledged.removeFirst(first)
    first = 0
  }

  /// What the client's next session need not see.
  var done: Int64 { first < unacknowledged.count ? unacknowledged[first].seq - 1 : covered }

  /// What to tell the client's cursor; nil where it knows.
  mutating func settlement(force: Bool = false) -> Int64? {
    guard logID?.isEmpty == false, done > told || force else { return nil }
    told = done
    return told
  }
}
