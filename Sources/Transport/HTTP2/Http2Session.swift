internal import Bytes
internal import CNghttp2
internal import Reactor

/// How a connection's nghttp2 session is made, and nghttp2's callbacks: top-level functions that find the connection in
/// `user_data` and the stream in its stream user data, both unretained: a connection outlives its session, and a stream
/// stands in `streams` until on_stream_close.

extension Http2Connection {
  func makeSession() throws -> OpaquePointer {
    var callbacks: OpaquePointer?
    guard nghttp2_session_callbacks_new(&callbacks) == 0, let callbacks else {
      throw Http2Error(message: "out of memory")
    }
    defer { nghttp2_session_callbacks_del(callbacks) }
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, onBeginHeaders)
    nghttp2_session_callbacks_set_on_header_callback(callbacks, onHeader)
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, onFrameReceived)
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, onFrameSent)
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, onFrameNotSent)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, onDataChunk)
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, onStreamClose)
    nghttp2_session_callbacks_set_send_data_callback(callbacks, onSendData)

    var option: OpaquePointer?
    guard nghttp2_option_new(&option) == 0, let option else { throw Http2Error(message: "out of memory") }
    defer { nghttp2_option_del(option) }
    nghttp2_option_set_no_auto_window_update(option, 1)
    nghttp2_option_set_no_closed_streams(option, 1)
    nghttp2_option_set_stream_reset_rate_limit(option, options.resetBurst, options.resetsPerSecond)
    nghttp2_option_set_max_continuations(option, options.maxContinuations)
    // Header blocks have to fit the shared frame buffer.
    nghttp2_option_set_max_send_header_block_length(option, 16 * 1024)

    var memory = fp_shared_frame_buffer(loop.frameBuffer)
    fp_lend(loop.frameBuffer, role == .server ? 1 : 0)
    defer { fp_lend(loop.frameBuffer, 0) }
    var session: OpaquePointer?
    let user = Unmanaged.passUnretained(self).toOpaque()
    let result =
      role == .server
      ? nghttp2_session_server_new3(&session, callbacks, user, option, &memory)
      : nghttp2_session_client_new3(&session, callbacks, user, option, &memory)
    guard result == 0, let session else { throw Http2Error(message: reason(result)) }
    return session
  }

  func submitPreface() throws {
    guard let session else { return }
    let settings = [
      setting(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, options.maxConcurrentStreams),
      setting(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, UInt32(options.streamWindowBytes)),
      setting(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, UInt32(options.maxHeaderListBytes)),
      setting(NGHTTP2_SETTINGS_ENABLE_PUSH, 0),
    ]
    let none = UInt8(NGHTTP2_FLAG_NONE.rawValue)
    // A server may not send ENABLE_PUSH other than 0, and needn't send it.
    let count = role == .client ? settings.count : settings.count - 1
    let result = nghttp2_submit_settings(session, none, settings, count)
    guard result == 0 else { throw Http2Error(message: reason(result)) }
    nghttp2_session_set_local_window_size(session, none, 0, options.connectionWindowBytes)
  }

  private func setting(_ id: nghttp2_settings_id, _ value: UInt32) -> nghttp2_settings_entry {
    nghttp2_settings_entry(settings_id: Int32(bitPattern: id.rawValue), value: value)
  }

  func dataProvider(of stream: Http2Stream) -> nghttp2_data_provider {
    var provider = nghttp2_data_provider()
    provider.source.ptr = Unmanaged.passUnretained(stream).toOpaque()
    provider.read_callback = onReadData
    return provider
  }

  fileprivate static func from(_ user: UnsafeMutableRawPointer?) -> Http2Connection {
    Unmanaged<Http2Connection>.fromOpaque(user.unsafelyUnwrapped).takeUnretainedValue()
  }

  fileprivate func stream(_ session: OpaquePointer?, _ id: Int32) -> Http2Stream? {
    nghttp2_session_get_stream_user_data(session, id).map {
      Unmanaged<Http2Stream>.fromOpaque($0).takeUnretainedValue()
    }
  }
}

/// 0: the stream is taken.
private func onBeginHeaders(
  _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ user: UnsafeMutableRawPointer?
) -> Int32 {
  guard let frame, fp_headers_category(frame) == NGHTTP2_HCAT_REQUEST else { return 0 }
  let connection = Http2Connection.from(user)
  let id = fp_frame_stream_id(frame)
  let stream = Http2Stream(id: id, connection: connection)
  connection.streams[id] = stream
  nghttp2_session_set_stream_user_data(session, id, Unmanaged.passUnretained(stream).toOpaque())
  return 0
}

