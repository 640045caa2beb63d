public import Bytes
internal import Redis

/// What happened to a client that someone watches.
public enum PresenceChange: String, Equatable, Sendable {
  case online
  case offline
  /// It was online and has begun another session.
  case replaced
}

/// The clients of one watcher: what was told of each, and what is to be told next.
///
/// | in                             | told before: nothing | online, same session | online, older session | offline |
/// |--------------------------------|----------------------|----------------------|-----------------------|---------|
/// | a newer record, held           | online               |                      | replaced              | online  |
/// | a newer record, not held       | offline              | offline              | offline               |         |
/// | an older record                |                      |                      |                       |         |
/// | its node's lease ended         |                      | offline              | offline               |         |
/// | its record is gone             |                      | offline              | offline               | forget  |
///
/// Records of a client are ordered: by the session's epoch; in one session the end is the last; before it by the epoch of
/// the node that vouches. So it doesn't matter whether a list or a message comes first. A value without I/O.
public struct PresenceTable {
  private struct Entry {
    var record: ClientRecord
    /// As it was told.
    var isOnline: Bool
    /// The reading of the list in which it was seen last.
    var reading: Int
  }

  private var entries: [String: Entry] = [:]
  private var reading = 0

  public init() {}

  public var count: Int { entries.count }

  /// The clients of a node, whose lease has changed: `settle` each of them.
  public func clients(of node: String) -> [String] {
    entries.lazy.filter { $0.value.record.node == node }.map(\.key)
  }

  public func record(of client: String) -> ClientRecord? { entries[client]?.record }

  /// A record, from a message or from the list.
  ///
  /// - Parameter isHeld: the node that it names lives, in the epoch in which it vouched.
  public mutating func saw(_ record: ClientRecord, isHeld: Bool) -> PresenceChange? {
    guard var entry = entries[record.id] else {
      entries[record.id] = Entry(record: record, isOnline: isHeld, reading: reading)
      return isHeld ? .online : .offline
    }
    let before = entry
    entry.reading = reading
    let isNewer = !(record.order < before.record.order)
    if isNewer {
      entry.record = record
      entry.isOnline = isHeld
    }
    entries[record.id] = entry
    guard isNewer else { return nil }
    switch (before.isOnline, isHeld) {
    case (true, true): return record.epoch > before.record.epoch ? .replaced : nil
    case (false, true): return .online
    case (true, false): return .offline
    case (false, false): return nil
    }
  }

  /// Looks again at a client whose node's lease has changed.
  public mutating func settle(_ client: String, isHeld: (ClientRecord) -> Bool) -> PresenceChange? {
    guard let entry = entries[client] else { return nil }
    let isOnline = isHeld(entry.record)
    guard isOnline != entry.isOnline else { return nil }
    entries[client]?.isOnline = isOnline
    return isOnline ? .online : .offline
  }

  /// The whole list is about to be read.
  public mutating func beginReading() { reading += 1 }

  /// The whole list was read: what was seen neither there nor in a message since has no record any more.
  ///
  /// - Returns: the records of those who were online.
  public mutating func endReading() -> [ClientRecord] {
    let gone = entries.filter { $0.value.reading < reading }
    for client in gone.keys { entries[client] = nil }
    return gone.values.filter(\.isOnline).map(\.record)
  }

  /// Forgets a client that isn't watched any more.
  public mutating func forget(_ client: String) { entries[client] = nil }
}

extension ClientRecord {
  /// Of two records of a client the newer one has the greater order.
  fileprivate var order: (Int64, Int64) { (epoch, node.isEmpty ? .max : nodeEpoch) }
}

/// The nodes whose leases live, by what was read and by what was heard since. A value without I/O.
public struct LivingNodes {
  private struct Node {
    var epoch: Int64
    /// When it was last known to live, monotonic ns.
    var knownAt: Int64
  }

  private var nodes: [String: Node] = [:]

  public init() {}

  /// Whether the node that the record names lives, in the epoch in which it vouched.
  public func hold(_ record: ClientRecord) -> Bool {
    !record.node.isEmpty && nodes[record.node]?.epoch == record.nodeEpoch
  }

  /// A node has vouched for a client just now: so it lives.
  ///
  /// - Returns: whether that is news.
  public mutating func vouched(_ node: String, epoch: Int64, now: Int64) -> Bool {
    guard (nodes[node]?.epoch ?? 0) <= epoch else { return false }
    defer { nodes[node] = Node(epoch: epoch, knownAt: now) }
    return nodes[node]?.epoch != epoch
  }

  /// The registry's list of nodes.
  ///
  /// - Parameter askedAt: when it was asked for, monotonic ns; what is known since counts more.
  /// - Returns: the nodes that have changed.
  public mutating func read(_ epochs: [String: Int64], askedAt: Int64) -> [String] {
    var changed: [String] = []
    for (name, node) in nodes where epochs[name] == nil && node.knownAt < askedAt {
      nodes[name] = nil
      changed.append(name)
    }
    for (name, epoch) in epochs where (nodes[name]?.knownAt ?? .min) < askedAt {
      if nodes[name]?.epoch != epoch { changed.append(name) }
      nodes[name] = Node(epoch: epoch, knownAt: askedAt)
    }
    return changed
  }
}

extension Registry {
  /// Reads a message of the presence channel: the record of a client as it is since then.
  ///
  /// - Returns: nil when the message is none of ours.
  public static func record(told message: Bytes) -> ClientRecord? {
    var rest = message
    var parts: [Bytes] = []
    while !rest.isEmpty {
      guard let part = netstring(&rest) else { return nil }
      parts.append(part)
    }
    guard parts.count % 2 == 1, let id = parts[0].string, Name.isValid(id) else { return nil }
    let fields = stride(from: 1, to: parts.count, by: 2).map { index in
      (name: parts[index].string ?? "", value: RedisValue.bulk(parts[index + 1]))
    }
    return ClientRecord(id: id, fields)
  }

  /// `LENGTH:BYTES` at the beginning, which is taken off.
  private static func netstring(_ rest: inout Bytes) -> Bytes? {
    var length = 0
    var index = 0
    while index < rest.count, rest[index] != UInt8(ascii: ":") {
      let digit = Int(rest[index]) - Int(UInt8(ascii: "0"))
      guard (0...9).contains(digit), index < 9 else { return nil }
      length = length * 10 + digit
      index += 1
    }
    guard index > 0, rest.count - index > length else { return nil }
    let part = rest[index + 1..<index + 1 + length]
    rest = rest.dropFirst(index + 1 + length)
    return part
  }
}
