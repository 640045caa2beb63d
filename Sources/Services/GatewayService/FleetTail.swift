internal import Bytes
internal import GRPC
internal import Reactor
internal import Routing
internal import Schema

/// One message of the fleet's log, with what it looks like on streams.
final class FleetEntry {
  /// Encodings that are kept: streams that were given the same message before share one.
  static let maximumEncodings = 4

  let seq: Int64
  let record: PushRecord
  let tags: [String: String]
  /// Nothing more of its job is to be delivered.
  var isWithdrawn = false
  private var encodings: [(label: InboxCursor.Label, message: EncodedMessage)] = []

  init(seq: Int64, record: PushRecord) {
    self.seq = seq
    self.record = record
    if case .all(let tags) = record.target { self.tags = tags } else { tags = [:] }
  }

  func isExpired(at now: Int64) -> Bool { record.expiresAt > 0 && record.expiresAt <= now }

  func encoded(_ label: InboxCursor.Label) -> EncodedMessage {
    for known in encodings where known.label == label { return known.message }
    let message = InboxDelivery.labelled(record.message, label, source: FleetLog.source)
    if encodings.count == FleetEntry.maximumEncodings { encodings.removeFirst() }
    encodings.append((label, message))
    return message
  }
}

/// The newest part of the fleet's log, in memory, within limits: all entries above `floor`.
///
/// What is below is read from Redis by the session that needs it. Belongs to the node's loop.
final class FleetTail {
  private let maximumEntries: Int
  private let maximumBytes: Int
  /// Empty while there is no log.
  private(set) var logID = ""
  /// Everything above `floor` is here up to there.
  private(set) var head: Int64 = 0
  /// The newest seq that is known of; above `head` while the log is read anew.
  private(set) var newest: Int64 = 0
  private(set) var floor: Int64 = 0
  /// How many entries were taken out of the log, as far as is known.
  var withdrawn: Int64 = 0
  private var entries: [FleetEntry] = []
  /// Entries before this one are gone.
  private var first = 0
  private(set) var bytes = 0

  init(maximumEntries: Int, maximumBytes: Int) {
    self.maximumEntries = maximumEntries
    self.maximumBytes = maximumBytes
  }

  var count: Int { entries.count - first }

  /// Forgets everything, and begins after a place.
  func reset(_ id: String, after floor: Int64, newest: Int64, withdrawn: Int64) {
    self.newest = id == logID ? max(self.newest, newest) : newest
    logID = id
    (head, self.floor) = (floor, floor)
    self.withdrawn = withdrawn
    (entries, first, bytes) = ([], 0, 0)
  }

  /// Takes in an entry above `head`.
  func append(_ seq: Int64, _ record: PushRecord) {
    guard seq > head else { return }
    advance(to: seq)
    entries.append(FleetEntry(seq: seq, record: record))
    bytes += record.message.count
    while first < entries.count, bytes > maximumBytes || count > maximumEntries {
      bytes -= entries[first].record.message.count
      floor = entries[first].seq
      first += 1
    }
    if first > 1024, first > entries.count / 2 {
      entries.removeFirst(first)
      first = 0
    }
  }

  /// Everything up to there is known.
  func advance(to seq: Int64) {
    head = max(head, seq)
    newest = max(newest, head)
  }

  /// The entries above a place, in order.
  func entries(after seq: Int64) -> ArraySlice<FleetEntry> {
    // Nearly always the newest few.
    var low = first
    var high = entries.count
    if let last = entries.last, last.seq <= seq { return [] }
    while low < high {
      let middle = (low + high) / 2
      if entries[middle].seq <= seq { low = middle + 1 } else { high = middle }
    }
    return entries[low...]
  }

  /// Nothing more of a job is to be delivered.
  func withdraw(_ job: String) {
    for entry in entries[first...] where entry.record.jobID == job && !entry.isWithdrawn {
      entry.isWithdrawn = true
      withdrawn += 1
    }
  }
}
