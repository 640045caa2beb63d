public import Bytes
internal import CNghttp2

/// What a stream tells its owner, on the loop.
public protocol Http2StreamHandler: AnyObject {
  /// The response's header block (clients).
  func streamReceivedHeaders(_ headers: HeaderList)
  /// Data; the memory is valid only during the call. Give its length back with `consume` when it is dealt with.
  func streamReceivedData(_ bytes: UnsafeRawBufferPointer)
  func streamReceivedTrailers(_ trailers: HeaderList)
  /// The peer has sent all that it will.
  func streamReceivedEnd()
  /// What was queued has fallen to `lowWaterBytes`.
  func streamWritable()
  /// The stream is over. Called once, last.
  func streamClosed(_ code: Http2ErrorCode)
}

/// One stream of a connection: a queue of bytes by reference, then trailers. Belongs to its connection's loop.
public final class Http2Stream {
  public internal(set) var id: Int32
  unowned let connection: Http2Connection
  public internal(set) var handler: (any Http2StreamHandler)?
  var incoming = HeaderList()

  private var queue: [Bytes] = []
  private var head = 0
  /// Bytes queued that haven't been put into frames, for want of credit or of a turn's end.
  public private(set) var pendingBytes = 0
  private var trailers: [HeaderField]?
  private var trailerBlock: HeaderBlock?
  private var hasEnded = false
  private var isDeferred = false
  private var isWaitingForRoom = false
  var isClosed = false
  var hasReceivedEnd = false

  /// `streamWritable` is called when no more than this is queued, after more was.
  public static let lowWaterBytes = 64 * 1024
  /// Pieces from this size upwards go to the socket by reference; smaller ones are joined into one frame.
  static let referenceBytes = 4 * 1024

  init(id: Int32, connection: Http2Connection) {
    self.id = id
    self.connection = connection
  }

  // MARK: Sending

  /// Sends the response's header block; data may follow until `end`. Servers only, once.
  public func respond(_ block: HeaderBlock, _ fields: [HeaderField] = []) {
    guard !isClosed else { return }
    connection.submitResponse(self, block, fields, endsStream: false)
  }

  /// Sends a response that is a header block and nothing else. Servers only, once.
  public func respondAndEnd(_ block: HeaderBlock, _ fields: [HeaderField]) {
    guard !isClosed else { return }
    hasEnded = true
    connection.submitResponse(self, block, fields, endsStream: true)
  }

  /// Queues bytes by reference; they leave at the end of the turn as far as the peer gave credit.
  public func write(_ bytes: Bytes) {
    guard !isClosed, !hasEnded, !bytes.isEmpty else { return }
    queue.append(bytes)
    pendingBytes += bytes.count
    if pendingBytes > Http2Stream.lowWaterBytes { isWaitingForRoom = true }
    if isDeferred, connection.scheduleDirect(self) { return }
    resume()
  }

  /// Ends our side after what is queued, with trailers if there are any.
  public func end(_ block: HeaderBlock? = nil, _ fields: [HeaderField] = []) {
    guard !isClosed, !hasEnded else { return }
    hasEnded = true
    if block != nil || !fields.isEmpty {
      trailerBlock = block
      trailers = fields
    }
    resume()
  }

  /// Ends the stream at once, in both directions; what is queued is dropped.
  public func reset(_ code: Http2ErrorCode) {
    guard !isClosed else { return }
    dropQueue()
    hasEnded = true
    connection.submitReset(self, code)
  }

  /// Returns credit for data that was dealt with.
  public func consume(_ length: Int) {
    guard !isClosed, length > 0 else { return }
    connection.consume(self, length)
  }

  /// Has nghttp2 ask for what is queued.
  func resume() {
    // First what was written past nghttp2: settling that defers the stream anew.
    connection.wake()
    if isDeferred {
      isDeferred = false
      connection.resume(self)
    }
    connection.scheduleOutput()
  }

  /// Whether all that nghttp2 knows of the stream is that it has deferred: it has responded and not ended.
  var isQuiet: Bool { isDeferred && !hasEnded && !isClosed && !isWaitingForRoom }

  // MARK: Called by nghttp2 through the connection, inside mem_send

  /// What the next DATA frame is made of.
  enum Source {
    case copied(Int)
    case referenced(Int)
    case deferred
    /// Nothing is left: the stream ends with this frame, or with the trailers that follow it.
    case ended
  }

  /// Copies small pieces into the frame, or reserves a part of a large one for `takeReference`.
  func fill(_ buffer: UnsafeMutableRawBufferPointer) -> Source {
    guard pendingBytes > 0 else {
      guard hasEnded else {
        isDeferred = true
        return .deferred
      }
      return .ended
    }
    if queue[head].count >= Http2Stream.referenceBytes {
      return .referenced(min(queue[head].count, buffer.count))
    }
    return .copied(copy(into: buffer))
  }

  /// Takes from the queue until the buffer is full or nothing is left. - Returns: how many bytes.
  @discardableResult
  func copy(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    var filled = 0
    while head < queue.count, filled < buffer.count {
      let piece = queue[head].prefix(buffer.count - filled)
      UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]).copyMemory(from: piece.unsafeMemory)
      filled += piece.count
      advance(piece.count)
    }
    return filled
  }

  /// The read callback's NGHTTP2_ERR_DEFERRED.
  func deferred() -> Int {
    isDeferred = true
    return Int(NGHTTP2_ERR_DEFERRED.rawValue)
  }

  /// Whether the frame that was just filled is the stream's last: then END_STREAM needs no frame of its own.
  var isFinished: Bool { hasEnded && pendingBytes == 0 }
  /// The same, when the next `length` bytes are still to be taken.
  func hasEndedAfter(_ length: Int) -> Bool { hasEnded && pendingBytes == length }
  var hasTrailers: Bool { trailers != nil }

  func takeReference(_ length: Int) -> Bytes {
    let piece = queue[head].prefix(length)
    advance(length)
    return piece
  }

  func takeTrailers() -> (block: HeaderBlock?, fields: [HeaderField]) {
    defer { trailers = nil }
    return (trailerBlock, trailers ?? [])
  }

  /// Whether the handler should hear that there is room again; asked once after each output.
  func takesRoomNotice() -> Bool {
    guard isWaitingForRoom, pendingBytes <= Http2Stream.lowWaterBytes else { return false }
    isWaitingForRoom = false
    return true
  }

  private func advance(_ length: Int) {
    pendingBytes -= length
    if length == queue[head].count {
      queue[head] = Bytes()
      head += 1
    } else {
      queue[head] = queue[head].dropFirst(length)
    }
    if head == queue.count {
      queue.removeAll(keepingCapacity: head < 64)
      head = 0
    } else if head > 256 {
      queue.removeFirst(head)
      head = 0
    }
  }

  func dropQueue() {
    queue = []
    head = 0
    pendingBytes = 0
  }
}
