import Bytes
import Glibc
import Reactor

/// An HTTP/2 client that keeps its own account of both windows, byte by byte, and holds the server to it. It gives credit
/// only when it is told to.
final class ScriptedPeer: ByteStreamHandler {
  struct Stream {
    var window: Int
    var received = 0
    var hasEnded = false
    /// The data is the run of bytes that `ScriptedPeer.bytes` gives.
    var isRun: Bool
  }
  private var socket: ByteStream?
  private var held: [UInt8] = []
  private var nextStream: Int32 = 1
  private(set) var streams: [Int32: Stream] = [:]
  private(set) var connectionWindow = 65_535
  private(set) var initialWindow: Int
  private var comingWindow: Int?
  /// What the server did against the rules, or against our account.
  private(set) var complaints: [String] = []
  private(set) var pongs = 0
  private(set) var dataFrames = 0

  init(_ loop: EventLoop, _ descriptor: Int32, initialWindow: Int) throws {
    self.initialWindow = initialWindow
    socket = try ByteStream(loop: loop, descriptor: descriptor, handler: self)
    send(Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8))
    frame(type: 4, 0, settings(initialWindow))
  }

  func close() {
    socket?.close()
    socket = nil
  }

  /// The server's data from an offset on.
  static func bytes(from offset: Int, count: Int) -> Bytes {
    Bytes(capacity: count) { memory in
      for index in 0..<count { memory[index] = byte(at: offset + index) }
      return count
    }
  }
  private static func byte(at offset: Int) -> UInt8 { UInt8(truncatingIfNeeded: offset &* 31 ^ offset >> 7) }

  // MARK: What it does

  /// A POST to a path of one character: m is answered with the run of bytes, everything else somehow.
  func open(_ path: Character) -> Int32 {
    let id = nextStream
    nextStream += 2
    streams[id] = Stream(window: initialWindow, isRun: path == "m")
    let authority: [UInt8] = [0x01, 1, UInt8(ascii: "t")]
    frame(type: 1, flags: 5, id, [0x83, 0x86, 0x04, 2, UInt8(ascii: "/"), path.asciiValue ?? 0] + authority)
    return id
  }

  func grant(_ count: Int, to id: Int32 = 0) {
    guard count > 0 else { return }
    if id == 0 { connectionWindow += count } else { streams[id]?.window += count }
    frame(type: 8, id, big(UInt32(count)))
  }

  /// Changes the window that streams begin with; those that are open move with it. One change at a time.
  func changeInitialWindow(to size: Int) {
    guard comingWindow == nil else { return }
    comingWindow = size
    // The server may use more from when it reads this, and must use less from its acknowledgement on.
    if size > initialWindow { moveWindows(to: size) }
    frame(type: 4, 0, settings(size))
  }

  func ping() { frame(type: 6, 0, [UInt8](repeating: 7, count: 8)) }

  func reset(_ id: Int32) {
    // What is under way still counts for the connection.
    streams[id]?.isRun = false
    frame(type: 3, id, big(8))
  }

  func setReading(_ reading: Bool) { socket?.setReading(reading) }

  // MARK: What it hears

  func streamReceived(_ bytes: UnsafeRawBufferPointer) {
    held += bytes
    var start = 0
    while held.count - start >= 9 {
      let length = Int(held[start]) << 16 | Int(held[start + 1]) << 8 | Int(held[start + 2])
      guard held.count - start >= 9 + length else { break }
      let id = Int32(bitPattern: held[start + 5..<start + 9].reduce(0) { $0 << 8 | UInt32($1) })
      received(type: held[start + 3], flags: held[start + 4], id, held[start + 9..<start + 9 + length])
      start += 9 + length
    }
    held.removeFirst(start)
  }
  func streamDrained() {}
  func streamClosed(_ error: IOError?) { complaints.append("the server closed the connection") }

  private func received(type: UInt8, flags: UInt8, _ id: Int32, _ payload: ArraySlice<UInt8>) {
    switch type {
    case 0: receivedData(id, payload)
    case 3 where streams[id]?.hasEnded == false && streams[id]?.isRun == true:
      complaints.append("stream \(id) was reset")
    case 4 where flags & 1 == 0: frame(type: 4, flags: 1, 0, [])
    case 4:
      if let size = comingWindow, size < initialWindow { moveWindows(to: size) }
      comingWindow = nil
    case 6: pongs += 1
    case 7: complaints.append("GOAWAY \(payload.suffix(4).map { $0 })")
    default: break
    }
    if type <= 1, flags & 1 != 0 { streams[id]?.hasEnded = true }
  }

  private func receivedData(_ id: Int32, _ payload: ArraySlice<UInt8>) {
    dataFrames += 1
    connectionWindow -= payload.count
    if connectionWindow < 0 { complaints.append("\(-connectionWindow) bytes too many on the connection") }
    guard var stream = streams[id] else { return complaints.append("data on the unknown stream \(id)") }
    if stream.hasEnded { complaints.append("data after the end of stream \(id)") }
    stream.window -= payload.count
    if stream.window < 0 { complaints.append("\(-stream.window) bytes too many on stream \(id)") }
    if stream.isRun {
      for (index, byte) in payload.enumerated() where byte != ScriptedPeer.byte(at: stream.received + index) {
        complaints.append("a wrong byte at \(stream.received + index) of stream \(id)")
        break
      }
    }
    stream.received += payload.count
    streams[id] = stream
  }

  private func moveWindows(to size: Int) {
    for id in streams.keys { streams[id]?.window += size - initialWindow }
    initialWindow = size
  }

  // MARK: Frames

  private func settings(_ window: Int) -> [UInt8] { [0, 4] + big(UInt32(window)) }

  private func big(_ value: UInt32) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }

  private func frame(type: UInt8, flags: UInt8 = 0, _ id: Int32, _ payload: [UInt8]) {
    send([0, UInt8(payload.count >> 8), UInt8(payload.count & 255), type, flags] + big(UInt32(id)) + payload)
  }

  private func send(_ bytes: [UInt8]) { socket?.write(Bytes(bytes)) }
}

/// A generator whose seed replays a run (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }
}
