import Bytes
import FileStore
import GRPC
import Glibc
import Kafka
import Protobuf
import Reactor
import Routing
import Schema
import TestSupport
import Testing

/// The uploader as a process, with a Redis and a Kafka of its own.
@Suite(.timeLimit(.minutes(2))) struct ProgramTests {
  final class Cluster: Sendable {
    let place: Place
    let broker: Broker

    init() throws {
      place = try Place()
      broker = try Broker(topics: ["client-push:2", "client-broadcast:1"])
    }

    func start() throws -> Program {
      let (port, admin) = (freePort(), freePort())
      let process = try ServerProcess(
        "\(builtProducts())/uploader",
        [
          "--listen", "127.0.0.1:\(port)", "--redis", place.redis.address, "--store", place.store, "--log-level",
          "warning",
        ],
        environment: ["FLEETPUSH_ADMIN": "127.0.0.1:\(admin)", "FLEETPUSH_KAFKA": broker.bootstrap])
      return Program(process: process, endpoint: HostPort(host: "127.0.0.1", port: port))
    }
  }

  struct Program: Sendable {
    let process: ServerProcess
    let endpoint: HostPort

    /// A channel to it, when it serves.
    func connect(on loop: EventLoop) async throws -> Channel {
      while true {
        let channel = Channel(loop: loop, target: endpoint)
        do {
          try await channel.connect()
          return channel
        } catch {
          channel.close()
          try await loop.sleep(for: .milliseconds(20))
        }
      }
    }
  }

  @Test func aNoticeReachesEveryGateway() async throws {
    let cluster = try Cluster()
    try await cluster.place.run { place in
      let program = try cluster.start()
      let consumer = try KafkaConsumer(KafkaConnection(bootstrap: cluster.broker.bootstrap), loop: place.loop)
      var records: [PushRecord] = []
      consumer.onRecords = { batch in
        for record in batch { if let record = try? PushRecord(encoded: record.value) { records.append(record) } }
      }
      try await consumer.assign(topic: "client-broadcast", partition: 0, from: .beginning)
      let channel = try await program.connect(on: place.loop)
      let content = Content("announced-\(getpid())-\(freePort())", 3_000_000)
      let call = try await FileTransferV1.FileTransferServiceClient(channel).upload()
      for chunk in content.chunks(of: 1_000_000) { try await call.send(chunk) }
      #expect(try await call.finish().md5 == content.md5)
      func mine() -> PushRecord? { records.first { $0.messageID == "file/\(content.id)" } }
      while mine() == nil { try await place.loop.sleep(for: .milliseconds(10)) }
      #expect(mine()?.target == .channel("files"))
      let message = try PushV1.ServerMessage(serialized: mine()?.message ?? Bytes())
      #expect(
        message.payload
          == .fileNotice(
            .init(
              fileName: content.id, fileSize: 3_000_000, fileID: content.id, md5: content.md5)))
      await consumer.close()
      channel.close()
      #expect(program.process.stop() == 0)
    }
  }

  @Test func killedInTheMiddleAnotherGoesOn() async throws {
    let cluster = try Cluster()
    try await cluster.place.run { place in
      let content = Content("survivor", 48_000_000)
      let chunks = content.chunks(of: 1_000_000)
      let first = try cluster.start()
      let channel = try await first.connect(on: place.loop)
      let client = FileTransferV1.FileTransferServiceClient(channel)
      let call = try await client.upload()
      for chunk in chunks.prefix(40) { try await call.send(chunk) }
      while try await client.queryUploadedChunks(.init(fileID: content.id)).offsets.count < 10 {
        try await place.loop.sleep(for: .milliseconds(10))
      }
      #expect(first.process.kill() == 128 + SIGKILL)
      channel.close()

      let second = try cluster.start()
      let other = try await second.connect(on: place.loop)
      let files = FileTransferV1.FileTransferServiceClient(other)
      let known = try await files.queryUploadedChunks(.init(fileID: content.id))
      #expect(known.offsets.count >= 10)
      let rest = try await files.upload()
      for chunk in chunks where !known.offsets.contains(chunk.offset) { try await rest.send(chunk) }
      #expect(try await rest.finish().md5 == content.md5)
      #expect(try await files.checkFileIntegrity(.init(fileID: content.id, clientMD5: content.md5)).match)
      other.close()
      #expect(second.process.stop() == 0)
    }
  }

  @Test func usageIsExplained() throws {
    #expect(try ServerProcess("\(builtProducts())/uploader", ["--help"]).wait() == 0)
    #expect(try ServerProcess("\(builtProducts())/uploader", ["--nonsense"]).wait() == 64)
  }
}
