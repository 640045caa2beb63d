internal import Telemetry

/// What the downloads of a gateway are bounded by, and what happens past each bound.
public struct DownloadLimits: Sendable {
  /// Downloads at a time; one more is RESOURCE_EXHAUSTED with `retryAfter`.
  public var downloads = 1_000
  public var retryAfter = Duration.seconds(1)
  /// Bytes per read of the disk; each download holds two reads at most.
  public var readAheadBytes = 1 << 20
  /// Threads that read.
  public var readers = 4
  /// The length of a chunk's content when the caller doesn't say.
  public var defaultChunkBytes = 64 << 10
  /// What a caller may ask for; other lengths are brought into this range.
  public var chunkBytes = (4 << 10)...(1 << 20)
  /// How often the record of a download moves.
  public var recordEveryBytes: Int64 = 20 << 20
  /// How far the record stays behind what was sent: bytes that may still be in queues and windows on the way, so that it
  /// doesn't claim what the client hasn't got.
  public var bytesOnTheWay: Int64 = 4 << 20
  /// How long a record lives from its last move.
  public var recordLifetime = Duration.seconds(24 * 3600)

  public init() {}

  func chunkBytes(asked: Int32) -> Int {
    asked <= 0 ? defaultChunkBytes : min(max(Int(asked), chunkBytes.lowerBound), chunkBytes.upperBound)
  }
}

/// What a gateway counts of its downloads.
struct DownloadMetrics {
  let sentBytes: Counter
  let active: Gauge

  init(_ registry: MetricsRegistry) {
    sentBytes = registry.counter("fleetpush_download_bytes_total", "Bytes of files sent to endpoints.")
    active = registry.gauge("fleetpush_download_active", "Downloads under way.")
  }
}
