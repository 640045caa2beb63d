internal import Bytes
internal import CNghttp2
public import Reactor

/// What a connection tells its owner, on the loop.
public protocol Http2ConnectionHandler: AnyObject {
  /// The peer opened a stream with this header block (servers only). Returns the stream's handler, which the stream
  /// keeps; nil when the stream was answered or reset already, and what still comes is dropped.
  func connection(
    _ connection: Http2Connection, opened stream: Http2Stream, _ headers: HeaderList
  ) -> (any Http2StreamHandler)?
  /// The peer's SETTINGS arrived for the first time: the connection works.
  func connectionReady(_ connection: Http2Connection)
  /// The peer takes no more new streams.
  func connectionGoingAway(_ connection: Http2Connection)
  /// The last of the connection's streams has ended.
  func connectionStreamsEnded(_ connection: Http2Connection)
  /// The connection is over; every stream was closed before. Called once.
  func connectionClosed(_ connection: Http2Connection, _ error: Http2Error?)
}

/// One HTTP/2 connection: an nghttp2 session over a socket. Belongs to its loop.
///
/// Bytes go in as they arrive. Output waits for the end of the turn and then leaves as a whole: nghttp2's frames are
/// joined in the loop's scratch buffer and sent with one call; large pieces of data go by reference beside them. Nothing
/// is ever sent from inside a callback of nghttp2, which forbids it.
public final class Http2Connection: ByteStreamHandler, TurnEnding {
  public enum Role: Sendable { case client, server }

  public let role: Role
  public let loop: EventLoop
  public let options: Http2Options
  // Not weak, for the cost of a side table at every retain; the owner calls `disown` before it goes.
  unowned(unsafe) var handler: (any Http2ConnectionHandler)?
  var session: OpaquePointer?
  var streams: [Int32: Http2Stream] = [:]
  private var socket: ByteStream?
  private var isOutputDue = false
  /// Calls into nghttp2 that are under way; the session may not be freed before they return.
  var depth = 0
  private var failure: Http2Error?
  private var isEnding = false

  // Direct writes (Http2Direct.swift).
  var account = DirectAccount()
  /// nghttp2 was asked for output until it had no more, and nothing was given to it since.
  var isIdle = false
  var isSettling = false
  /// The one stream that was written to in this turn while the session was idle.
  private var quietStream: Http2Stream?

  // The frames of one output: how much of the scratch buffer is filled, and whether pieces by reference stand before it.
  private var scratchFilled = 0
  private var hasReferences = false
  var madeReference = false
  var roomNotices: [Http2Stream] = []

  // Keepalive.
  private var keepalive: LoopTimer?
  private var heardAt: Int64
  private var pingSentAt: Int64?

  /// Takes a connected descriptor over. The handler is not retained: it owns the
  /// connection, and calls `disown` if it goes before `connectionClosed`.
  public init(
    role: Role, loop: EventLoop, descriptor: Int32, options: Http2Options, handler: any Http2ConnectionHandler
  ) throws {
    loop.assertCurrent()
    self.role = role
    self.loop = loop
    self.options = options
    self.handler = handler
    heardAt = loop.now
    socket = try ByteStream(loop: loop, descriptor: descriptor, handler: self)
    session = try makeSession()
    try submitPreface()
    scheduleOutput()
    scheduleKeepalive()
  }

  deinit {
    keepalive?.cancel()
    if let session { nghttp2_session_del(session) }
  }

  public var isOpen: Bool { socket != nil }
  public var streamCount: Int { streams.count }
  public var peer: SocketAddress? { socket?.peer }

  // MARK: Streams

  /// Opens a stream. Clients only.
  ///
  /// - Throws: `Http2Error` when the connection is closed or its stream ids are used up.
  public func open(
    _ block: HeaderBlock, _ fields: [HeaderField], handler: any Http2StreamHandler
  ) throws -> Http2Stream {
    guard isOpen, let session = activated() else { throw Http2Error(message: "the connection is closed") }
    let stream = Http2Stream(id: 0, connection: self)
    stream.handler = handler
    var provider = dataProvider(of: stream)
    // > 0: the stream's id. NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE and NOMEM end the connection's use.
    let id = block.withFields(and: fields) { nv, count in
      nghttp2_submit_request(session, nil, nv, count, &provider, Unmanaged.passUnretained(stream).toOpaque())
    }
    guard id > 0 else { throw Http2Error(message: "can't open a stream: \(reason(id))") }
    stream.id = id
    streams[id] = stream
    scheduleOutput()
    return stream
  }

