internal import GRPC
internal import Reactor

/// The connections of this node to others, by their addresses. Belongs to its loop.
final class NodeChannels {
  /// Nodes to which connections are kept; one that is not used is closed when there are more.
  static let maximum = 256

  private let loop: EventLoop
  private var channels: [String: Channel] = [:]

  init(loop: EventLoop) {
    self.loop = loop
  }

  /// nil for an address that can't be read.
  func channel(to address: String) -> Channel? {
    if let known = channels[address] { return known }
    guard let target = HostPort(address) else { return nil }
    if channels.count >= NodeChannels.maximum {
      channels = channels.filter { $0.value.isConnected }
      if channels.count >= NodeChannels.maximum { channels.popFirst()?.value.close() }
    }
    let channel = Channel(loop: loop, target: target)
    channels[address] = channel
    return channel
  }

  func close() {
    for channel in channels.values { channel.close() }
    channels = [:]
  }
}
