import Bytes
import Protobuf
import Schema

/// The first byte chooses the message, the rest is decoded. What is taken is written and read again: the same comes out.
func fuzzProtobuf(_ input: UnsafeRawBufferPointer) {
  guard let first = input.first else { return }
  let bytes = Bytes(copying: UnsafeRawBufferPointer(rebasing: input.dropFirst()))
  messages[Int(first) % messages.count].roundTrip(bytes)
}

extension Message {
  fileprivate static func roundTrip(_ bytes: Bytes) {
    guard let message = try? Self(serialized: bytes) else { return }
    let written = message.serialized()
    require(written.count == message.encodedSize, "\(fullName): encodedSize is not what is written")
    guard let again = try? Self(serialized: written) else {
      return require(false, "\(fullName): what was written is not taken")
    }
    require(again == message, "\(fullName): another value comes back")
    require(again.serialized() == written, "\(fullName): other bytes come back")
    // Parts that follow each other are merged, as one message is with itself.
    var merged = message
    require((try? merged.merge(serialized: written)) != nil, "\(fullName): can't be merged with itself")
  }
}

/// Every message of Protos/. New ones go to the end: the corpus names them by their place.
private let messages: [any Message.Type] = [
  BroadcastV1.Frame.self, BroadcastV1.PublishResponse.self, BroadcastV1.SubscribeRequest.self,
  BroadcastV1.GapCertificate.self, FileTransferV1.FileChunk.self, FileTransferV1.FileMeta.self,
  FileTransferV1.FileIdentifier.self, FileTransferV1.ByteRange.self, FileTransferV1.UploadedChunks.self,
  FileTransferV1.UploadStatus.self, FileTransferV1.FileIntegrityStatus.self, FileTransferV1.ChunkInfo.self,
  FileTransferV1.QueryUploadRequest.self, FileTransferV1.UploadBreakpoint.self, FileTransferV1.UploadEvent.self,
  FileTransferV1.UploadEvent.Received.self, FileTransferV1.UploadEvent.Durable.self,
  FileTransferV1.UploadEvent.Verifying.self, FileTransferV1.PublishedFile.self,
  GRPCHealthV1.HealthCheckRequest.self, GRPCHealthV1.HealthCheckResponse.self,
  GRPCReflectionV1.ServerReflectionRequest.self, GRPCReflectionV1.ExtensionRequest.self,
  GRPCReflectionV1.ServerReflectionResponse.self, GRPCReflectionV1.FileDescriptorResponse.self,
  GRPCReflectionV1.ExtensionNumberResponse.self, GRPCReflectionV1.ListServiceResponse.self,
  GRPCReflectionV1.ServiceResponse.self, GRPCReflectionV1.ErrorResponse.self, InternalV1.PushRecord.self,
  PushV1.FileRequest.self, PushV1.FileChunk.self, PushV1.StatFileRequest.self, PushV1.FileStat.self,
  PushV1.QueryDownloadRequest.self, PushV1.DownloadStatus.self, PushV1.Targets.self, PushV1.Job.self,
  PushV1.SubmitRequest.self, PushV1.SubmitResponse.self, PushV1.GetJobRequest.self, PushV1.WatchJobRequest.self,
  PushV1.CancelJobRequest.self, PushV1.ListJobsRequest.self, PushV1.ListJobsResponse.self, PushV1.JobStatus.self,
  PushV1.StateCount.self, PushV1.JobTarget.self, PushV1.ListClientsRequest.self, PushV1.ListClientsResponse.self,
  PushV1.ClientInfo.self, PushV1.ListNodesRequest.self, PushV1.ListNodesResponse.self, PushV1.NodeInfo.self,
  PushV1.ClientMessage.self, PushV1.RegisterRequest.self, PushV1.Heartbeat.self, PushV1.ReconnectRequest.self,
  PushV1.Position.self, PushV1.Acknowledgement.self, PushV1.FileStatus.self, PushV1.ServerMessage.self,
  PushV1.TextMessage.self, PushV1.FileNotice.self, PushV1.NotifyEvent.self, PushV1.Registered.self,
  PushV1.HeartbeatReply.self, PushV1.GoAway.self, PushV1.PushRequest.self, PushV1.PushResponse.self,
]
