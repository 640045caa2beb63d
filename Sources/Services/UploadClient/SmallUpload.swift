internal import Bytes
internal import FileStore
internal import GRPC
internal import Reactor
internal import Schema

/// Files of one chunk, each one message of a call of its own: many calls at a time on one connection to each uploader.
/// Belongs to its loop.
final class SmallUploads {
  private let loop: EventLoop
  private let options: UploadOptions
  private let addresses: [HostPort]
  private var channels: [HostPort: Channel] = [:]
  private var failure: UploadError?

  init(_ addresses: [HostPort], options: UploadOptions, loop: EventLoop) {
    self.addresses = addresses
    self.options = options
    self.loop = loop
  }

  func close() {
    for channel in channels.values { channel.close() }
    channels = [:]
  }

  /// Ends every file under way, and those that come.
  func stop() {
    failure = .stopped
    close()
  }

  func run(_ source: SourceFile, id: FileID?, progress: (UploadProgress) -> Void) async throws -> UploadResult {
    let began = loop.now
    let id = try id ?? FileID(source.derivedID)
    let content = try await BlockingPool.shared.run { try SmallContent(source) }
    let message = FileTransferV1.FileChunk(
      fileID: id.text, totalSize: source.size, data: content.data, chunkMD5: content.md5, isLast: true,
      meta: .init(
        fileName: source.name, totalSize: source.size, fileMD5: content.md5, sessionID: source.derivedSession))
    let status = try await send(message, of: source)
    if !status.md5.isEmpty, status.md5 != content.md5 {
      throw UploadError(.mismatch, "the server's file has MD5 \(status.md5), and \(source.path) has \(content.md5)")
    }
    var all = UploadProgress(total: source.size)
    (all.sent, all.received, all.durable) = (source.size, source.size, source.size)
    progress(all)
    return UploadResult(
      fileID: id.text, name: source.name, size: source.size, md5: content.md5, bytesSent: source.size, bytesKnown: 0,
      duration: .nanoseconds(loop.now - began))
  }

  private func send(
    _ message: FileTransferV1.FileChunk, of source: SourceFile
  ) async throws -> FileTransferV1.UploadStatus {
    var choice = UploaderChoice(addresses, for: message.fileID)
    var schedule = RetrySchedule(options)
    while true {
      if let failure { throw failure }
      let address = choice.current
      var reason: any Error
      do {
        let status = try await attempt(message, at: address)
        if status.success { return status }
        // What a dead uploader took with it is sent again.
        reason = Status(.unavailable, status.message)
      } catch { reason = error }
      if let failure { throw failure }
      if let error = UploadError(mismatch: reason) { reason = error }
      let pause: Duration?
      switch Setback(reason, now: EventLoop.wallClockMilliseconds()) {
      case .final(let error): throw error
      case .crowded: pause = options.firstPause
      case .passing(let after): pause = after
      }
      choice.leave(address)
      switch schedule.failed(now: EventLoop.monotonicNanoseconds(), askedFor: pause) {
      case .giveUp:
        throw UploadError(.unreachable, "no uploader takes \(source.path): \(Status(reason).message)")
      case .wait(let nanoseconds): try await loop.sleep(for: .nanoseconds(nanoseconds))
      }
    }
  }

  private func attempt(
    _ message: FileTransferV1.FileChunk, at address: HostPort
  ) async throws -> FileTransferV1.UploadStatus {
    let channel = channels[address] ?? Channel(loop: loop, target: address, options: .uploads)
    channels[address] = channel
    let call = try await FileTransferV1.FileTransferServiceClient(channel).upload(
      options: .routed(by: message.fileID, timeout: options.stallLimit))
    try await call.send(message)
    return try await call.finish()
  }
}

/// All of a small file.
private struct SmallContent: Sendable {
  let data: Bytes
  let md5: String

  init(_ source: SourceFile) throws {
    data = try source.read(0..<source.size)
    try source.checkUnchanged()
    md5 = Digest.hex(of: data, .md5)
  }
}
