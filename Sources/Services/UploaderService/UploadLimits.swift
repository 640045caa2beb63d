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

  /// Chunks of one stream that are checked and written at a time. Past it the stream isn't read.
  public var chunksUnderWayPerStream = 8

  /// How long written bytes wait for more before they are synced.
  public var pauseBeforeSync = Duration.milliseconds(200)
  /// How long a file without streams stays open, with its digest.
  public var idleBeforeClose = Duration.seconds(30)
  /// How long digests that came alone wait before they are written down; a crash costs them, no bytes.
  public var pauseBeforeJournal = Duration.seconds(1)
  /// How long the node that writes a file may be silent before another takes over; it renews at a third of it.
  public var writerLease = Duration.seconds(10)
  /// How often a stream tries again to reach the writer of its file, until that one's lease ends.
  public var pollSilentWriter = Duration.milliseconds(500)
  /// How long a session holds a file from its last progress on.
  public var sessionLifetime = Duration.seconds(30)
  /// How long an answer waits for the notice to go out; the relay sends it later all the same.
  public var waitForNotice = Duration.seconds(5)
  /// How often pending notices are looked for.
  public var relayInterval = Duration.seconds(2)
  /// Pending notices that one look takes from each index.
  public var relayBatch = 100
  /// How often the store is looked through for what nobody needs any more.
  public var sweepInterval = Duration.seconds(60)
  /// How long a file has to be left alone before the sweeper looks at it.
  public var sweepAge = Duration.seconds(30)
  /// How long the record of an upload, its journal and its bytes live from its last progress.
  public var recordLifetime = Duration.seconds(24 * 3600)

  public init() {}
}
