internal import GRPC
internal import Reactor

/// Connections to other uploaders, for streams of files that they write. Confined to the loop.
final class UploadPeers {
  private let loop: EventLoop
  private var channels: [HostPort: Channel] = [:]

  /// How long connecting may take: a node that takes longer is waited for by its lease.
  private static let connectTimeout = Duration.seconds(1)

  init(loop: EventLoop) { self.loop = loop }

  /// A channel whose connection stands; nil when the node can't be reached.
  func channel(to address: HostPort) async -> Channel? {
    let channel = channels[address] ?? make(address)
    channels[address] = channel
    do {
      try await channel.connect()
      return channel
    } catch {
      if channels[address] === channel { channels[address] = nil }
      channel.close()
      return nil
    }
  }

  private func make(_ address: HostPort) -> Channel {
    var options = ChannelOptions()
    options.connectTimeout = Self.connectTimeout
    return Channel(loop: loop, target: address, options: options)
  }

  func close() {
    for channel in channels.values { channel.close() }
    channels = [:]
  }
}
