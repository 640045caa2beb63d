internal import GRPC
internal import Protobuf
internal import Reactor
internal import Schema

/// A stream that is passed on to the node that writes its file: chunk by chunk, with the credit of the far side, and with its
/// answers, status and trailers.
struct RelayedStream {
  /// Marks a call that an uploader has passed on: it isn't passed on again.
  static let mark = "fleetpush-relayed"

  let channel: Channel
  let requests: RequestStream<FileTransferV1.FileChunk>
  let context: ServerContext

  static func isRelayed(_ context: ServerContext) -> Bool { context.metadata[mark] != nil }

  private var options: CallOptions {
    var metadata = context.metadata
    metadata.append(Self.mark, "1")
    let rest = context.deadline.map { Duration.nanoseconds(max(1, $0 - context.loop.now)) }
    return CallOptions(timeout: rest, metadata: metadata)
  }

  /// - Parameter first: what was read to find the file.
  func upload(_ first: FileTransferV1.FileChunk) async throws -> FileTransferV1.UploadStatus {
    let call = try await FileTransferV1.FileTransferServiceClient(channel).upload(options: options)
    context.onCancel { call.cancel() }
    defer { context.trailers = call.trailers }
    try await call.send(first)
    while let chunk = try await requests.next() { try await call.send(chunk) }
    return try await call.finish()
  }

  func transfer(
    _ first: FileTransferV1.FileChunk, _ responses: ResponseWriter<FileTransferV1.UploadEvent>
  ) async throws {
    let call = try await FileTransferV1.FileTransferServiceClient(channel).transfer(options: options)
    context.onCancel { call.cancel() }
    defer { context.trailers = call.trailers }
    let requests = self.requests
    context.loop.spawn {
      do {
        try await call.send(first)
        while let chunk = try await requests.next() { try await call.send(chunk) }
        call.finishSending()
      } catch {
        // The far side's status is what the other story throws; without one (the client has gone) it is cancelled.
        call.cancel()
      }
    }
    while let event = try await call.next() { try await responses.write(event) }
  }
}
