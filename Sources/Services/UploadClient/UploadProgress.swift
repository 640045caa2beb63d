/// How far one file is. Counts are bytes of the file, each counted once.
public struct UploadProgress: Sendable, Hashable {
  public enum Phase: Sendable, Hashable {
    case sending
    /// The server checks the whole file.
    case verifying
  }

  public var phase = Phase.sending
  /// The size of the file.
  public let total: Int64
  /// Handed to the network, or there from before.
  public var sent: Int64 = 0
  /// What the server has, safe or not, as it has told.
  public var received: Int64 = 0
  /// What would survive a crash of the server.
  public var durable: Int64 = 0
  /// Checked in the phase `verifying`.
  public var verified: Int64 = 0
  /// Of the bytes sent, over the last seconds; 0 before anything is known.
  public var bytesPerSecond: Double = 0

  init(total: Int64) { self.total = total }

  /// Until all is sent at this rate; nil while the rate is unknown.
  public var timeLeft: Duration? {
    guard bytesPerSecond > 0 else { return nil }
    return .milliseconds(Int64((Double(max(0, total - sent)) / bytesPerSecond * 1000).rounded()))
  }
}

/// A rate over a sliding window of samples.
struct RateMeter: Sendable {
  /// How much of the past counts, in nanoseconds.
  static let window: Int64 = 5_000_000_000
  private var samples: [(at: Int64, bytes: Int64)] = []

  /// - Parameters:
  ///   - bytes: the count since the beginning, which may also go back.
  ///   - now: monotonic nanoseconds.
  /// - Returns: bytes a second over the window; 0 with a single sample.
  mutating func sample(_ bytes: Int64, now: Int64) -> Double {
    samples.append((now, bytes))
    while samples.count > 2, now - samples[0].at > Self.window { samples.removeFirst() }
    guard let first = samples.first, now > first.at else { return 0 }
    return max(0, Double(bytes - first.bytes)) / (Double(now - first.at) / 1e9)
  }
}
