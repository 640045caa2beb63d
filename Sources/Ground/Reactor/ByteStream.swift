public import Bytes
internal import CLinux
internal import Glibc

/// What a `ByteStream` tells its owner, on the loop.
public protocol ByteStreamHandler: AnyObject {
  /// Bytes arrived. The memory is the loop's and is valid only during the call.
  func streamReceived(_ bytes: UnsafeRawBufferPointer)
  /// All that was queued is in the kernel again.
  func streamDrained()
  /// The stream is closed: by the peer (`error` nil) or by an error. Called once; not after `close()`.
  func streamClosed(_ error: IOError?)
}

/// A connected TCP socket on a loop: reads into the loop's buffer, queues what the kernel doesn't take. Belongs to its
/// loop.
///
/// The queue isn't bounded here: whoever writes looks at `pendingBytes` and stops.
public final class ByteStream: ReadinessHandler, TurnEnding {
  public let loop: EventLoop
  private let descriptor: Int32
  private var registration: Registration?
  // Weak and safe unowned references would send every retain of a connection through a side table. This one can't dangle:
  // the handler owns the stream, and the stream forgets it in `close`, which the handler's end implies.
  private unowned(unsafe) var handler: (any ByteStreamHandler)?
  private var queue: [Bytes] = []
  private var head = 0
  private var isFlushDue = false
  private var isReading = true
  /// Bytes written that the kernel hasn't taken yet.
  public private(set) var pendingBytes = 0
  /// The peer, numeric.
  public let peer: SocketAddress?

  /// Reads per event: a fast sender must not starve the other sockets of the loop.
  static let readsPerEvent = 8
  /// The most buffers in one `sendmsg`.
  static let buffersPerWrite = 64

  /// Takes a connected descriptor over, and closes it in the end.
  ///
  /// - Parameter handler: not retained; it owns the stream, alone.
  public init(loop: EventLoop, descriptor: Int32, handler: any ByteStreamHandler) throws(IOError) {
    loop.assertCurrent()
    self.loop = loop
    self.descriptor = descriptor
    self.handler = handler
    peer = try? Sockets.peerAddress(descriptor)
    do throws(IOError) {
      registration = try loop.register(descriptor, .read, self)
    } catch {
      Sockets.close(descriptor)
      throw error
    }
  }

  deinit { close() }

  public var isOpen: Bool { registration != nil }

  /// Closes at once; what is queued is lost, and the handler hears nothing more.
  public func close() {
    guard let registration else { return }
    registration.cancel()
    self.registration = nil
    handler = nil
    queue = []
    head = 0
    pendingBytes = 0
    Sockets.close(descriptor)
  }

  /// Stops or goes on reading: the kernel's window then holds the peer back.
  public func setReading(_ reading: Bool) {
    isReading = reading
    updateInterest()
  }

  // MARK: Writing

  /// Queues bytes by reference; they leave at the end of this turn, together with what else was written in it.
  public func write(_ bytes: Bytes) {
    guard isOpen, !bytes.isEmpty else { return }
    queue.append(bytes)
    pendingBytes += bytes.count
    guard !isFlushDue else { return }
    isFlushDue = true
    loop.atEndOfTurn(self)
  }

  /// Sends bytes now, from the caller's memory; only what the kernel doesn't take is copied and queued.
  public func send(copying bytes: UnsafeRawBufferPointer) {
    guard isOpen, let base = bytes.baseAddress, bytes.count > 0 else { return }
    var sent = 0
    if pendingBytes == 0 {
      let result = Glibc.send(descriptor, base, bytes.count, Int32(MSG_NOSIGNAL))
      if result < 0, errno != EAGAIN, errno != EINTR { return fail(IOError.last("send")) }
      sent = max(0, result)
    }
    guard sent < bytes.count else { return }
    let rest = Bytes(copying: UnsafeRawBufferPointer(rebasing: bytes[sent...]))
    queue.append(rest)
    pendingBytes += rest.count
    updateInterest()
  }

