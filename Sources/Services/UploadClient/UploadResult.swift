/// A file that stands in the store, verified.
public struct UploadResult: Sendable, Hashable {
  /// What the file can be pushed by.
  public let fileID: String
  /// Without directories.
  public let name: String
  public let size: Int64
  /// The server's digest of the whole file, which is that of the file here.
  public let md5: String
  /// Bytes that this upload sent, repeats too.
  public let bytesSent: Int64
  /// Bytes that were at the server before.
  public let bytesKnown: Int64
  public let duration: Duration
}

/// What became of one of several files.
public struct UploadReport: Sendable {
  /// As it was named, or below the folder that was named.
  public let path: String
  public let size: Int64
  public let result: Result<UploadResult, UploadError>
}
