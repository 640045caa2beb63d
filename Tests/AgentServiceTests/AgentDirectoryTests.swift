import Bytes
import FileStore
import Foundation
import Testing

@testable import AgentService

@Suite struct AgentDirectoryTests {
  func record(_ id: String, endedAt: Int64? = nil) -> DownloadRecord {
    var record = DownloadRecord(
      fileID: id, name: "n", size: 3, md5: "", ticket: Data([1, 2]),
      notices: [.init(jobID: "j", messageID: "m", noticedAt: 5)], kept: 2)
    record.ending = endedAt.map { .init(path: "/p", md5: "x", error: "", endedAt: $0) }
    return record
  }

  @Test func recordsAndStateSurvive() async throws {
    try await withTemporaryDirectory { path in
      let state = AgentState(
        clientID: "a", lastSessionID: "s", positions: [.init(source: "inbox", inboxID: "i", seq: 7)])
      do {
        let directory = try AgentDirectory(at: path)
        try directory.save(record("f1"), durably: true)
        try directory.save(state)
      }
      try Data("no JSON".utf8).write(to: URL(fileURLWithPath: path + "/.fleetpush/f2~.json"))
      let directory = try AgentDirectory(at: path)
      #expect(directory.loadRecords(now: 0) == [record("f1")])
      #expect(directory.loadState(clientID: "a") == state)
      #expect(directory.loadState(clientID: "b") == nil)
    }
  }

  @Test func recordsOfLongAgoAreDropped() async throws {
    try await withTemporaryDirectory { path in
      let directory = try AgentDirectory(at: path)
      let now = AgentDirectory.endedRecordAge * 10
      try directory.save(record("open"), durably: false)
      try directory.save(record("new", endedAt: now - 1), durably: false)
      try directory.save(record("old", endedAt: now - AgentDirectory.endedRecordAge - 1), durably: false)
      for _ in 0..<2 { #expect(Set(directory.loadRecords(now: now).map(\.fileID)) == ["open", "new"]) }
    }
  }

  @Test func aSecondAgentIsKeptOut() async throws {
    try await withTemporaryDirectory { path in
      let first = try AgentDirectory(at: path)
      #expect { try AgentDirectory(at: path) } throws: { ($0 as? AgentError)?.code == .locked }
      first.unlock()
      #expect(throws: Never.self) { try AgentDirectory(at: path) }
    }
  }

  @Test func aPartFileIsCarriedOnAndPlaced() async throws {
    try await withTemporaryDirectory { path in
      let directory = try AgentDirectory(at: path)
      let id = try FileID("f1")
      let bytes = noise(3_000_000)
      var part = try directory.openPart(id)
      try part.append([bytes[0..<1_000_000], bytes[1_000_000..<2_500_000]])
      #expect(try part.sync() == 2_500_000)
      // Only 2,000,000 are on record: what is behind them is written again.
      part = try directory.openPart(id)
      #expect(try part.digest(upTo: 2_000_000) == 2_000_000)
      try part.append([bytes.dropFirst(2_000_000)])
      #expect(try part.finish() == Digest.hex(of: bytes, .md5))
      #expect(try directory.place(id, as: "out.bin") == directory.path + "/out.bin")
      #expect(FileManager.default.contents(atPath: path + "/out.bin").map { Bytes($0) } == bytes)
      #expect(try directory.delivered("out.bin", size: 3_000_000)?.md5 == Digest.hex(of: bytes, .md5))
      #expect(try directory.delivered("out.bin", size: 3) == nil)
      #expect(try directory.delivered("none", size: 3) == nil)
    }
  }

  @Test func aTailFromAnEarlierRunIsCutOff() async throws {
    try await withTemporaryDirectory { path in
      let directory = try AgentDirectory(at: path)
      let part = try directory.openPart(try FileID("f1"))
      try part.append([noise(100)])
      let again = try directory.openPart(try FileID("f1"))
      try again.append([noise(10)])
      #expect(try again.finish() == Digest.hex(of: noise(10), .md5))
      #expect(try again.plainSize() == 10)
    }
  }

  @Test func linksAndDirectoriesAreNotWrittenThrough() async throws {
    try await withTemporaryDirectory { path in
      let directory = try AgentDirectory(at: path)
      let id = try FileID("f1")
      let outside = path + "-outside"
      defer { try? FileManager.default.removeItem(atPath: outside) }
      #expect(FileManager.default.createFile(atPath: outside, contents: Data("keep".utf8)))
      try FileManager.default.createSymbolicLink(
        atPath: path + "/.fleetpush/f1~.part", withDestinationPath: outside)
      #expect(throws: AgentError.self) { try directory.openPart(id) }
      directory.removePart(id)
      // A link under the file's name is replaced, not followed.
      try FileManager.default.createSymbolicLink(atPath: path + "/out", withDestinationPath: outside)
      #expect(try directory.delivered("out", size: 4) == nil)
      try directory.openPart(id).append([noise(4)])
      _ = try directory.place(id, as: "out")
      #expect(FileManager.default.contents(atPath: outside) == Data("keep".utf8))
      try FileManager.default.createDirectory(atPath: path + "/sub", withIntermediateDirectories: false)
      try directory.openPart(id).append([noise(4)])
      #expect { try directory.place(id, as: "sub") } throws: { "\($0)".contains("could not rename the file to 'sub'") }
    }
  }

  @Test func noticesRepeatWithoutEnd() {
    var record = record("f1")
    for number in 0..<100 {
      record.add(.init(jobID: "\(number)", messageID: "m", noticedAt: 0))
      record.add(.init(jobID: "\(number)", messageID: "m", noticedAt: 0))
    }
    #expect(record.notices.count == DownloadRecord.maximumNotices)
    #expect(record.notices.last?.jobID == "99")
  }

  @Test(arguments: [
    "", ".", "..", "/", "a/..", ".hidden", "x/.hidden", "new\nline", String(repeating: "n", count: 256),
  ])
  func namesThatLeadAstrayAreRefused(name: String) {
    #expect { try AgentDirectory.deliveryName(name) } throws: { ($0 as? AgentError)?.code == .badNotice }
  }

  @Test func namesAreLastComponents() throws {
    #expect(try AgentDirectory.deliveryName("/etc/passwd") == "passwd")
    #expect(try AgentDirectory.deliveryName("C:\\temp\\a b.txt") == "a b.txt")
    #expect(try AgentDirectory.deliveryName("..foo/ok") == "ok")
  }
}
