internal import GRPC
public import Reactor
internal import Schema
internal import Telemetry

extension Control {
  /// Prints the clients as they are, then a line for each that comes, goes or is replaced; ends with its process, or when
  /// no gateway can be reached.
  ///
  /// When a gateway breaks the watch goes on at the next one, and what has changed meanwhile is printed then.
  ///
  /// - Parameter onlineOnly: leaves those who are away out of the first table.
  public func watchClients(ids: [String], tags: [String: String], onlineOnly: Bool) async -> Int32 {
    await command {
      let request = PushV1.WatchClientsRequest(clientIDs: ids, tags: tags)
      var view = PresenceView(onlineOnly: onlineOnly, printsJSON: self.options.printsJSON, print: self.terminal.print)
      while true {
        // Each watch that had told everything begins the count of attempts anew.
        try await self.gateways.call { channel in
          let events = try await PushV1.DirectoryServiceClient(channel).watchClients(request)
          view.begin()
          while true {
            do {
              guard let event = try await events.next() else {
                throw Status(.unavailable, "the gateway ended the watch")
              }
              try view.take(event)
            } catch let error where view.isComplete && Self.mayGoOn(error) {
              return
            }
          }
        }
        self.gateways.leave()
        try await self.loop.sleep(for: self.options.pause)
      }
    }
  }

  /// One that was told that it reads too slowly begins again, too.
  private static func mayGoOn(_ error: any Error) -> Bool {
    Servers.mayPass(error) || (error as? Status)?.code == .resourceExhausted
  }

  /// Drains a gateway and shows how far it is.
  ///
  /// - Returns: 0 when it is drained, also when its deadline came first.
  public func drain(_ node: String, rate: Rate?, within limit: Duration?) async -> Int32 {
    await command {
      let request = PushV1.DrainRequest(
        nodeID: node, clientsPerSecond: rate?.perSecond ?? 0,
        deadlineMs: limit.map { max(1, $0.wholeMilliseconds) } ?? 0)
      let bars = ProgressBars(self.terminal)
      let last = try await self.gateways.call { channel in
        var last = PushV1.DrainProgress()
        let progress = try await PushV1.NodeServiceClient(channel).drain(request)
        while let next = try await progress.next() {
          last = next
          bars.show(lines: ["\(node): \(next.clientsTold) clients told to go, \(next.clientsLeft) left"])
        }
        return last
      }
      let report = DrainReport(
        nodeID: node, told: last.clientsTold, left: last.clientsLeft, milliseconds: last.elapsedMs,
        deadlinePassed: last.deadlinePassed)
      let left = last.deadlinePassed ? ", \(last.clientsLeft) more at once at the deadline" : ""
      try self.printResult(
        report,
        people: "\(printable(node)) is drained: \(last.clientsTold) clients told to go in "
          + "\(readableSeconds(last.elapsedMs))\(left)")
      return true
    }
  }
}

/// What was printed of the clients that are watched, so that each change is printed once, at whichever gateway it is seen.
struct PresenceView {
  private struct Seen {
    var isOnline: Bool
    var epoch: Int64
  }

  private let onlineOnly: Bool
  private let printsJSON: Bool
  private let print: (String) -> Void
  private var seen: [String: Seen] = [:]
  private var table: [PushV1.ClientInfo] = []
  private var listed: Set<String> = []
  private var hasPrintedTable = false
  /// The watch under way has told the state of every client.
  private(set) var isComplete = false

  init(onlineOnly: Bool, printsJSON: Bool, print: @escaping (String) -> Void) {
    self.onlineOnly = onlineOnly
    self.printsJSON = printsJSON
    self.print = print
  }

  /// A watch begins, at a gateway that knows nothing of the ones before.
  mutating func begin() {
    isComplete = false
    table = []
    listed = []
  }

  mutating func take(_ event: PushV1.ClientEvent) throws {
    if event.snapshotEnd { return try complete(at: event.atMs) }
    guard let client = event.client, let what = event.event else { return }
    let before = seen[client.clientID]
    // A gateway that reads an older state than was printed already has the newer one to come.
    guard client.sessionEpoch >= before?.epoch ?? 0 else { return }
    seen[client.clientID] = Seen(isOnline: client.online, epoch: client.sessionEpoch)
    if event.snapshot { listed.insert(client.clientID) }
    if !hasPrintedTable, event.snapshot, !printsJSON {
      if client.online || !onlineOnly { table.append(client) }
      return
    }
    guard let change = Self.change(before, client, what.type, isSnapshot: event.snapshot) else { return }
    if event.snapshot, !hasPrintedTable, onlineOnly, !client.online { return }
    try show(change, what.details, client, at: event.atMs, isSnapshot: event.snapshot && !hasPrintedTable)
  }

  /// A second snapshot tells what has changed since the first.
  private static func change(
    _ before: Seen?, _ client: PushV1.ClientInfo, _ type: String, isSnapshot: Bool
  ) -> String? {
    guard let before else { return type }
    switch (before.isOnline, client.online) {
    case (true, true): return client.sessionEpoch > before.epoch ? "replaced" : nil
    case (false, true): return "online"
    case (true, false): return "offline"
    case (false, false): return nil
    }
  }

  private mutating func complete(at time: Int64) throws {
    isComplete = true
    if !hasPrintedTable, !printsJSON { print(Control.table(table)) }
    // Of those whose records are gone the gateway that is asked next knows nothing.
    for (id, before) in seen where hasPrintedTable && !listed.contains(id) {
      seen[id] = nil
      guard before.isOnline else { continue }
      try show("offline", "its record is gone", PushV1.ClientInfo(clientID: id), at: time, isSnapshot: false)
    }
    hasPrintedTable = true
    table = []
  }

  private func show(
    _ change: String, _ details: String, _ client: PushV1.ClientInfo, at: Int64, isSnapshot: Bool
  ) throws {
    if printsJSON {
      let report = PresenceReport(event: change, details: details, client: .init(client), at: at, snapshot: isSnapshot)
      return print(try jsonLine(report))
    }
    let name = change.padded(to: 8)
    print(
      "\(WallTime(milliseconds: at).clock)  \(name)  \(printable(client.clientID))\(details.isEmpty ? "" : "  \(printable(details))")"
    )
  }
}

extension String {
  fileprivate func padded(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
}