  func submitResponse(_ stream: Http2Stream, _ block: HeaderBlock, _ fields: [HeaderField], endsStream: Bool) {
    guard let session = activated() else { return }
    var provider = dataProvider(of: stream)
    let result = block.withFields(and: fields) { nv, count in
      endsStream
        ? nghttp2_submit_response(session, stream.id, nv, count, nil)
        : nghttp2_submit_response(session, stream.id, nv, count, &provider)
    }
    // NGHTTP2_ERR_DATA_EXIST and INVALID_ARGUMENT are ours: a second response. NOMEM ends the stream as well.
    if result != 0 { submitReset(stream, .internalError) }
    scheduleOutput()
  }

  func submitReset(_ stream: Http2Stream, _ code: Http2ErrorCode) {
    guard let session = activated() else { return }
    nghttp2_submit_rst_stream(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream.id, code.rawValue)
    scheduleOutput()
  }

  func resume(_ stream: Http2Stream) {
    guard let session = activated() else { return }
    // NGHTTP2_ERR_INVALID_ARGUMENT: the data isn't deferred, which is as well.
    nghttp2_session_resume_data(session, stream.id)
  }

  func consume(_ stream: Http2Stream, _ length: Int) {
    guard let session = activated() else { return }
    nghttp2_session_consume_stream(session, stream.id, length)
    scheduleOutput()
  }

  // MARK: Ending

