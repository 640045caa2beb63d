internal import CLinux
internal import Glibc

/// A listening TCP socket on a loop; gives every accepted connection away. Belongs to its loop.
public final class Listener: ReadinessHandler {
  private let loop: EventLoop
  private let descriptor: Int32
  private var registration: Registration?
  private var retry: LoopTimer?
  private let accepted: (_ descriptor: Int32, _ peer: SocketAddress) -> Void
  /// Where it listens; the port is the real one when 0 was asked for.
  public let address: SocketAddress

  /// Connections that wait for `accept` in the kernel.
  public static let backlog: Int32 = 4096
  /// Connections accepted in one turn, so that a storm of them leaves room for those that are there.
  static let acceptsPerTurn = 256
  /// How long to wait when descriptors or memory are exhausted before accepting again.
  static let pauseWhenExhausted = Duration.milliseconds(100)

  /// Binds and listens. The address is one that was resolved before.
  ///
  /// - Parameter accepted: owns the descriptor that it gets. Called on the loop.
  public init(
    loop: EventLoop, address: SocketAddress,
    accepted: @escaping (_ descriptor: Int32, _ peer: SocketAddress) -> Void
  ) throws(IOError) {
    loop.assertCurrent()
    self.loop = loop
    self.accepted = accepted
    descriptor = try Sockets.make(address.family)
    do throws(IOError) {
      try Sockets.setOption(descriptor, SOL_SOCKET, SO_REUSEADDR, 1)
      let descriptor = self.descriptor
      try system("bind \(address)") { address.withPointer { bind(descriptor, $0, $1) } }
      try system("listen") { listen(descriptor, Listener.backlog) }
      self.address = try Sockets.localAddress(descriptor)
      registration = try loop.register(descriptor, .read, self)
    } catch {
      Sockets.close(descriptor)
      throw error
    }
  }

  deinit { close() }

  /// Closes an accepted connection that nobody has taken over.
  public static func refuse(_ descriptor: Int32) { Sockets.close(descriptor) }

  /// Stops accepting; what was accepted goes on.
  public func close() {
    retry?.cancel()
    guard let registration else { return }
    registration.cancel()
    self.registration = nil
    Sockets.close(descriptor)
  }

  public func ready(_ events: Interest) {
    for _ in 0..<Listener.acceptsPerTurn {
      var connection: Int32 = -1
      let peer: SocketAddress
      do throws(IOError) {
        peer = try SocketAddress { address, length throws(IOError) in
          connection = try system("accept4") {
            accept4(descriptor, address, length, Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue))
          }
        }
      } catch {
        if [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(error.code) { pause() }
        // EAGAIN: no more. Anything else is the error of one connection that is gone already.
        if error.code == ECONNABORTED { continue }
        return
      }
      Sockets.disableNagle(connection)
      accepted(connection, peer)
    }
  }

  /// Level-triggered epoll would report the waiting connection again and again while it can't be taken.
  private func pause() {
    registration?.update([])
    retry = loop.schedule(after: Listener.pauseWhenExhausted) { [weak self] in self?.registration?.update(.read) }
  }
}
