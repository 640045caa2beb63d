import Bytes
import GRPC
import Protobuf
import Schema
import Testing

/// What other people's clients rely on: names, numbers and types that the contract fixes.
@Suite struct ContractTests {
  private func hex(_ bytes: Bytes) -> String {
    bytes.array.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }

  /// Each field has a value of its own, so that a number that moved is seen.
  @Test func fieldNumbersOfPushStand() {
    let register = PushV1.ClientMessage(payload: .register(.init(clientID: "a")))
    #expect(hex(register.serialized()) == "0a030a0161")
    let heartbeat = PushV1.ClientMessage(payload: .heartbeat(.init(clientID: "a", timestamp: 5)))
    #expect(hex(heartbeat.serialized()) == "12050a01611005")
    let reconnect = PushV1.ClientMessage(payload: .reconnect(.init(clientID: "a", lastSessionID: "b")))
    #expect(hex(reconnect.serialized()) == "1a060a0161120162")
    #expect(hex(PushV1.ServerMessage(payload: .text(.init(content: "a"))).serialized()) == "0a030a0161")
    let notice = PushV1.FileNotice(fileName: "a", fileSize: 5, fileID: "b")
    #expect(hex(PushV1.ServerMessage(payload: .fileNotice(notice)).serialized()) == "12080a016110051a0162")
    let event = PushV1.NotifyEvent(type: "a", details: "b")
    #expect(hex(PushV1.ServerMessage(payload: .event(event)).serialized()) == "1a060a0161120162")
    #expect(hex(PushV1.PushRequest(clientID: "a", message: "b").serialized()) == "0a0161120162")
    #expect(hex(PushV1.PushResponse(success: true, error: "b").serialized()) == "0801120162")
  }

  @Test func fieldNumbersOfFilesStand() {
    #expect(hex(PushV1.FileRequest(fileID: "a").serialized()) == "0a0161")
    let chunk = PushV1.FileChunk(content: Bytes("a"), sequence: 5, isLast: true)
    #expect(hex(chunk.serialized()) == "0a016110051801")
    let query = PushV1.QueryDownloadRequest(fileName: "a", sessionID: "b")
    #expect(hex(query.serialized()) == "0a0161120162")
    let status = PushV1.DownloadStatus(hasBreakpoint: true, resumeOffset: 2, fileSize: 3)
    #expect(hex(status.serialized()) == "080110021803")
  }

  @Test func fieldNumbersOfUploadsStand() {
    typealias V1 = FileTransferV1
    let chunk = V1.FileChunk(fileID: "a", offset: 2, totalSize: 3, data: Bytes("b"), chunkMD5: "c", isLast: true)
    #expect(hex(chunk.serialized()) == "0a0161100218032201622a01633001")
    let meta = V1.FileMeta(fileName: "a", totalSize: 2, fileMD5: "b", resumeOffset: 4)
    #expect(hex(meta.serialized()) == "0a016110021a01622004")
    #expect(hex(V1.FileIdentifier(fileID: "a", fileName: "b").serialized()) == "0a0161120162")
    #expect(hex(V1.UploadedChunks(offsets: [1, 2]).serialized()) == "0a020102")
    #expect(hex(V1.UploadStatus(success: true, message: "a").serialized()) == "0801120161")
    let integrity = V1.FileIntegrityStatus(match: true, serverMD5: "a", clientMD5: "b", message: "c")
    #expect(hex(integrity.serialized()) == "08011201611a0162220163")
    #expect(hex(V1.ChunkInfo(chunkIndex: 1, chunkMD5: "a", chunkOffset: 3).serialized()) == "08011201611803")
    #expect(hex(V1.QueryUploadRequest(fileMD5: "a").serialized()) == "0a0161")
    let breakpoint = V1.UploadBreakpoint(
      hasBreakpoint: true, resumeOffset: 2, uploadedChunks: [.init(chunkIndex: 1)], lastUpdateTime: 4)
    #expect(hex(breakpoint.serialized()) == "080110021a0208012004")
  }

  @Test func fieldNumbersOfChannelsStand() {
    let frame = BroadcastV1.Frame(
      seqNo: 1, buffer: Bytes("a"), timestamp: 3, channel: "b", id: "c", late: true)
    #expect(hex(frame.serialized()) == "080112016118032201622a01633001")
    #expect(hex(BroadcastV1.SubscribeRequest(replaySeqNoStart: 1, channel: "b").serialized()) == "0801120162")
  }

  @Test func methodsHaveTheirPathsAndKinds() {
    #expect(PushV1.PushService.connect.path == "/push.v1.PushService/Connect")
    #expect(PushV1.PushService.connect.kind == .bidirectional)
    #expect(PushV1.PushService.pushToClient.kind == .unary)
    #expect(PushV1.FileService.downloadFile.kind == .serverStreaming)
    #expect(FileTransferV1.FileTransferService.upload.path == "/filetransfer.v1.FileTransferService/Upload")
    #expect(FileTransferV1.FileTransferService.upload.kind == .clientStreaming)
    #expect(GRPCHealthV1.Health.check.path == "/grpc.health.v1.Health/Check")
    let reflection = GRPCReflectionV1.ServerReflection.serverReflectionInfo
    #expect(reflection.path == "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
  }
}

@Suite struct DescriptorTests {
  private let files = SchemaDescriptors.files

  @Test func everyFileComesAfterWhatItImports() {
    var seen: Set<String> = []
    for file in files {
      #expect(seen.isSuperset(of: file.dependencies), "\(file.name)")
      #expect(seen.insert(file.name).inserted)
    }
    #expect(seen.isSuperset(of: ["push/v1/push.proto", "filetransfer/v1/filetransfer.proto"]))
  }

  /// A FileDescriptorProto begins with its name (field 1) and its package (field 2).
  @Test func everyDescriptorNamesItsFile() throws {
    for file in files {
      let descriptor = try file.descriptor()
      var reader = WireReader(descriptor)
      #expect(try reader.tag() == 10)
      #expect(try StringField.read(&reader) == file.name)
      while let tag = try reader.tag() {
        // Comments and positions stay out (field 9).
        #expect(tag >> 3 != 9)
        try reader.skip(tag)
      }
      withExtendedLifetime(descriptor) {}
    }
  }

  @Test func symbolsAreUniqueAndComplete() {
    let symbols = files.flatMap(\.symbols)
    #expect(Set(symbols).count == symbols.count)
    for symbol in [
      "push.v1.JobTarget.State", "push.v1.JobService", "push.v1.JobService.Watch", "push.v1.QoS",
      "filetransfer.v1.UploadEvent.Durable", "grpc.health.v1.Health.Check",
    ] {
      #expect(symbols.contains(symbol), "\(symbol)")
    }
    #expect(files.flatMap(\.services).contains("broadcast.v1.BroadcastService"))
    #expect(!symbols.contains { $0.hasSuffix("TagsEntry") })
  }
}
