internal import Bytes
internal import GRPC
internal import HTTP2
internal import Reactor
internal import Schema

/// One stream of chunks on a connection of its own. Belongs to its loop.
///
/// The leader of a file's streams is a `Transfer`, on which the server tells how far things are; the others are plain
/// `Upload`s. Both answer at their end with the status of the file.
final class UploadStream {
  /// Of `FileChunk.data`.
  private static let dataField = 4

  let address: HostPort
  private let loop: EventLoop
  private let channel: Channel
  private let call: Call
  /// Since when the server has had the word, in monotonic nanoseconds; nil while nobody waits for it.
  private(set) var waitingSince: Int64?
  private var answer: Result<FileTransferV1.UploadStatus, any Error>?
  private let changes = Changes()

  private enum Call {
    case told(BidirectionalCall<FileTransferV1.FileChunk, FileTransferV1.UploadEvent>)
    case plain(ClientStreamingCall<FileTransferV1.FileChunk, FileTransferV1.UploadStatus>)
  }

  private init(_ address: HostPort, loop: EventLoop, channel: Channel, call: Call) {
    self.address = address
    self.loop = loop
    self.channel = channel
    self.call = call
  }

  /// Connects and opens the stream with its first message.
  ///
  /// - Parameters:
  ///   - first: names the file and says its size.
  ///   - told: gets the events of a leader; nil for another stream.
  static func open(
    to address: HostPort, loop: EventLoop, first: FileTransferV1.FileChunk,
    told: ((FileTransferV1.UploadEvent.Event) -> Void)?
  ) async throws -> UploadStream {
    let channel = Channel(loop: loop, target: address, options: .uploads)
    do {
      try await channel.connect()
      let client = FileTransferV1.FileTransferServiceClient(channel)
      let options = CallOptions.routed(by: first.fileID)
      let stream: UploadStream
      if let told {
        let call = try await client.transfer(options: options)
        stream = UploadStream(address, loop: loop, channel: channel, call: .told(call))
        loop.spawn { await stream.listen(call, told) }
      } else {
        let call = try await client.upload(options: options)
        stream = UploadStream(address, loop: loop, channel: channel, call: .plain(call))
      }
      try await stream.send(first)
      return stream
    } catch {
      channel.close()
      throw error
    }
  }

  func send(_ chunk: FileTransferV1.FileChunk) async throws {
    waitingSince = loop.now
    defer { waitingSince = nil }
    var head = chunk
    head.data = Bytes()
    switch call {
    case .told(let call): try await call.send(head, field: Self.dataField, chunk.data)
    case .plain(let call): try await call.send(head, field: Self.dataField, chunk.data)
    }
  }

  /// Says that this was all, and gives the server's answer.
  func finish() async throws -> FileTransferV1.UploadStatus {
    waitingSince = loop.now
    defer { waitingSince = nil }
    switch call {
    case .plain(let call): return try await call.finish()
    case .told(let call):
      call.finishSending()
      while true {
        if let answer { return try answer.get() }
        await changes.next()
      }
    }
  }

  private func listen(
    _ call: BidirectionalCall<FileTransferV1.FileChunk, FileTransferV1.UploadEvent>,
    _ told: (FileTransferV1.UploadEvent.Event) -> Void
  ) async {
    do {
      while let message = try await call.next() {
        if waitingSince != nil { waitingSince = loop.now }
        switch message.event {
        case .done(let status): answer = .success(status)
        case let event?: told(event)
        case nil: break
        }
      }
      if answer == nil { answer = .failure(Status(.unavailable, "the uploader ended the call without a result")) }
    } catch {
      if answer == nil { answer = .failure(error) }
    }
    changes.signal()
  }

  /// Ends the stream and its connection; what is under way on it fails with UNAVAILABLE.
  func close() { channel.close() }
}

extension ChannelOptions {
  static let uploads: ChannelOptions = {
    var options = ChannelOptions()
    options.connectTimeout = UploadOptions.connectTimeout
    // A host that is gone says nothing: it is found out in ten seconds.
    options.http2.keepaliveInterval = .seconds(5)
    options.http2.keepaliveTimeout = .seconds(5)
    return options
  }()
}

extension CallOptions {
  /// The field by which a proxy in front keeps all streams of a file on one node.
  static let routingField = "x-file-id"

  static func routed(by fileID: String, timeout: Duration? = nil) -> CallOptions {
    CallOptions(timeout: timeout, metadata: [routingField: fileID])
  }
}
