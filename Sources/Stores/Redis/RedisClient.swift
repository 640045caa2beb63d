internal import Bytes
public import Reactor

/// Commands to one Redis over one connection, pipelined: all that a turn of the loop sends leaves in one write, answers
/// come in order.
///
/// A broken connection is made again, with back-off and full jitter. What was sent on it fails, and the error says that
/// Redis may have executed it; what comes meanwhile waits for the new connection, until `commandTimeout`. A connection
/// whose oldest command has no answer within `commandTimeout` is given up. Belongs to its loop; nothing here may be used
/// from elsewhere.
public final class RedisClient: RedisLinkOwner, TurnEnding {
  public struct Options: Sendable {
    /// From `send` to the answer.
    public var commandTimeout: Duration = .seconds(2)
    /// TCP, AUTH, SELECT and a PING, together.
    public var connectTimeout: Duration = .seconds(2)
    /// Commands sent or waiting, at most; past that they fail with `.tooManyOutstanding`.
    public var maxOutstandingCommands = 10_000
    /// Bytes that the kernel hasn't taken or that wait for a connection, at most; past that commands fail with
    /// `.tooManyOutstanding`.
    public var maxUnsentBytes = 64 * 1024 * 1024
    /// The delay before attempt n is random, up to base × 2ⁿ and up to the limit.
    public var reconnectBackoffBase: Duration = .milliseconds(50)
    public var reconnectBackoffLimit: Duration = .seconds(2)

    public init() {}
  }

  /// Whether the server answers, as the owner is told.
  public enum State: Equatable, Sendable {
    /// Anything may have happened in Redis since the last connection: leases may have ended, data may be older.
    case connected
    case disconnected(RedisError)
  }

  public typealias Completion = (Result<RedisValue, RedisError>) -> Void

  public let loop: EventLoop
  public let address: RedisAddress
  let options: Options
  private lazy var link = RedisLink(loop: loop, address: address, options: options, owner: self)
  private var outstanding = OutstandingCommands()
  private var output = ByteWriter()
  private var unsent = 0
  private var isTurnEndDue = false
  private var refused: [(then: Completion, error: RedisError)] = []
  private var timer: LoopTimer?
  private var lastFailure: RedisError?
  private var waiting: [ConnectWaiter] = []
  /// Called on the loop when a connection is made or lost; commands sent from inside go first on a new connection, after
  /// what waited for it.
  public var onStateChange: ((State) -> Void)?

  /// Connects when `connect` is called or the first command is sent. On the loop.
  public init(loop: EventLoop, address: RedisAddress, options: Options = Options()) {
    loop.assertCurrent()
    self.loop = loop
    self.address = address
    self.options = options
  }

  deinit { close() }

  public var isConnected: Bool { link.isOpen }

  /// Waits for a connection.
  ///
  /// - Throws: why there was none within `limit`; the client goes on trying.
  public func connect(within limit: Duration = .seconds(5)) async throws(RedisError) {
    guard !link.isClosed else { throw RedisClient.closed }
    link.start()
    guard !link.isOpen else { return }
    let waiter = ConnectWaiter()
    waiting.append(waiter)
    let result: Result<Void, RedisError> = await withUnsafeContinuation { continuation in
      waiter.continuation = continuation
      waiter.timer = loop.schedule(after: limit) { [weak self] in
        guard let self else { return }
        waiting.removeAll { $0 === waiter }
        waiter.end(.failure(lastFailure ?? RedisError(code: .notConnected, message: "no connection to \(address)")))
      }
    }
    try result.get()
  }

  /// Fails what is outstanding and ends the connection.
  public func close() {
    link.close()
    timer?.cancel()
    for waiter in waiting { waiter.end(.failure(RedisClient.closed)) }
    waiting = []
    for command in outstanding.removeAll() {
      command.then(
        .failure(RedisError(code: .closed, message: "the client was closed", mayHaveExecuted: command.isSent)))
    }
  }

  // MARK: Commands

  /// Sends a command; `then` is called on the loop with the answer, never before this returns.
  public func send(_ arguments: [RedisArgument], then: @escaping Completion) {
    loop.assertCurrent()
    guard !link.isClosed else { return refuse(then, RedisClient.closed) }
    link.start()
    guard outstanding.count < options.maxOutstandingCommands, unsent + link.unsentBytes < options.maxUnsentBytes else {
      return refuse(then, tooMany)
    }
    let deadline = EventLoop.deadline(after: options.commandTimeout, from: loop.now)
    if link.isOpen {
      let before = output.count
      RedisCommandEncoder.append(arguments, to: &output)
      unsent += output.count - before
      outstanding.append(OutstandingCommand(then: then, deadline: deadline, held: nil))
      endTurnLater()
    } else {
      var encoded = ByteWriter()
      RedisCommandEncoder.append(arguments, to: &encoded)
      unsent += encoded.count
      outstanding.append(OutstandingCommand(then: then, deadline: deadline, held: encoded.finish()))
    }
    if timer == nil { watch(after: options.commandTimeout) }
  }

