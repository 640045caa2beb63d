internal import Bytes
internal import FileStore
internal import GRPC
internal import Reactor
internal import Schema

/// Sends one file to an uploader and goes on at the next one when it breaks. Belongs to its loop.
final class Uploader {
  /// The length of a chunk, which is hashed and acknowledged as one.
  static let chunkBytes = 1 << 20

  private let loop: EventLoop
  private let servers: Servers
  private let fileID: String
  private let source: SourceFile
  private let progress: (UploadPhase, Int64) -> Void

  enum UploadPhase: Sendable {
    case sending, verifying
  }

  /// - Parameter progress: the bytes that the server has, or has checked.
  init(
    loop: EventLoop, servers: Servers, fileID: String, source: SourceFile,
    progress: @escaping (UploadPhase, Int64) -> Void
  ) {
    self.loop = loop
    self.servers = servers
    self.fileID = fileID
    self.source = source
    self.progress = progress
  }

  /// Uploads what isn't there yet.
  ///
  /// - Returns: the server's answer, which says success.
  /// - Throws: `Status` or `ControlError`.
  func run() async throws -> FileTransferV1.UploadStatus {
    try await servers.call { channel in
      let client = FileTransferV1.FileTransferServiceClient(channel)
      let known = try await client.queryUploadedChunks(.init(fileID: fileID))
      let status = try await transfer(client, skipping: Self.ranges(known))
      guard status.success else { throw ControlError(.refused, status.message) }
      return status
    }
  }

  private static func ranges(_ known: FileTransferV1.UploadedChunks) -> ByteRanges {
    ByteRanges(zip(known.offsets, known.lengths).map { $0..<($0 + max(0, $1)) })
  }

  private func transfer(
    _ client: FileTransferV1.FileTransferServiceClient, skipping known: ByteRanges
  ) async throws -> FileTransferV1.UploadStatus {
    let call = try await client.transfer()
    // The sender's own trouble (a file that can't be read) ends the call, and is then told instead of its status.
    let trouble = Trouble()
    loop.spawn {
      do {
        try await self.send(on: call, skipping: known)
        call.finishSending()
      } catch {
        trouble.error = error
        if error is ControlError { call.cancel() }
      }
    }
    do {
      while let event = try await call.next() {
        switch event.event {
        case .received(let received): progress(.sending, received.bytes)
        case .durable: break
        case .verifying(let verifying): progress(.verifying, verifying.bytes)
        case .done(let status): return status
        case nil: break
        }
      }
    } catch {
      throw trouble.error as? ControlError ?? error
    }
    throw Status(.unavailable, "the uploader ended the call without a result")
  }

  private final class Trouble {
    var error: (any Error)?
  }

  /// Reads the whole file for its MD5, and sends the chunks that aren't there. The digest goes with the last message, so
  /// that one pass is enough.
  private func send(
    on call: BidirectionalCall<FileTransferV1.FileChunk, FileTransferV1.UploadEvent>, skipping known: ByteRanges
  ) async throws {
    let (source, size) = (self.source, self.source.size)
    _ = source.finishDigest()
    var meta = FileTransferV1.FileMeta(fileName: source.name, totalSize: size)
    try await call.send(.init(fileID: fileID, totalSize: size, isLast: size == 0, meta: meta))
    var offset: Int64 = 0
    while offset < size {
      let (at, length) = (offset, Int(min(Int64(Self.chunkBytes), size - offset)))
      let (data, md5) = try await BlockingPool.shared.run { try source.chunk(at: at, length: length) }
      offset += Int64(length)
      guard !known.contains(at..<offset) else { continue }
      try await call.send(
        .init(fileID: fileID, offset: at, totalSize: size, data: data, chunkMD5: md5, isLast: offset == size))
    }
    meta.fileMD5 = source.finishDigest()
    try await call.send(.init(fileID: fileID, offset: size, totalSize: size, isLast: true, meta: meta))
  }
}
