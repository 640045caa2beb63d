/// The limits of a connection; each is enforced as its line says.
public struct Http2Options: Sendable {
  /// Streams that the peer may have open at once; more are refused, and a peer that knows this limit and passes it all the
  /// same loses its connection. What a peer can make us hold is this number times the stream's window.
  public var maxConcurrentStreams: UInt32 = 128
  /// Bytes that the peer may send on a stream ahead of its handler (SETTINGS_INITIAL_WINDOW_SIZE).
  public var streamWindowBytes: Int32 = 1 << 20
  /// Bytes that the peer may send on the connection ahead of its being read.
  public var connectionWindowBytes: Int32 = 16 << 20
  /// A header block larger than this resets its stream.
  public var maxHeaderListBytes = 16 * 1024
  /// A connection that is silent for so long is asked (PING); nil: never.
  public var keepaliveInterval: Duration? = .seconds(10)
  /// A ping that isn't answered within this time closes the connection.
  public var keepaliveTimeout: Duration = .seconds(10)
  /// Resets by the peer: a burst, then a rate per second; past it the connection ends (CVE-2023-44487).
  public var resetBurst: UInt64 = 1_000
  public var resetsPerSecond: UInt64 = 100
  /// CONTINUATION frames in one header block (CVE-2024-28182); past it the connection ends.
  public var maxContinuations = 8
  /// Output that is queued on the socket before the connection stops taking frames from its streams.
  public var outputHighWaterBytes = 1 << 20

  public init() {}
}

/// Why a stream or a connection ended: an HTTP/2 error code (RFC 9113 §7).
public struct Http2ErrorCode: RawRepresentable, Equatable, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static let noError = Http2ErrorCode(rawValue: 0)
  public static let protocolError = Http2ErrorCode(rawValue: 1)
  public static let internalError = Http2ErrorCode(rawValue: 2)
  public static let flowControlError = Http2ErrorCode(rawValue: 3)
  public static let refusedStream = Http2ErrorCode(rawValue: 7)
  public static let cancel = Http2ErrorCode(rawValue: 8)
  /// Not of the RFC: the connection has ended under the stream.
  public static let connectionLost = Http2ErrorCode(rawValue: .max)
  public static let enhanceYourCalm = Http2ErrorCode(rawValue: 11)
}

/// Why a connection ended.
public struct Http2Error: Error, Sendable, CustomStringConvertible {
  public let message: String
  public var description: String { message }
}
