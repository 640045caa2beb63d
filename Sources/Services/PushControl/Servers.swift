internal import GRPC
internal import Reactor

/// Servers of one kind: the first one that can be reached is used, and the next one when it breaks. Belongs to its loop.
final class Servers {
  /// How long one server may take to be reached when there are others.
  static let connectTimeout = Duration.seconds(3)

  private let loop: EventLoop
  private let kind: String
  private let addresses: [HostPort]
  private let options: ControlOptions
  private var current: Channel?
  private var next = 0

  /// - Parameter kind: for messages: "gateway", "uploader".
  init(_ kind: String, _ addresses: [HostPort], loop: EventLoop, options: ControlOptions) {
    self.loop = loop
    self.kind = kind
    self.addresses = addresses
    self.options = options
  }

  /// A channel to the first server that can be reached, starting behind the one that was left.
  ///
  /// - Throws: `ControlError` when there is none.
  func reachable() async throws -> Channel {
    if let current { return current }
    var reasons: [String] = []
    for _ in addresses {
      let address = addresses[next % addresses.count]
      next += 1
      var channelOptions = ChannelOptions()
      channelOptions.connectTimeout = Self.connectTimeout
      let channel = Channel(loop: loop, target: address, options: channelOptions)
      do {
        try await channel.connect()
        current = channel
        return channel
      } catch {
        channel.close()
        reasons.append(Status(error).message)
      }
    }
    throw ControlError(.unreachable, "no \(kind) can be reached: \(reasons.joined(separator: "; "))")
  }

  /// Leaves the server that is used now.
  func leave() {
    current?.close()
    current = nil
  }

  /// Makes a call that may be repeated; when it breaks it is made again at the next server, a few times.
  func call<T>(_ body: (Channel) async throws -> T) async throws -> T {
    var attempt = 1
    while true {
      do {
        return try await body(try await reachable())
      } catch {
        guard attempt < options.attempts, Self.mayPass(error) else { throw error }
        leave()
      }
      attempt += 1
      try await loop.sleep(for: options.pause)
    }
  }

  /// Whether another server, or the same one later, may answer differently.
  static func mayPass(_ error: any Error) -> Bool {
    guard let status = error as? Status else { return false }
    return status.code == .unavailable || status.code == .aborted
  }
}