private func onHeader(
  _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ name: UnsafePointer<UInt8>?,
  _ nameLength: Int, _ value: UnsafePointer<UInt8>?, _ valueLength: Int, _ flags: UInt8,
  _ user: UnsafeMutableRawPointer?
) -> Int32 {
  let connection = Http2Connection.from(user)
  guard let frame, let stream = connection.stream(session, fp_frame_stream_id(frame)) else { return 0 }
  stream.incoming.append(
    name: UnsafeRawBufferPointer(start: name, count: nameLength),
    value: UnsafeRawBufferPointer(start: value, count: valueLength))
  guard stream.incoming.size <= connection.options.maxHeaderListBytes else {
    return Int32(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
  }
  return 0
}

private func onFrameReceived(
  _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ user: UnsafeMutableRawPointer?
) -> Int32 {
  guard let frame else { return 0 }
  let connection = Http2Connection.from(user)
  let flags = fp_frame_flags(frame)
  switch UInt32(fp_frame_type(frame)) {
  case NGHTTP2_HEADERS.rawValue:
    guard let stream = connection.stream(session, fp_frame_stream_id(frame)) else { return 0 }
    let headers = stream.incoming
    stream.incoming = HeaderList()
    let category = fp_headers_category(frame)
    if category == NGHTTP2_HCAT_REQUEST {
      stream.handler = connection.handler?.connection(connection, opened: stream, headers)
    } else if headers.value(of: ":status", hasPrefix: "1") {
      // An informational response before the response itself; gRPC has no use for it.
      return 0
    } else if category == NGHTTP2_HCAT_HEADERS, !headers.contains(":status") {
      stream.handler?.streamReceivedTrailers(headers)
    } else {
      stream.handler?.streamReceivedHeaders(headers)
    }
    if flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0 { receivedEnd(stream) }
  case NGHTTP2_DATA.rawValue:
    guard flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0 else { return 0 }
    if let stream = connection.stream(session, fp_frame_stream_id(frame)) { receivedEnd(stream) }
  case NGHTTP2_SETTINGS.rawValue:
    if flags & UInt8(NGHTTP2_FLAG_ACK.rawValue) == 0 { connection.handler?.connectionReady(connection) }
  case NGHTTP2_GOAWAY.rawValue:
    connection.handler?.connectionGoingAway(connection)
  default:
    break
  }
  return 0
}

private func receivedEnd(_ stream: Http2Stream) {
  stream.hasReceivedEnd = true
  stream.handler?.streamReceivedEnd()
}

/// A server that has ended its side before the peer did tells it to stop sending (RFC 9113 §8.1).
private func onFrameSent(
  _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ user: UnsafeMutableRawPointer?
) -> Int32 {
  guard let frame, fp_frame_flags(frame) & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0 else { return 0 }
  let type = UInt32(fp_frame_type(frame))
  guard type == NGHTTP2_HEADERS.rawValue || type == NGHTTP2_DATA.rawValue else { return 0 }
  let connection = Http2Connection.from(user)
  let id = fp_frame_stream_id(frame)
  guard connection.role == .server, let stream = connection.stream(session, id), !stream.hasReceivedEnd else {
    return 0
  }
  nghttp2_submit_rst_stream(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), id, NGHTTP2_NO_ERROR.rawValue)
  return 0
}

/// nghttp2 drops a response or trailers that are over the header block limit; without a reset the peer would wait for ever.
private func onFrameNotSent(
  _ session: OpaquePointer?, _ frame: UnsafePointer<nghttp2_frame>?, _ error: Int32, _ user: UnsafeMutableRawPointer?
) -> Int32 {
  guard let frame, UInt32(fp_frame_type(frame)) == NGHTTP2_HEADERS.rawValue,
    fp_headers_category(frame) != NGHTTP2_HCAT_REQUEST, error != NGHTTP2_ERR_STREAM_CLOSED.rawValue,
    error != NGHTTP2_ERR_STREAM_CLOSING.rawValue
  else { return 0 }
  nghttp2_submit_rst_stream(
    session, UInt8(NGHTTP2_FLAG_NONE.rawValue), fp_frame_stream_id(frame), NGHTTP2_INTERNAL_ERROR.rawValue)
  return 0
}