  public func turnEnded() {
    isFlushDue = false
    flushAndTell()
  }

  private func flushAndTell() {
    guard isOpen else { return }
    flush()
    if isOpen, pendingBytes == 0 { handler?.streamDrained() }
  }

  /// Writes what is queued as far as the kernel takes it; epoll tells when it takes more.
  public func flush() {
    while isOpen, pendingBytes > 0 {
      let written: Int
      do throws(IOError) { written = try writeOnce() } catch { return fail(error) }
      guard written > 0 else { break }
      drop(written)
    }
    updateInterest()
  }

  /// - Returns: the bytes taken, 0 when the socket's buffer is full.
  private func writeOnce() throws(IOError) -> Int {
    let count = min(queue.count - head, ByteStream.buffersPerWrite)
    let result = withUnsafeTemporaryAllocation(of: iovec.self, capacity: count) { vectors in
      for index in 0..<count {
        let memory = queue[head + index].unsafeMemory
        vectors[index] = iovec(
          iov_base: UnsafeMutableRawPointer(mutating: memory.baseAddress), iov_len: memory.count)
      }
      var message = msghdr()
      message.msg_iov = vectors.baseAddress
      message.msg_iovlen = count
      return sendmsg(descriptor, &message, Int32(MSG_NOSIGNAL))
    }
    if result >= 0 { return result }
    if errno == EAGAIN || errno == EINTR { return 0 }
    throw IOError.last("sendmsg")
  }

  private func drop(_ written: Int) {
    pendingBytes -= written
    var left = written
    while left > 0 {
      let first = queue[head]
      if first.count > left {
        queue[head] = first.dropFirst(left)
        break
      }
      left -= first.count
      queue[head] = Bytes()
      head += 1
    }
    if head == queue.count {
      queue.removeAll(keepingCapacity: head <= ByteStream.buffersPerWrite)
      head = 0
    } else if head > 1024 {
      queue.removeFirst(head)
      head = 0
    }
  }

  // MARK: Reading

  public func ready(_ events: Interest) {
    // The owner may drop its last reference to us in a callback.
    withExtendedLifetime(self) {
      if events.contains(.write) { flushAndTell() }
      guard isOpen, !events.isDisjoint(with: [.read, .failed]) else { return }
      // Reported unasked and level-triggered: while reading is off nothing else would take it away.
      if !isReading, !events.isDisjoint(with: .failed) {
        let code = Sockets.takeError(descriptor)
        return end(code == 0 ? nil : IOError(code: code, call: "recv"))
      }
      readWhatIsThere()
    }
  }

  private func readWhatIsThere() {
    for _ in 0..<ByteStream.readsPerEvent {
      guard isOpen, isReading else { return }
      let buffer = loop.readBuffer
      let count = recv(descriptor, buffer.baseAddress, buffer.count, 0)
      if count > 0 {
        handler?.streamReceived(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        // A short read emptied the socket: epoll tells when there is more.
        if count < buffer.count { return }
      } else if count == 0 {
        return end(nil)
      } else if errno == EAGAIN {
        return
      } else if errno != EINTR {
        return fail(IOError.last("recv"))
      }
    }
  }

  private func updateInterest() {
    guard let registration else { return }
    var interest: Interest = isReading ? .read : []
    if pendingBytes > 0, !isFlushDue { interest.insert(.write) }
    registration.update(interest)
  }

  /// Told at the end of the turn, so that a writer isn't called back from inside its own write.
  private func fail(_ error: IOError) {
    guard isOpen, let handler else { return }
    close()
    loop.atEndOfTurn(ClosedNotice(handler: handler, error: error))
  }

  private func end(_ error: IOError?) {
    let handler = self.handler
    close()
    handler?.streamClosed(error)
  }
}

private final class ClosedNotice: TurnEnding {
  private let handler: any ByteStreamHandler
  private let error: IOError

  init(handler: any ByteStreamHandler, error: IOError) {
    self.handler = handler
    self.error = error
  }

  func turnEnded() { handler.streamClosed(error) }
}
