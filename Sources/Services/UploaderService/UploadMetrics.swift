public import Telemetry

/// What an uploader counts.
public struct UploadMetrics: Sendable {
  public let receivedBytes: Counter
  public let repeatedBytes: Counter
  public let refusedChunks: Counter
  public let finishedFiles: Counter
  public let publishedNotices: Counter
  public let relayedStreams: Counter
  public let takeovers: Counter
  public let damagedBlocks: Counter
  public let sweptFiles: Counter
  public let openUploads: Gauge
  public let bytesInFlight: Gauge

  public init(_ registry: MetricsRegistry) {
    receivedBytes = registry.counter("fleetpush_upload_bytes_total", "Bytes of chunks written to the store.")
    repeatedBytes = registry.counter("fleetpush_upload_repeated_bytes_total", "Bytes of chunks that were there before.")
    refusedChunks = registry.counter("fleetpush_upload_refused_chunks_total", "Chunks that were refused.")
    finishedFiles = registry.counter("fleetpush_upload_files_total", "Files verified and given their final names.")
    publishedNotices = registry.counter("fleetpush_upload_notices_total", "File notices handed to Kafka.")
    relayedStreams = registry.counter(
      "fleetpush_upload_relayed_streams_total", "Streams that were passed on to the node that writes their file.")
    takeovers = registry.counter(
      "fleetpush_upload_takeovers_total", "Uploads of earlier writers that were gone on with.")
    damagedBlocks = registry.counter(
      "fleetpush_upload_damaged_blocks_total", "Blocks that weren't what was written, and were asked for again.")
    sweptFiles = registry.counter("fleetpush_upload_swept_files_total", "Files that were removed below incoming.")
    openUploads = registry.gauge("fleetpush_upload_open_files", "Files that are being taken in.")
    bytesInFlight = registry.gauge("fleetpush_upload_bytes_in_flight", "Bytes of chunks held in memory.")
  }
}
