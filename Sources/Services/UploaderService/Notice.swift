internal import Bytes
internal import FileStore
internal import Protobuf
public import Schema

/// What the world is told of a finished file: kept with the upload's record until it has gone out.
public struct Notice: Sendable {
  public let file: FileTransferV1.PublishedFile

  public var fileID: String { file.notice?.fileID ?? "" }

  /// - Parameter job: an encoded `push.v1.Job`; nil for the channel `files`.
  init(_ id: FileID, _ sidecar: Sidecar, job: Bytes?) {
    var file = FileTransferV1.PublishedFile()
    file.notice = PushV1.FileNotice(
      fileName: sidecar.name, fileSize: sidecar.size, fileID: id.text, md5: sidecar.md5, sha256: sidecar.sha256 ?? "")
    file.blockSize = sidecar.blockSize
    file.blockMD5s = sidecar.blockMD5s
    file.publishedAtMs = sidecar.publishedAt
    file.job = job.flatMap { try? PushV1.Job(serialized: $0) }
    self.file = file
  }

  init(encoded: Bytes) throws {
    file = try FileTransferV1.PublishedFile(serialized: encoded)
  }

  func encoded() -> Bytes { file.serialized() }

  /// The same however often the notice is sent: an agent sees it once.
  public var messageID: String { "file/\(fileID)" }
}

/// Hands notices to whoever delivers them. Confined to the uploader's loop.
public protocol NoticeSender: AnyObject {
  /// Returns when the notice is kept by somebody else; sending it twice is sending it once.
  ///
  /// - Returns: the job that it started, nil without one.
  func send(_ notice: Notice) async throws -> String?
}