  /// Announces that no new stream is taken (GOAWAY); those under way go on. Servers.
  public func drain() {
    guard isOpen, let session = activated() else { return }
    nghttp2_submit_shutdown_notice(session)
    let last = nghttp2_session_get_last_proc_stream_id(session)
    nghttp2_submit_goaway(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), last, NGHTTP2_NO_ERROR.rawValue, nil, 0)
    scheduleOutput()
  }

  /// Sends GOAWAY with the code, then closes; streams under way are closed with it.
  public func terminate(_ code: Http2ErrorCode = .noError) {
    guard isOpen, let session = activated() else { return }
    nghttp2_session_terminate_session(session, code.rawValue)
    scheduleOutput()
  }

  /// Closes without a word to the peer and tells the owner nothing more: for an owner that goes away.
  public func disown() {
    handler = nil
    fail(nil)
  }

  /// Closes without a word to the peer; streams under way are closed with it.
  public func closeNow() { fail(nil) }

  func fail(_ error: Http2Error?) {
    guard !isEnding else { return }
    isEnding = true
    failure = error
    socket?.close()
    socket = nil
    keepalive?.cancel()
    if depth == 0 { finish() }
  }

  private func finish() {
    guard isEnding, let session else { return }
    self.session = nil
    nghttp2_session_del(session)
    for stream in streams.values { close(stream, .connectionLost) }
    streams = [:]
    let handler = self.handler
    self.handler = nil
    handler?.connectionClosed(self, failure)
  }

  func close(_ stream: Http2Stream, _ code: Http2ErrorCode) {
    guard !stream.isClosed else { return }
    stream.isClosed = true
    stream.dropQueue()
    let handler = stream.handler
    stream.handler = nil
    handler?.streamClosed(code)
  }

  // MARK: Input

  public func streamReceived(_ bytes: UnsafeRawBufferPointer) {
    guard let session = activated() else { return }
    heardAt = loop.now
    depth += 1
    let result = nghttp2_session_mem_recv(session, bytes.bindMemory(to: UInt8.self).baseAddress, bytes.count)
    depth -= 1
    if isEnding { return finish() }
    // < 0 is fatal: NOMEM, CALLBACK_FAILURE, BAD_CLIENT_MAGIC, FLOODED. Anything that the peer may get wrong on a
    // connection that goes on has been answered by nghttp2 itself.
    if result < 0 {
      output()
      return fail(Http2Error(message: reason(Int32(result))))
    }
    scheduleOutput()
  }

  public func streamClosed(_ error: IOError?) {
    fail(error.map { Http2Error(message: "\($0)") })
  }

  // MARK: Output

  func scheduleOutput() {
    guard !isOutputDue, isOpen else { return }
    isOutputDue = true
    loop.atEndOfTurn(self)
  }

  /// Takes what a stream that has deferred was given now for a direct write at the end of the turn, unless nghttp2 has work.
  func scheduleDirect(_ stream: Http2Stream) -> Bool {
    guard isIdle, quietStream == nil || quietStream === stream else { return false }
    quietStream = stream
    scheduleOutput()
    return true
  }

  public func turnEnded() {
    isOutputDue = false
    if let stream = quietStream {
      quietStream = nil
      if let socket, socket.pendingBytes == 0, writeDirectly(stream) { return }
      // The output that this asks for follows here.
      isOutputDue = true
      stream.resume()
      isOutputDue = false
    }
    output()
  }

  func sendDirectly(_ frames: UnsafeRawBufferPointer) { socket?.send(copying: frames) }

  public func streamDrained() { output() }

  private func output() {
    guard depth == 0, let session = activated(), let socket else { return }
    depth += 1
    while socket.pendingBytes < options.outputHighWaterBytes {
      var frame: UnsafePointer<UInt8>?
      madeReference = false
      let count = nghttp2_session_mem_send(session, &frame)
      if count > 0 {
        append(UnsafeRawBufferPointer(start: frame, count: count))
      } else if count < 0 {
        fail(Http2Error(message: reason(Int32(count))))
        break
      } else if !madeReference {
        isIdle = true
        break
      }
    }
    depth -= 1
    sendAssembled()
    guard !isEnding else { return finish() }
    // A handler may close the connection: the session has to outlive the notices.
    depth += 1
    noticeRoom()
    depth -= 1
    guard !isEnding else { return finish() }
    if nghttp2_session_want_read(session) == 0, nghttp2_session_want_write(session) == 0, socket.pendingBytes == 0 {
      fail(nil)
    }
  }

  private func append(_ frame: UnsafeRawBufferPointer) {
    if scratchFilled + frame.count > loop.scratch.count { sendAssembled() }
    if frame.count > loop.scratch.count {
      socket?.send(copying: frame)
      return
    }
    UnsafeMutableRawBufferPointer(rebasing: loop.scratch[scratchFilled...]).copyMemory(from: frame)
    scratchFilled += frame.count
  }

  /// Queues a DATA frame whose payload stays where it is; called inside mem_send by `send_data_callback`.
  func appendReference(header: UnsafeRawBufferPointer, payload: Bytes) {
    append(header)
    queueAssembled()
    socket?.write(payload)
    hasReferences = true
    madeReference = true
  }

  private func queueAssembled() {
    guard scratchFilled > 0 else { return }
    socket?.write(Bytes(copying: UnsafeRawBufferPointer(rebasing: loop.scratch[..<scratchFilled])))
    scratchFilled = 0
  }

  private func sendAssembled() {
    if hasReferences {
      queueAssembled()
      hasReferences = false
      socket?.flush()
    } else if scratchFilled > 0 {
      socket?.send(copying: UnsafeRawBufferPointer(rebasing: loop.scratch[..<scratchFilled]))
      scratchFilled = 0
    }
  }

  private func noticeRoom() {
    guard !roomNotices.isEmpty else { return }
    let notices = roomNotices
    roomNotices.removeAll(keepingCapacity: true)
    for stream in notices where !stream.isClosed { stream.handler?.streamWritable() }
  }

  // MARK: Keepalive

  private func scheduleKeepalive() {
    guard let interval = options.keepaliveInterval else { return }
    keepalive = loop.schedule(after: interval) { [unowned self] in checkKeepalive() }
  }

  private func checkKeepalive() {
    guard session != nil, let interval = options.keepaliveInterval else { return }
    let now = EventLoop.monotonicNanoseconds()
    if let sent = pingSentAt, heardAt < sent {
      if now - sent >= options.keepaliveTimeout.nanoseconds {
        return fail(Http2Error(message: "the peer has not answered a ping for \(options.keepaliveTimeout)"))
      }
    } else {
      pingSentAt = nil
      if now - heardAt >= interval.nanoseconds {
        guard let session = activated() else { return }
        nghttp2_submit_ping(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), nil)
        pingSentAt = now
        scheduleOutput()
      }
    }
    scheduleKeepalive()
  }

  func reason(_ code: Int32) -> String { String(cString: nghttp2_strerror(code)) }
}
