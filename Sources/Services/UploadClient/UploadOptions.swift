internal import Reactor

/// How files are sent. The defaults suit files of any size on a network that is faster than a disk.
public struct UploadOptions: Sendable {
  /// Connections that carry one large file at a time, each with its own stream. A small rest of a file takes fewer.
  public var streams = 4
  /// Large files that are sent at a time when there are several.
  public var concurrency = 4
  /// Files of one message each that are under way at a time.
  public var smallFilesAtOnce = 64
  /// A file, or a command with nothing else to do, gives up when nothing has moved for so long.
  public var patience = Duration.seconds(60)
  /// The ceiling of the first wait after a failure; it doubles with each, and every wait is drawn evenly below it.
  public var firstPause = Duration.milliseconds(100)
  public var longestPause = Duration.seconds(5)
  /// A stream on which nothing moves for so long, while the server has the word, is given up for one to another uploader.
  public var stallLimit = Duration.seconds(60)
  /// How often the progress callback is called at most.
  public var progressInterval = Duration.milliseconds(200)

  public init() {}

  /// The length of a chunk, which is hashed, sent and recorded as one. A file up to this length is one message.
  static let chunkBytes: Int64 = 1 << 20
  /// What the one reader of a file takes at a time.
  static let batchBytes: Int64 = 8 << 20
  /// Bytes of one file that are read and not yet sent; the reader waits past it.
  static let unsentBytes: Int64 = 32 << 20
  /// Bytes of one file that are read and not yet in its digest; the reader waits past it.
  static let undigestedBytes: Int64 = 32 << 20
  /// Bytes of all small files under way.
  static let smallBytesAtOnce = 16 << 20
  /// A single answer may take so long.
  static let answerLimit = Duration.seconds(30)
  /// One uploader may take so long to be reached.
  static let connectTimeout = Duration.seconds(3)
  /// A large file gets another stream for each so many bytes.
  static let bytesPerStream: Int64 = 8 << 20
}
