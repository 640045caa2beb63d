internal import Bytes
public import FileStore
public import GRPC
public import Reactor
public import Redis
public import Schema
public import Telemetry

/// Answers `push.v1.FileService` from the shared directory. Confined to the gateway's loop.
///
/// Only a file with a sidecar is served: it is whole, verified, and stands under its final name. All that touches the
/// disk runs on a pool; while one piece is sent the next is read, and a slow reader holds no more than two pieces.
public final class DownloadHandler: PushV1.FileServiceHandler {
  private let loop: EventLoop
  private let store: StoreDirectory
  private let pool: BlockingPool
  private let records: DownloadRecords
  private let limits: DownloadLimits
  private let metrics: DownloadMetrics
  private var active = 0

  public init(
    loop: EventLoop, store: StoreDirectory, redis: RedisClient, limits: DownloadLimits = DownloadLimits(),
    log: Logger, registry: MetricsRegistry
  ) {
    self.loop = loop
    self.store = store
    self.limits = limits
    pool = BlockingPool(threads: limits.readers, name: "read")
    records = DownloadRecords(redis: redis, lifetime: limits.recordLifetime, log: log)
    metrics = DownloadMetrics(registry)
  }

  public func downloadFile(
    _ request: PushV1.FileRequest, _ responses: ResponseWriter<PushV1.FileChunk>, _ context: ServerContext
  ) async throws {
    guard active < limits.downloads else {
      throw Status(
        .resourceExhausted, "\(active) downloads are under way here, as many as there may be.",
        retryAfter: limits.retryAfter)
    }
    active += 1
    metrics.active.set(active)
    defer {
      active -= 1
      metrics.active.set(active)
    }
    let id = try Self.fileID(request.fileID)
    let session = try DownloadSession(request.sessionID)
    let (file, sidecar) = try await open(id)
    let range = try Self.range(of: request, size: sidecar.size)
    context.initialMetadata.append("x-session-id", session.text)
    responses.sendHeaders()
    let progress = await progress(id, session, sidecar, from: range.lowerBound)
    do {
      try await send(range, of: file, in: limits.chunkBytes(asked: request.chunkBytes), responses, progress)
      progress?.ended()
    } catch {
      progress?.broke()
      throw Self.status(error)
    }
  }

  /// The record to move: it tells of a prefix without holes, so a download that begins above what was recorded before (a
  /// block of its own, or one that follows a record which has expired) leaves it alone.
  private func progress(
    _ id: FileID, _ session: DownloadSession, _ sidecar: Sidecar, from start: Int64
  ) async -> DownloadProgress? {
    var floor: Int64 = 0
    if start > 0 {
      guard let record = try? await records.load(id, session), record.offset >= start else { return nil }
      floor = record.offset
    }
    return DownloadProgress(id, session, size: sidecar.size, start: start, floor: floor, records, limits)
  }

  /// Reads a piece ahead of what is being sent.
  private func send(
    _ range: Range<Int64>, of file: StoreFile, in chunkBytes: Int, _ responses: ResponseWriter<PushV1.FileChunk>,
    _ progress: DownloadProgress?
  ) async throws {
    file.adviseSequential()
    let reader = PieceReader(file: file, pool: pool, end: range.upperBound, length: Int64(limits.readAheadBytes))
    var sequence: Int32 = 0
    var position = range.lowerBound
    var piece = try await reader.piece(at: position)
    repeat {
      let start = position + Int64(piece.count)
      async let next = reader.piece(at: start)
      var offset = 0
      repeat {
        let content = piece[offset..<min(offset + chunkBytes, piece.count)]
        let end = position + Int64(offset + content.count)
        let chunk = PushV1.FileChunk(
          content: content, sequence: sequence, isLast: end == range.upperBound,
          offset: position + Int64(offset))
        try await responses.write(chunk)
        sequence = sequence == .max ? 0 : sequence + 1
        offset += content.count
        metrics.sentBytes.increment(by: content.count)
        progress?.sent(upTo: end)
      } while offset < piece.count
      position = start
      piece = try await next
    } while position < range.upperBound
  }

  public func statFile(_ request: PushV1.StatFileRequest, _ context: ServerContext) async throws -> PushV1.FileStat {
    let id = try Self.fileID(request.fileID)
    let (_, sidecar) = try await open(id)
    return PushV1.FileStat(
      fileID: id.text, fileName: sidecar.name, fileSize: sidecar.size, md5: sidecar.md5, sha256: sidecar.sha256 ?? "",
      blockSize: sidecar.blockSize, blockMD5s: sidecar.blockMD5s, publishedAtMs: sidecar.publishedAt)
  }

  public func queryDownloadStatus(
    _ request: PushV1.QueryDownloadRequest, _ context: ServerContext
  ) async throws -> PushV1.DownloadStatus {
    let id = try Self.fileID(request.fileID.isEmpty ? request.fileName : request.fileID)
    guard !request.sessionID.isEmpty else {
      throw Status(.invalidArgument, "The session id is empty; it came with the download's initial metadata.")
    }
    let session = try DownloadSession(request.sessionID)
    guard let record = try await records.load(id, session) else { return PushV1.DownloadStatus() }
    do {
      let (_, sidecar) = try await open(id)
      guard sidecar.size == record.size else { throw Status(.failedPrecondition, "The file has changed.") }
    } catch {
      records.remove(id, session)
      throw error
    }
    return PushV1.DownloadStatus(hasBreakpoint: true, resumeOffset: record.offset, fileSize: record.size)
  }

  // MARK: Checks

  private func open(_ id: FileID) async throws -> (StoreFile, Sidecar) {
    do {
      return try await pool.run { [store] in try store.open(id) }
    } catch {
      throw Self.status(error)
    }
  }

  private static func fileID(_ text: String) throws -> FileID {
    do throws(FileStoreError) { return try FileID(text) } catch { throw status(error) }
  }

  private static func range(of request: PushV1.FileRequest, size: Int64) throws -> Range<Int64> {
    guard request.offset >= 0, request.length >= 0 else {
      throw Status(.invalidArgument, "An offset and a length can't be negative.")
    }
    guard request.offset <= size else {
      throw Status(.invalidArgument, "The offset \(request.offset) is past the file's size of \(size).")
    }
    let rest = size - request.offset
    return request.offset..<(request.offset + (request.length == 0 ? rest : min(rest, request.length)))
  }

  private static func status(_ error: any Error) -> Status {
    guard let error = error as? FileStoreError else { return Status(error) }
    return switch error.code {
    case .invalid: Status(.invalidArgument, error.message)
    case .notFound: Status(.notFound, "There is no file with this id.")
    case .corrupt: Status(.dataLoss, error.message)
    case .exists, .full, .io: Status(.unavailable, error.message, retryAfter: .seconds(1))
    }
  }
}

/// Reads a file in pieces on a pool.
private struct PieceReader: Sendable {
  let file: StoreFile
  let pool: BlockingPool
  /// Where reading ends, at the file's end at most.
  let end: Int64
  /// Of a piece, but for the last.
  let length: Int64

  /// The bytes from `start` on; none at the end.
  @concurrent
  func piece(at start: Int64) async throws -> Bytes {
    guard start < end else { return Bytes() }
    let count = Int(min(end - start, length))
    let bytes = try await pool.run { try file.read(at: start, length: count) }
    guard bytes.count == count else {
      throw FileStoreError(.corrupt, "The file ends at \(start + Int64(bytes.count)) on the disk.")
    }
    return bytes
  }
}