  /// Sends a command and returns the answer. - Throws: `RedisError`; an error reply is `.reply`.
  public func send(_ arguments: RedisArgument...) async throws(RedisError) -> RedisValue {
    try await send(arguments)
  }

  /// The same for arguments that are an array.
  public func send(_ arguments: [RedisArgument]) async throws(RedisError) -> RedisValue {
    let result: Result<RedisValue, RedisError> = await withUnsafeContinuation { continuation in
      send(arguments) { continuation.resume(returning: $0) }
    }
    return try result.get()
  }

  /// Sends several commands in one write and returns their answers in order; an error reply is a `.error` among them.
  ///
  /// - Throws: the first error other than a reply; commands before and after it may have been executed.
  public func pipeline(_ commands: [[RedisArgument]]) async throws(RedisError) -> [RedisValue] {
    guard !commands.isEmpty else { return [] }
    let answers = PipelineAnswers(missing: commands.count)
    return try await withUnsafeContinuation { continuation in
      answers.continuation = continuation
      for command in commands { send(command) { answers.add($0) } }
    }.get()
  }

  // MARK: The turn

  private func endTurnLater() {
    guard !isTurnEndDue else { return }
    isTurnEndDue = true
    loop.atEndOfTurn(self)
  }

  public func turnEnded() {
    isTurnEndDue = false
    let refused = self.refused
    self.refused = []
    flush()
    for (then, error) in refused { then(.failure(error)) }
  }

  private func flush() {
    guard link.isOpen, output.count > 0 else { return }
    // Taken out before the write: it may fail, and call back, inside.
    let bytes = takeOutput()
    outstanding.markAllSent()
    link.write(bytes)
  }

  private func takeOutput() -> Bytes {
    var full = ByteWriter(capacity: RedisClient.outputCapacity)
    swap(&full, &output)
    unsent = 0
    return full.finish()
  }

  private static let outputCapacity = 4096

  // MARK: The link

  func linkOpened() {
    lastFailure = nil
    // Sent at once: a command that is still held may time out, one whose bytes are on their way may not.
    outstanding.forEachHeld { output.append($0) }
    flush()
    for waiter in waiting { waiter.end(.success(())) }
    waiting = []
    onStateChange?(.connected)
  }

  func linkReceived(_ value: RedisValue) {
    guard let command = outstanding.popFirstSent() else {
      return link.fail(RedisError(code: .protocolViolation, message: "Redis answered what nobody asked"))
    }
    if case .error(let text) = value {
      command.then(.failure(RedisError(code: .reply, message: text)))
    } else {
      command.then(.success(value))
    }
  }

  func linkFailed(_ error: RedisError, wasOpen: Bool) {
    lastFailure = error
    guard wasOpen else { return }
    let lost = outstanding.removeAll()
    _ = takeOutput()
    onStateChange?(.disconnected(error))
    for command in lost {
      command.then(.failure(RedisError(code: .connectionLost, message: error.message, mayHaveExecuted: command.isSent)))
    }
  }

  // MARK: Time

  /// One timer for all: the commands have one time-out, so the first is always the one that ends first.
  private func watch(after delay: Duration) {
    timer = loop.schedule(after: delay) { [weak self] in
      guard let self else { return }
      timer = nil
      expire()
      guard timer == nil, let deadline = outstanding.first?.deadline else { return }
      watch(after: .nanoseconds(deadline &- EventLoop.monotonicNanoseconds()))
    }
  }

  private func expire() {
    let now = EventLoop.monotonicNanoseconds()
    while let first = outstanding.first, first.deadline <= now {
      _ = outstanding.popFirst()
      if let held = first.held, !first.isSent {
        unsent -= held.count
        let reason = lastFailure?.message ?? "no connection to Redis at \(address) yet"
        first.then(.failure(RedisError(code: .notConnected, message: reason)))
      } else {
        let sentence = "no answer of Redis at \(address) within \(options.commandTimeout)"
        link.fail(RedisError(code: .timedOut, message: sentence))
        first.then(.failure(RedisError(code: .timedOut, message: sentence, mayHaveExecuted: first.isSent)))
      }
    }
  }

  private func refuse(_ then: @escaping Completion, _ error: RedisError) {
    refused.append((then, error))
    endTurnLater()
  }

  private var tooMany: RedisError {
    RedisError(
      code: .tooManyOutstanding,
      message: "\(outstanding.count) commands and \(unsent + link.unsentBytes) bytes wait for Redis at \(address)")
  }

  private static let closed = RedisError(code: .closed, message: "the client was closed")
}
