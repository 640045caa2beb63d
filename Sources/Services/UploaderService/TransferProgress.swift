internal import FileStore
internal import GRPC
internal import Reactor
internal import Schema

/// Tells the client of a `Transfer` what has moved since the last time. A story beside the stream's own: many changes
/// while one answer waits for credit become one answer.
final class TransferProgress {
  private let upload: ActiveUpload
  private let responses: ResponseWriter<FileTransferV1.UploadEvent>
  private var isStopped = false
  private var isRunning = false
  private let ended = Changes()

  init(_ upload: ActiveUpload, _ responses: ResponseWriter<FileTransferV1.UploadEvent>) {
    self.upload = upload
    self.responses = responses
  }

  func start() {
    isRunning = true
    upload.node.loop.spawn {
      // A client that has gone away ends the stream's own story; here it only ends the telling.
      try? await self.tell()
      self.isRunning = false
      self.ended.signal()
    }
  }

  /// Lets the story end at its next step.
  func stop() {
    guard !isStopped else { return }
    isStopped = true
    upload.changes.signal()
  }

  func stopAndWait() async {
    stop()
    while isRunning { await ended.next() }
  }

  private func tell() async throws {
    var (received, durable, verified) = (Int64(-1), Int64(-1), Int64(-1))
    while !isStopped, upload.ended == nil {
      if upload.receivedBytes != received {
        received = upload.receivedBytes
        try await write(.received(.init(bytes: received)))
      }
      let ranges = upload.state.durable
      if ranges.total != durable {
        durable = ranges.total
        try await write(.durable(.init(bytes: durable, resumeOffset: ranges.contiguousPrefix)))
      }
      if upload.state.phase == .finalising, upload.digested != verified {
        verified = upload.digested
        try await write(.verifying(.init(bytes: verified, totalSize: upload.state.size)))
      }
      if isStopped || upload.ended != nil { return }
      if upload.receivedBytes == received, upload.state.durable.total == durable { await upload.changes.next() }
    }
  }

  private func write(_ event: FileTransferV1.UploadEvent.Event) async throws {
    try await responses.write(FileTransferV1.UploadEvent(event: event))
  }
}
