public import Bytes
public import Reactor

/// Channels of Redis's Pub/Sub, on a connection of its own, which is made again and subscribed again when it breaks.
///
/// Redis keeps nothing for a subscriber that is away: what was published meanwhile is lost, and `onStateChange` says
/// that there was such a time. Belongs to its loop.
public final class RedisSubscriber: RedisLinkOwner {
  private let loop: EventLoop
  private let address: RedisAddress
  private let options: RedisClient.Options
  private lazy var link = RedisLink(loop: loop, address: address, options: options, owner: self)
  private var channels: Set<String> = []
  private var pinging: LoopTimer?
  private var hasHeard = true
  /// A message, on the loop.
  public var onMessage: ((_ channel: String, _ payload: Bytes) -> Void)?
  /// Redis has taken the subscription of a channel: what is published from now on comes. On the loop, after every
  /// connection again.
  public var onSubscribed: ((_ channel: String) -> Void)?
  public var onStateChange: ((RedisClient.State) -> Void)?

  /// A connection that is silent for two of these is given up: the first asks with a PING.
  public static let pingInterval: Duration = .seconds(5)

  /// Connects with the first subscription. On the loop.
  public init(loop: EventLoop, address: RedisAddress, options: RedisClient.Options = RedisClient.Options()) {
    loop.assertCurrent()
    self.loop = loop
    self.address = address
    self.options = options
  }

  deinit { close() }

  public func subscribe(_ channel: String) {
    guard channels.insert(channel).inserted else { return }
    link.start()
    write(["SUBSCRIBE", .string(channel)])
  }

  public func unsubscribe(_ channel: String) {
    guard channels.remove(channel) != nil else { return }
    write(["UNSUBSCRIBE", .string(channel)])
  }

  public func close() {
    pinging?.cancel()
    link.close()
  }

  private func write(_ command: [RedisArgument]) {
    guard link.isOpen else { return }
    var output = ByteWriter()
    RedisCommandEncoder.append(command, to: &output)
    link.write(output.finish())
  }

  func linkOpened() {
    if !channels.isEmpty { write(["SUBSCRIBE"] + channels.sorted().map { .string($0) }) }
    hasHeard = true
    ping()
    onStateChange?(.connected)
  }

  func linkReceived(_ value: RedisValue) {
    hasHeard = true
    guard let words = value.asArray, words.count == 3, let channel = words[1].asString else { return }
    switch words[0].asString {
    case "message":
      if let payload = words[2].asBytes { onMessage?(channel, payload) }
    case "subscribe": onSubscribed?(channel)
    default: return
    }
  }

  func linkFailed(_ error: RedisError, wasOpen: Bool) {
    pinging?.cancel()
    if wasOpen { onStateChange?(.disconnected(error)) }
  }

  private func ping() {
    pinging = loop.schedule(after: RedisSubscriber.pingInterval) { [weak self] in
      guard let self else { return }
      guard hasHeard else {
        return link.fail(RedisError(code: .timedOut, message: "a Redis subscription is silent"))
      }
      hasHeard = false
      write(["PING"])
      ping()
    }
  }
}
