internal import Bytes
internal import FileStore
internal import GRPC
internal import Protobuf
internal import Schema

/// A chunk whose fields make sense by themselves.
struct CheckedChunk: Sendable {
  let offset: Int64
  let totalSize: Int64
  let data: Bytes
  let md5: String?
  /// What the message says of the whole file.
  var declaration: Declaration
  let hasMeta: Bool
  let isLast: Bool
  let resumeOffset: Int64?

  init(_ chunk: FileTransferV1.FileChunk) throws {
    offset = chunk.offset
    totalSize = chunk.totalSize
    data = chunk.data
    md5 = try Self.digest(chunk.chunkMD5, .md5, of: "chunk_md5")
    hasMeta = chunk.meta != nil
    isLast = chunk.isLast
    resumeOffset = chunk.meta?.resumeOffset
    declaration = try chunk.meta.map { try Declaration($0) } ?? Declaration()
    guard totalSize >= 0 else { throw Status(.invalidArgument, "The total size is negative.") }
    if totalSize > 0 {
      if let size = declaration.size, size != totalSize {
        throw Status(.failedPrecondition, "The chunk says \(totalSize) bytes in total, and its meta \(size).")
      }
      declaration.size = totalSize
    }
    if declaration.size == nil, chunk.isLast, offset == 0, data.isEmpty { declaration.size = 0 }
  }

  /// Before anything is recorded: a first chunk that can't be right must not fix the size of the file.
  func checkAsFirst() throws {
    guard let size = declaration.size else { return }
    try Upload.checkSize(size)
    var probe = Upload(size: size, now: 0)
    let arrival = probe.arrived(.init(offset: offset, length: Int64(data.count), totalSize: totalSize))
    if case .refused(let refusal) = arrival { throw refusal }
  }

  static func digest(_ text: String, _ algorithm: Digest.Algorithm, of field: String) throws(Status) -> String? {
    guard !text.isEmpty else { return nil }
    guard let digest = Digest.normalised(text, algorithm) else {
      throw Status(.invalidArgument, "\(field) is not a digest of \(algorithm.hexLength) hexadecimal digits.")
    }
    return digest
  }
}

extension Declaration {
  /// What a client says of the whole file, checked.
  init(_ meta: FileTransferV1.FileMeta) throws {
    if meta.totalSize < 0 { throw Status(.invalidArgument, "The total size is negative.") }
    size = meta.totalSize > 0 ? meta.totalSize : nil
    name = meta.fileName.isEmpty ? nil : try FileName(lastComponentOf: meta.fileName).text
    md5 = try CheckedChunk.digest(meta.fileMD5, .md5, of: "file_md5")
    sha256 = try CheckedChunk.digest(meta.sha256, .sha256, of: "sha256")
    job = meta.job.map { $0.serialized() }
  }
}
