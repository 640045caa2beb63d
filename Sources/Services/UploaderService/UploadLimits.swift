internal import Reactor

/// What an uploader bounds, and what happens past each bound.
public struct UploadLimits: Sendable {
  /// Bytes of chunks of one file that are held in memory until they are written. Past it the file's streams aren't read.
  public var bytesInFlightPerUpload = 16 << 20
  /// The same over all files of the process.
  public var bytesInFlight = 48 << 20
  /// Bytes of one file that are written and not synced. At half of it a sync starts; past it the file's streams aren't read.
  public var unsyncedBytesPerUpload: Int64 = 40 << 20
  /// Files that are open at a time, each with a descriptor; one more is RESOURCE_EXHAUSTED.
  public var openUploads = 2_048
  /// Streams that write one file at a time; one more is RESOURCE_EXHAUSTED.
  public var streamsPerUpload = 64
  /// The missing ranges that an answer names; the rest is left out.
  public var missingRangesInAnswer = 1_000

  /// How long written bytes wait for more before they are synced.
  public var pauseBeforeSync = Duration.milliseconds(200)
  /// How long a file without streams stays open, with its digest.
  public var idleBeforeClose = Duration.seconds(30)
  /// How long a finaliser may be silent before another takes over; it renews at a third of it.
  public var finaliserLease = Duration.seconds(15)
  /// How often a stream asks whether another node has finalised.
  public var pollOtherFinaliser = Duration.milliseconds(100)
  /// How long an answer waits for the notice to go out; the relay sends it later all the same.
  public var waitForNotice = Duration.seconds(5)
  /// How often pending notices are looked for.
  public var relayInterval = Duration.seconds(2)
  /// Pending notices that one look takes from each index.
  public var relayBatch = 100
  /// How long the record of an upload lives from its last progress.
  public var recordLifetime = Duration.seconds(24 * 3600)

  public init() {}
}
