internal import Bytes
internal import Glibc
internal import Reactor

/// What a `RedisLink` tells the client or the subscriber that owns it, on the loop.
protocol RedisLinkOwner: AnyObject {
  /// Connected, authenticated, answered a PING.
  func linkOpened()
  func linkReceived(_ value: RedisValue)
  /// An open link broke, or an attempt failed (`wasOpen` false). The next attempt comes by itself.
  func linkFailed(_ error: RedisError, wasOpen: Bool)
}

/// One connection at a time to one server, made again whenever it breaks.
///
/// States: idle → connecting → greeting (AUTH, SELECT, PING are under way) → open → backing off → connecting …;
/// closed from any. An attempt's number tells a late result of an older one apart.
final class RedisLink: ByteStreamHandler {
  private enum State {
    case idle
    case connecting
    case greeting(missing: Int)
    case open
    case backingOff
    case closed
  }

  private let loop: EventLoop
  private let address: RedisAddress
  private let options: RedisClient.Options
  private unowned let owner: any RedisLinkOwner
  private var state = State.idle
  private var attempt = 0
  private var failures = 0
  private var stream: ByteStream?
  private var reader: RedisReplyReader?
  private var timer: LoopTimer?

  init(loop: EventLoop, address: RedisAddress, options: RedisClient.Options, owner: any RedisLinkOwner) {
    self.loop = loop
    self.address = address
    self.options = options
    self.owner = owner
  }

  var isOpen: Bool { if case .open = state { true } else { false } }
  var isClosed: Bool { if case .closed = state { true } else { false } }
  var unsentBytes: Int { stream?.pendingBytes ?? 0 }

  func start() {
    guard case .idle = state else { return }
    connect()
  }

  /// Writes at once what one turn produced. Only while open.
  func write(_ bytes: Bytes) {
    stream?.write(bytes)
    stream?.flush()
  }

  /// Gives the connection up, and makes another.
  func fail(_ error: RedisError) {
    guard !isClosed else { return }
    let wasOpen = isOpen
    drop()
    state = .backingOff
    // Full jitter: the clients of a server that comes back don't come all at once.
    let ceiling = min(options.reconnectBackoffLimit, options.reconnectBackoffBase * (1 << min(failures, 16)))
    failures += 1
    let delay = Duration.nanoseconds(Int64.random(in: 0...max(1, ceiling.nanoseconds)))
    timer = loop.schedule(after: delay) { [weak self] in self?.connect() }
    owner.linkFailed(error, wasOpen: wasOpen)
  }

  func close() {
    drop()
    state = .closed
  }

  private func drop() {
    attempt += 1
    timer?.cancel()
    timer = nil
    stream?.close()
    stream = nil
    reader = nil
  }

  private func connect() {
    guard !isClosed else { return }
    state = .connecting
    attempt += 1
    let number = attempt
    // Until the link is open: name resolution, TCP and the greeting together.
    timer = loop.schedule(after: options.connectTimeout) { [weak self] in
      guard let self, attempt == number else { return }
      fail(lost("no connection to Redis at \(address) within \(options.connectTimeout)"))
    }
    loop.spawn { [weak self, loop, address, options] in
      do {
        let descriptor = try await loop.connect(to: address.endpoint, timeout: options.connectTimeout)
        guard let self, attempt == number else {
          _ = Glibc.close(descriptor)
          return
        }
        let stream = try ByteStream(loop: loop, descriptor: descriptor, handler: self)
        self.stream = stream
        try greet(stream)
      } catch {
        guard let self, attempt == number else { return }
        fail(lost("can't connect to Redis at \(address): \(error)"))
      }
    }
  }

  private func greet(_ stream: ByteStream) throws(RedisError) {
    reader = try RedisReplyReader()
    var greeting: [[RedisArgument]] = []
    if let password = address.password {
      greeting.append(["AUTH"] + (address.user.map { [.string($0)] } ?? []) + [.string(password)])
    }
    if address.database != 0 { greeting.append(["SELECT", RedisArgument(address.database)]) }
    // A server that loads its data accepts connections and refuses commands: only an answer says that it serves.
    greeting.append(["PING"])
    var output = ByteWriter()
    for command in greeting { RedisCommandEncoder.append(command, to: &output) }
    state = .greeting(missing: greeting.count)
    stream.write(output.finish())
  }

  func streamReceived(_ bytes: UnsafeRawBufferPointer) {
    guard let reader else { return }
    do throws(RedisError) {
      try reader.feed(bytes)
      // The owner may close or fail the link for any value.
      while self.reader === reader, let value = try reader.next() { receive(value) }
    } catch {
      fail(error)
    }
  }

  private func receive(_ value: RedisValue) {
    guard case .greeting(let missing) = state else { return owner.linkReceived(value) }
    if case .error(let text) = value {
      return fail(RedisError(code: .notConnected, message: "Redis at \(address) refuses: \(text)"))
    }
    guard missing == 1 else {
      state = .greeting(missing: missing - 1)
      return
    }
    timer?.cancel()
    timer = nil
    failures = 0
    state = .open
    owner.linkOpened()
  }

  func streamDrained() {}

  func streamClosed(_ error: IOError?) {
    let reason = error.map { "\($0)" } ?? "closed by the server"
    fail(lost("the connection to Redis at \(address) broke: \(reason)"))
  }

  private func lost(_ sentence: String) -> RedisError { RedisError(code: .connectionLost, message: sentence) }
}