private func onDataChunk(
  _ session: OpaquePointer?, _ flags: UInt8, _ id: Int32, _ data: UnsafePointer<UInt8>?, _ length: Int,
  _ user: UnsafeMutableRawPointer?
) -> Int32 {
  let connection = Http2Connection.from(user)
  // The connection's credit comes back at once, so that one slow stream can't stop the others; the stream's own when its
  // handler has dealt with the bytes.
  nghttp2_session_consume_connection(session, length)
  guard let stream = connection.stream(session, id), let handler = stream.handler else {
    nghttp2_session_consume_stream(session, id, length)
    return 0
  }
  handler.streamReceivedData(UnsafeRawBufferPointer(start: data, count: length))
  return 0
}

private func onStreamClose(
  _ session: OpaquePointer?, _ id: Int32, _ code: UInt32, _ user: UnsafeMutableRawPointer?
) -> Int32 {
  let connection = Http2Connection.from(user)
  guard let stream = connection.streams.removeValue(forKey: id) else { return 0 }
  connection.close(stream, Http2ErrorCode(rawValue: code))
  if connection.streams.isEmpty { connection.handler?.connectionStreamsEnded(connection) }
  return 0
}

/// The next DATA frame's payload, inside mem_send: a length, or NGHTTP2_ERR_DEFERRED until `resume_data`.
private func onReadData(
  _ session: OpaquePointer?, _ id: Int32, _ buffer: UnsafeMutablePointer<UInt8>?, _ length: Int,
  _ flags: UnsafeMutablePointer<UInt32>?, _ source: UnsafeMutablePointer<nghttp2_data_source>?,
  _ user: UnsafeMutableRawPointer?
) -> Int {
  guard let flags, let pointer = source?.pointee.ptr else { return Int(NGHTTP2_ERR_CALLBACK_FAILURE.rawValue) }
  let stream = Unmanaged<Http2Stream>.fromOpaque(pointer).takeUnretainedValue()
  let connection = Http2Connection.from(user)
  if connection.isSettling { return connection.debit(stream, length, flags) }
  var result = 0
  switch stream.fill(UnsafeMutableRawBufferPointer(start: buffer, count: length)) {
  case .copied(let count):
    result = count
    if stream.isFinished { endData(session, stream, flags) }
  case .referenced(let count):
    result = count
    flags.pointee |= NGHTTP2_DATA_FLAG_NO_COPY.rawValue
    if stream.hasEndedAfter(count) { endData(session, stream, flags) }
  case .deferred:
    return Int(NGHTTP2_ERR_DEFERRED.rawValue)
  case .ended:
    endData(session, stream, flags)
  }
  if stream.takesRoomNotice() { connection.roomNotices.append(stream) }
  return result
}

/// EOF for nghttp2; with trailers the HEADERS frame that follows carries END_STREAM.
private func endData(_ session: OpaquePointer?, _ stream: Http2Stream, _ flags: UnsafeMutablePointer<UInt32>) {
  flags.pointee |= NGHTTP2_DATA_FLAG_EOF.rawValue
  guard stream.hasTrailers else { return }
  flags.pointee |= NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue
  let (block, fields) = stream.takeTrailers()
  (block ?? emptyBlock).withFields(and: fields) { nv, count in
    _ = nghttp2_submit_trailer(session, stream.id, nv, count)
  }
}

private let emptyBlock = HeaderBlock([])

/// NGHTTP2_ERR_PAUSE, which returns from mem_send so that frames stay in order with those that it copies; 0 for a frame that
/// settles a debt.
private func onSendData(
  _ session: OpaquePointer?, _ frame: UnsafeMutablePointer<nghttp2_frame>?, _ header: UnsafePointer<UInt8>?,
  _ length: Int, _ source: UnsafeMutablePointer<nghttp2_data_source>?, _ user: UnsafeMutableRawPointer?
) -> Int32 {
  guard let pointer = source?.pointee.ptr else { return Int32(NGHTTP2_ERR_CALLBACK_FAILURE.rawValue) }
  let connection = Http2Connection.from(user)
  // These bytes were written before.
  if connection.isSettling { return 0 }
  let stream = Unmanaged<Http2Stream>.fromOpaque(pointer).takeUnretainedValue()
  // We ask for no padding (no select_padding_callback), so the 9 bytes of the header are all that stands before the data.
  connection.appendReference(
    header: UnsafeRawBufferPointer(start: header, count: 9), payload: stream.takeReference(length))
  if stream.takesRoomNotice() { connection.roomNotices.append(stream) }
  return Int32(NGHTTP2_ERR_PAUSE.rawValue)
}
