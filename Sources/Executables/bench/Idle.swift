import Reactor
import Settings

/// `bench idle`: resident memory of the server per Connect stream that does nothing.
struct Idle {
  private let gateway: HostPort
  private let pid: Int
  private let streams: Int
  private let hold: Duration

  init(_ arguments: [String]) {
    var options = Options("bench idle", about: "Memory of the server per idle Connect stream.", environmentFlags: [])
    let gateway = options.value("gateway", .hostPort, default: "127.0.0.1:7000", help: "The server's address.")
    let pid = options.required("pid", .int(1...Int.max), help: "The server's process.")
    let streams = options.value("streams", .int(1...18_000), default: "5000", help: "How many streams.")
    let hold = options.value("hold", .duration, default: "2s", help: "How long they idle before memory is read.")
    let parsed = options.parseOrExit(arguments)
    self.gateway = parsed[gateway]
    self.pid = parsed[pid]
    self.streams = parsed[streams]
    self.hold = parsed[hold]
  }

  func run(_ loop: EventLoop) async throws {
    // The first streams pay for what is allocated once.
    let first = Fleet(loop: loop, gateway: gateway, count: min(streams, 50))
    try await first.open()
    let before = try ProcessFigures(of: pid)
    let fleet = Fleet(loop: loop, gateway: gateway, count: streams)
    try await fleet.open()
    // Idle is what is measured.
    try await loop.sleep(for: hold)
    let after = try ProcessFigures(of: pid)
    let perStream = Double(after.residentKiB - before.residentKiB) / Double(streams)
    print("\(streams) streams: \(perStream.rounded(to: 1)) KiB resident each")
    print(
      "server: \(before.residentKiB) KiB before, \(after.residentKiB) KiB after; "
        + "opening took \(((after.cpuSeconds - before.cpuSeconds) * 1e6 / Double(streams)).rounded(to: 1)) CPU µs each")
    first.close()
    fleet.close()
  }
}
