internal import Bytes
internal import CNghttp2
internal import Reactor

/// Direct writes: a little data for a quiet stream goes to the socket as DATA frames of ours, and nghttp2 is charged later.
///
/// A fan-out gives each of many connections one short message, and nghttp2's way for it (queue, schedule, pack, collect)
/// costs as much as all else above the kernel. When nghttp2 has nothing to send there is nothing to schedule, so the frames
/// are written here, and their length is noted as a debt of the windows that nghttp2 keeps.
///
///     idle     nghttp2 was asked for output and had no more, and nothing was given to it since (`isIdle`)
///     written  idle → idle with a debt: at the end of a turn, if one stream alone has data, its headers are out and it has
///              deferred, nothing waits in the socket, and both windows have the credit
///     settled  before any call that changes the session (`activated`, `output`), and from `settleBytes` upwards: the
///              stream is resumed and yields NO_COPY frames of the debt's length, for which nothing is sent
///
/// So no callback of nghttp2 ever meets a debt, the windows are exact whenever a frame of the peer is read or one of ours
/// is made, and what resets a stream or ends the connection comes after the account is even. Unsettled, a window would
/// overflow after 2 GiB of credit from the peer. END_STREAM and padding never go this way. What the kernel doesn't take is
/// queued on the socket, ahead of everything else.
struct DirectAccount {
  /// The stream that the rest is about; 0: none.
  var stream: Int32 = 0
  /// What may still be written to it: the lesser of its window and the connection's, less the debt.
  var credit: Int32 = 0
  /// Bytes of DATA that were written and that nghttp2's windows don't show yet.
  var debt: Int32 = 0
}

extension Http2Connection {
  /// The most that one direct write takes.
  static let directBytes = 32 * 1024
  /// A debt from this size upwards is settled at once.
  static let settleBytes: Int32 = 16 * 1024
  /// Every peer takes frames of this length (RFC 9113 §4.2).
  static let directFrameBytes = 16 * 1024
  private static let frameHeaderBytes = 9

  /// Makes the windows even, before something is given to the session.
  func wake() { _ = activated() }

  /// The session for a call that changes it: the windows are even, and there may be output after the call.
  func activated() -> OpaquePointer? {
    if account.debt > 0 { settle() }
    account.stream = 0
    isIdle = false
    return session
  }

  /// Writes all that the stream has queued, if that can be done past nghttp2. - Returns: whether it was.
  func writeDirectly(_ stream: Http2Stream) -> Bool {
    let length = stream.pendingBytes
    guard isIdle, stream.isQuiet, length > 0, length <= Http2Connection.directBytes,
      hasCredit(for: length, on: stream.id)
    else { return false }
    var filled = 0
    var left = length
    while left > 0 {
      let payload = min(left, Http2Connection.directFrameBytes)
      writeFrameHeader(at: filled, payload: payload, stream.id)
      filled += Http2Connection.frameHeaderBytes
      stream.copy(into: UnsafeMutableRawBufferPointer(rebasing: loop.scratch[filled..<filled + payload]))
      filled += payload
      left -= payload
    }
    account.debt += Int32(length)
    account.credit -= Int32(length)
    sendDirectly(UnsafeRawBufferPointer(rebasing: loop.scratch[..<filled]))
    if account.debt >= Http2Connection.settleBytes { settle() }
    return true
  }

  private func writeFrameHeader(at position: Int, payload: Int, _ stream: Int32) {
    // Length of 24 bits and type 0; no flags; the stream's id.
    loop.scratch.storeBytes(of: (UInt32(payload) << 8).bigEndian, toByteOffset: position, as: UInt32.self)
    loop.scratch[position + 4] = 0
    loop.scratch.storeBytes(of: stream.bigEndian, toByteOffset: position + 5, as: Int32.self)
  }

  private func hasCredit(for length: Int, on stream: Int32) -> Bool {
    if account.stream != stream {
      if account.debt > 0 { settle() }
      // Not idle: settling has failed, and the connection ends.
      guard isIdle, let session else { return false }
      // Both give 0 where SETTINGS made the window negative; -1 is for a stream that isn't there.
      let credit = min(
        nghttp2_session_get_stream_remote_window_size(session, stream),
        nghttp2_session_get_remote_window_size(session))
      account = DirectAccount(stream: stream, credit: credit)
    }
    return length <= Int(account.credit)
  }

  /// Charges nghttp2's windows with what was written past it. Not from its callbacks.
  func settle() {
    guard let session else { return }
    assert(depth == 0 && isIdle, "a debt in a session that is at work")
    depth += 1
    isSettling = true
    nghttp2_session_resume_data(session, account.stream)
    var frame: UnsafePointer<UInt8>?
    // 0: nothing to send remains. The frames of the debt are made and dropped inside the call.
    let count = nghttp2_session_mem_send(session, &frame)
    isSettling = false
    depth -= 1
    guard count == 0, account.debt == 0 else {
      // nghttp2 doesn't make the frames that it was asked for: its windows are wrong from now on.
      assertionFailure("\(account.debt) bytes are not settled (\(count))")
      account = DirectAccount()
      isIdle = false
      nghttp2_session_terminate_session(session, Http2ErrorCode.internalError.rawValue)
      return scheduleOutput()
    }
  }

  /// The read callback's answer while a debt is settled: bytes of it, or NGHTTP2_ERR_DEFERRED when it is even.
  func debit(_ stream: Http2Stream, _ length: Int, _ flags: UnsafeMutablePointer<UInt32>) -> Int {
    let count = min(account.debt, Int32(clamping: length))
    guard count > 0, stream.id == account.stream else { return stream.deferred() }
    account.debt -= count
    flags.pointee |= NGHTTP2_DATA_FLAG_NO_COPY.rawValue
    return Int(count)
  }
}
