import Bytes
import FileStore
import Foundation
import GRPC
import Reactor
import Schema
import Testing
import UploadClient

@testable import PushControl

@Suite(.timeLimit(.minutes(1))) struct ControlTests {
  @Test(arguments: [0, 1, 1 << 20, (5 << 20) / 2]) func aFileIsUploadedInOnePass(size: Int) async throws {
    try await scene { _, servers, control, printed in
      try await withFile(size) { path, bytes in
        #expect(await control(.init([servers[0].address])).upload([path], fileID: nil) == 0)
        let report = try printed.json()
        let id = try #require(report["file_id"] as? String)
        #expect(id.count == 32)
        #expect(servers[0].content(id) == bytes)
        #expect(report["md5"] as? String == Digest.hex(of: bytes, .md5))
        #expect(report["size"] as? Int == size)
        let name = report["name"] as? String ?? ""
        #expect(servers[0].metas.map(\.fileName) == Array(repeating: name, count: size > 1 << 20 ? 2 : 1))
        #expect(servers[0].metas.last?.fileMD5 == Digest.hex(of: bytes, .md5))
      }
    }
  }

  @Test func aBrokenUploadGoesOnAtTheNextServer() async throws {
    try await scene { _, servers, control, printed in
      try await withFile(4 << 20) { path, bytes in
        servers[0].breakAfter = 2
        #expect(await control(.init([servers[0].address])).upload([path], fileID: "f1") == 0)
        #expect(servers[0].content("f1") == bytes)
        #expect(servers[0].chunksSent == 4)
        #expect(servers[0].metas.last?.fileMD5 == Digest.hex(of: bytes, .md5))
        #expect(printed.drawn.joined.contains("] 100 %"))
      }
    }
  }

  @Test func severalFilesAreAnArray() async throws {
    try await scene { _, servers, control, printed in
      try await withFile(10) { path, _ in
        #expect(await control(.init([servers[0].address])).upload([path, path], fileID: nil) == 0)
        let value = try JSONSerialization.jsonObject(with: Data(printed.results.joined.utf8))
        #expect((value as? [Any])?.count == 2)
      }
    }
  }

  @Test func aFolderIsUploadedWithATableAndAFailureIsNamed() async throws {
    try await scene(json: false) { _, servers, control, printed in
      try await withFile(10) { path, _ in
        let folder = path + ".d"
        try FileManager.default.createDirectory(atPath: folder + "/below", withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        for name in ["one", "below/two"] { try FileManager.default.copyItem(atPath: path, toPath: "\(folder)/\(name)") }
        let options = ControlOptions([servers[0].address], json: false)
        #expect(await control(options).upload([folder, "/no/such/file"], fileID: nil) == 1)
        let lines = printed.results.joined.split(separator: "\n").map(String.init)
        #expect(lines.count == 5)
        #expect(lines.dropFirst().first?.hasPrefix("\(folder)/below/two ") == true)
        #expect(lines.last?.hasPrefix("2 of 3 files, 20 B in ") == true)
        #expect(lines.last?.hasSuffix(" 1 failed") == true)
        #expect(printed.drawn.joined.contains("pushctl: /no/such/file: No such file or directory\n"))
      }
    }
  }

  @Test func whatCanNotBeReadOrReachedIsSaid() async throws {
    try await scene { _, servers, control, printed in
      #expect(await control(.init([servers[0].address])).upload(["/no/such/file"], fileID: nil) == 1)
      #expect(printed.drawn.joined == "pushctl: /no/such/file: No such file or directory\n")
      #expect(await control(.init([servers[0].address])).upload(["/dev/null"], fileID: nil) == 1)
      #expect(await control(.init([HostPort(host: "127.0.0.1", port: 1)])).nodes() == 1)
      #expect(printed.drawn.joined.contains("pushctl: no gateway can be reached: can't connect to 127.0.0.1:1"))
      #expect(await control(.init([servers[0].address])).status("none", watches: false) == 1)
      #expect(printed.drawn.joined.contains("pushctl: NOT_FOUND: There is no such job.\n"))
      #expect(printed.results.all.isEmpty)
    }
  }

  @Test func theFirstReachableServerIsAsked() async throws {
    try await scene { _, servers, control, printed in
      servers[0].nodes = [.init(nodeID: "gateway-1", address: "g:7", partition: 3, clientCount: 2)]
      let nobody = HostPort(host: "127.0.0.1", port: 1)
      #expect(await control(.init([nobody, servers[0].address])).nodes() == 0)
      let nodes = try printed.json()["nodes"] as? [[String: Any]]
      #expect(nodes?.first?["node_id"] as? String == "gateway-1")
      #expect(nodes?.first?["address"] as? String == "g:7")
    }
  }

  @Test func aPushIsSubmittedOnceWithItsOwnId() async throws {
    try await scene(servers: 2) { _, servers, control, printed in
      servers[0].submitFailures = [Status(.unavailable, "draining")]
      let order = PushOrder(clients: ["a", "b"], payload: .text("hi"))
      #expect(await control(.init(servers.map(\.address))).push(order) == 0)
      let job = try #require(servers[1].jobs.first)
      #expect(servers[0].jobs.isEmpty)
      #expect(job.targets == .init(clientIDs: ["a", "b"]))
      #expect(job.payload == .text(.init(content: "hi")))
      #expect(try printed.json()["job_id"] as? String == job.jobID)
      #expect(job.jobID.count == 32)
    }
  }

  @Test func tagsAreTargets() async throws {
    try await scene { _, servers, control, printed in
      var order = PushOrder(clients: [], tags: ["region": "eu", "model": "x"], payload: .text("hi"), jobID: "j1")
      order.isAtLeastOnce = false
      #expect(await control(.init([servers[0].address])).push(order) == 0)
      #expect(servers[0].jobs.first?.targets == .init(tags: ["region": "eu", "model": "x"]))
      #expect(servers[0].jobs.first?.qos == .atMostOnce)
    }
  }

  @Test func aFileIsUploadedThenPushed() async throws {
    try await scene { _, servers, control, printed in
      try await withFile(100) { path, bytes in
        let order = PushOrder(clients: [], payload: .file(path: path), jobID: "j1")
        #expect(await control(.init([servers[0].address])).push(order) == 0)
        let report = try printed.json()
        let file = try #require(report["file"] as? [String: Any])
        let id = try #require(file["file_id"] as? String)
        #expect(
          servers[0].jobs
            == [.init(jobID: "j1", targets: .init(all: true), payload: .fileID(id), qos: .atLeastOnce)])
        #expect(servers[0].content(id) == bytes)
      }
    }
  }

  func status(_ state: PushV1.JobStatus.State, _ rows: [PushV1.JobTarget], complete: Bool = false) -> PushV1.JobStatus {
    .init(job: .init(jobID: "j", payload: .fileID("f")), state: state, targets: rows, complete: complete)
  }

  @Test func theExitCodeTellsHowAWatchedJobEnded() async throws {
    for (final, code) in [(PushV1.JobStatus.State.succeeded, Int32(0)), (.failed, 1), (.cancelled, 1)] {
      try await scene { _, servers, control, printed in
        servers[0].statuses = [
          self.status(.running, [.init(clientID: "a", state: .downloading, percent: 50)], complete: true),
          self.status(.running, [.init(clientID: "b", state: .verified, percent: 100, md5: "m")]),
          self.status(final, [.init(clientID: "a", state: .failed, reason: "disk \u{1B}full")]),
        ]
        #expect(await control(.init([servers[0].address])).status("j", watches: true) == code)
        let report = try printed.json()
        #expect(report["state"] as? String == final.name)
        let rows = try #require(report["targets"] as? [[String: Any]])
        #expect(rows.map { $0["state"] as? String } == ["FAILED", "VERIFIED"])
        #expect(rows.map { $0["md5"] as? String } == ["", "m"])
        #expect(printed.drawn.joined.contains("a [###############...............]  50 %  downloading"))
        #expect(printed.drawn.joined.contains("failed: disk ?full"))
      }
    }
  }

  @Test func aCancellationShowsTheWholeJob() async throws {
    try await scene { _, servers, control, printed in
      let reason = "The job was cancelled."
      var first = self.status(.cancelled, [.init(clientID: "a", state: .failed, reason: reason)])
      first.reason = "a mistake"
      var second = self.status(.cancelled, [.init(clientID: "b", state: .written)])
      second.reason = "a mistake"
      servers[0].statuses = [first, second]
      #expect(await control(.init([servers[0].address])).cancel("j", reason: "a mistake") == 0)
      #expect(servers[0].cancellations == [.init(jobID: "j", reason: "a mistake")])
      let report = try printed.json()
      #expect(report["state"] as? String == "CANCELLED" && report["reason"] as? String == "a mistake")
      let rows = try #require(report["targets"] as? [[String: Any]])
      #expect(rows.map { $0["state"] as? String } == ["FAILED", "WRITTEN"])
    }
  }

  @Test func aCancellationForPeopleAndOneOfAnUnknownJob() async throws {
    try await scene(json: false) { _, servers, control, printed in
      #expect(await control(.init([servers[0].address], json: false)).cancel("none", reason: "") == 1)
      #expect(printed.drawn.joined == "pushctl: NOT_FOUND: There is no such job.\n" && printed.results.all.isEmpty)
      var status = self.status(.cancelled, [.init(clientID: "a", state: .failed)])
      status.reason = "a \u{1B}mistake"
      servers[0].statuses = [status]
      #expect(await control(.init([servers[0].address], json: false)).cancel("j", reason: "x") == 0)
      #expect(printed.results.joined.hasPrefix("job j: cancelled: a ?mistake\n"))
    }
  }

  @Test func aStatusIsReadPageByPage() async throws {
    try await scene(json: false) { _, servers, control, printed in
      servers[0].statuses = [
        self.status(.running, [.init(clientID: "a", state: .verified, percent: 100, gateway: "g1", path: "/x/a")]),
        self.status(.running, [.init(clientID: "b", state: .written)]),
      ]
      #expect(await control(.init([servers[0].address], json: false)).status("j", watches: false) == 0)
      let lines = printed.results.joined.split(separator: "\n")
      #expect(lines.count == 4)  // It has no counts: no totals.
      #expect(lines.first == "job j: running")
      #expect(lines.contains { $0.hasPrefix("a       verified  100 %  g1 ") && $0.hasSuffix("/x/a") })
    }
  }

  @Test func theLiveTableHasTotalsAndTheRowsThatChangedLast() async throws {
    try await scene { _, servers, control, printed in
      var running = self.status(
        .running, (0..<30).map { .init(clientID: "c\($0)", state: .routed, updatedAtMs: Int64(100 + $0)) },
        complete: true)
      running.counts = [.init(state: .routed, count: 30)]
      var moved = self.status(.running, [.init(clientID: "c3", state: .downloading, percent: 50, updatedAtMs: 200)])
      moved.counts = [
        .init(state: .routed, count: 26), .init(state: .downloading, count: 1), .init(state: .failed, count: 3),
      ]
      var ended = self.status(.failed, [])
      ended.counts = [.init(state: .verified, count: 27), .init(state: .failed, count: 3)]
      servers[0].statuses = [running, moved, ended]
      #expect(await control(.init([servers[0].address])).status("j", watches: true) == 1)
      let screens = printed.drawn.all
      #expect(screens.count == 3)
      #expect(screens[0].contains("running: 0 of 30 done (0 %); routed 30\n"))
      #expect(screens[0].contains("c29 [") && !screens[0].contains("c3 "))
      #expect(screens[0].contains("… and 10 more, which changed earlier\n"))
      #expect(
        screens[1].contains("running: 3 of 30 done (11 %), 3 of them failed; routed 26, downloading 1, failed 3\n"))
      #expect(screens[1].contains("c3  [###############...............]  50 %  downloading"))
      #expect(screens[2].contains("failed: 30 of 30 done (100 %), 3 of them failed; verified 27, failed 3\n"))
    }
  }

  @Test func countsThatComeAfterTheEndAreTaken() async throws {
    try await scene(json: false) { _, servers, control, printed in
      var status = PushV1.JobStatus(
        job: .init(jobID: "j", targets: .init(all: true)), state: .succeeded, complete: true)
      servers[0].statuses = [status]
      #expect(await control(.init([servers[0].address], json: false)).status("j", watches: true) == 0)
      #expect(printed.results.joined == "job j: succeeded\nclients: none so far")
      status.counts = [.init(state: .written, count: 7)]
      servers[0].statuses.append(status)
      #expect(await control(.init([servers[0].address], json: false)).status("j", watches: true) == 0)
      #expect(printed.results.all.last == "job j: succeeded\nclients: written 7")
      #expect(printed.drawn.joined.contains("succeeded: 7 of 7 done (100 %); written 7\n"))
    }
  }

  @Test func aJobForAllHasSums() async throws {
    try await scene(json: false) { _, servers, control, printed in
      var status = self.status(.succeeded, [], complete: true)
      status.counts = [.init(state: .written, count: 7)]
      servers[0].statuses = [status]
      #expect(await control(.init([servers[0].address], json: false)).status("j", watches: true) == 0)
      #expect(printed.results.joined == "job j: succeeded\nclients: written 7")
    }
  }

  private static func event(
    _ type: String, _ client: String, _ epoch: Int64, isSnapshot: Bool = false
  ) -> PushV1.ClientEvent {
    PushV1.ClientEvent(
      event: .init(type: type), client: .init(clientID: client, online: type != "offline", sessionEpoch: epoch),
      atMs: 1,
      snapshot: isSnapshot)
  }

  /// The second gateway tells the state anew; what is printed is what has changed.
  @Test func aWatchGoesOnAtTheNextGatewayWithoutRepeating() async throws {
    try await scene(servers: 2) { _, servers, control, printed in
      let broken = Status(.unavailable, "gone")
      let end = PushV1.ClientEvent(snapshotEnd: true)
      servers[0].watches = [
        (
          [
            Self.event("online", "a", 1, isSnapshot: true), Self.event("offline", "b", 1, isSnapshot: true),
            Self.event("online", "d", 1, isSnapshot: true), end, Self.event("online", "b", 2),
            Self.event("replaced", "b", 3),
          ], broken
        )
      ]
      servers[1].watches = [
        (
          [
            Self.event("offline", "a", 1, isSnapshot: true), Self.event("online", "b", 3, isSnapshot: true),
            Self.event("online", "c", 1, isSnapshot: true), end, Self.event("offline", "b", 2),
          ], Status(.unimplemented, "over")
        )
      ]
      let both = [servers[0].address, servers[1].address]
      #expect(await control(.init(both)).watchClients(ids: [], tags: [:], onlineOnly: false) == 1)
      let lines = printed.results.all.map { line in
        let parsed = try? JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
        let client = parsed?["client"] as? [String: Any]
        let kind = parsed?["snapshot"] as? Bool == true ? "state" : "change"
        return "\(parsed?["event"] ?? "") \(client?["client_id"] ?? "") \(kind)"
      }
      #expect(
        lines == [
          "online a state", "offline b state", "online d state", "online b change", "replaced b change",
          "offline a change", "online c change", "offline d change",
        ])
    }
  }

  @Test func aDrainSaysWhatItDid() async throws {
    try await scene { _, servers, control, printed in
      servers[0].drainProgress = [
        .init(nodeID: "g", clientsTold: 1, clientsLeft: 2),
        .init(nodeID: "g", clientsTold: 3, elapsedMs: 7, ended: true),
      ]
      let rate = Rate(perSecond: 50)
      #expect(await control(.init([servers[0].address])).drain("g", rate: rate, within: .seconds(2)) == 0)
      #expect(servers[0].drains == [.init(nodeID: "g", clientsPerSecond: 50, deadlineMs: 2000)])
      let report = try printed.json()
      #expect(report["clients_told"] as? Int == 3 && report["deadline_passed"] as? Bool == false)
    }
  }

  @Test func clientsAreListedToTheLastPage() async throws {
    try await scene { _, servers, control, printed in
      servers[0].clients = ["a", "b", "c"].map { .init(clientID: $0, online: $0 != "b", nodeID: "g", tags: ["k": "v"]) }
      #expect(await control(.init([servers[0].address])).clients(onlineOnly: false) == 0)
      let clients = try printed.json()["clients"] as? [[String: Any]]
      #expect(clients?.map { $0["client_id"] as? String } == ["a", "b", "c"])
      #expect(clients?.map { $0["online"] as? Bool } == [true, false, true])
    }
  }

  @Test func sizesAndTimesAreReadable() {
    #expect(readableSize(0) == "0 B")
    #expect(readableSize(1023) == "1023 B")
    #expect(readableSize(64 << 20) == "64.0 MiB")
    #expect(readableSize(1536) == "1.5 KiB")
    #expect(readableSeconds(1299) == "1.3 s")
    #expect(columns(["A", "B"], [["long", "x"]]) == "A     B\nlong  x")
  }
}
