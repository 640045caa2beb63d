import Bytes
import FileStore
import Foundation
import GRPC
import Reactor
import TestSupport
import Testing

@testable import UploadClient

@Suite struct PartsTests {
  struct Fixed: RandomNumberGenerator {
    var value: UInt64
    mutating func next() -> UInt64 { value }
  }

  @Test func waitsGrowUntilThePatienceEnds() {
    var options = UploadOptions()
    options.firstPause = .milliseconds(100)
    options.longestPause = .milliseconds(350)
    options.patience = .seconds(10)
    var schedule = RetrySchedule(options)
    var ceilings: [Int64] = []
    for _ in 0..<4 {
      ceilings.append(schedule.ceiling / 1_000_000)
      _ = schedule.failed(now: 0)
    }
    #expect(ceilings == [100, 200, 350, 350])
    // What the server asks for is the least, the end of the patience the most.
    var most = Fixed(value: .max)
    #expect(schedule.failed(now: 1, askedFor: .seconds(2), using: &most) == .wait(2_000_000_000))
    #expect(schedule.failed(now: 9_500_000_000, askedFor: .seconds(2), using: &most) == .wait(500_000_000))
    #expect(schedule.failed(now: 10_000_000_000) == .giveUp)
    schedule.progressed()
    #expect(schedule.ceiling == 100_000_000)
    #expect(schedule.failed(now: 19_000_000_000, using: &most) == .wait(100_000_000))
  }

  @Test func everyFailureIsAfterTheWordOfItsStatus() {
    func setback(_ code: StatusCode, _ after: Duration? = nil) -> Setback {
      Setback(Status(code, "why", retryAfter: after), now: 1000)
    }
    for code in [StatusCode.unavailable, .aborted, .cancelled, .deadlineExceeded, .internal, .dataLoss] {
      #expect(setback(code) == .passing(after: nil))
    }
    #expect(setback(.unavailable, .seconds(1)) == .passing(after: .seconds(1)))
    #expect(setback(.aborted, .seconds(1)) == .final(UploadError(.heldByOther, "why", heldUntil: 2000)))
    #expect(setback(.resourceExhausted) == .crowded(UploadError(.refused, "why")))
    #expect(setback(.resourceExhausted, .seconds(1)) == .passing(after: .seconds(1)))
    for code in [StatusCode.invalidArgument, .failedPrecondition, .notFound, .unimplemented, .permissionDenied] {
      #expect(setback(code) == .final(UploadError(.refused, "why")))
    }
  }

  @Test func whatWasDamagedAtTheServerIsNoMismatch() {
    #expect(UploadError(mismatch: Status(.dataLoss, "other"))?.code == .mismatch)
    #expect(UploadError(mismatch: Status(.dataLoss, "damaged", retryAfter: .zero)) == nil)
    #expect(UploadError(mismatch: Status(.aborted, "begun again")) == nil)
  }

  @Test func aRateIsThatOfTheLastSeconds() {
    var meter = RateMeter()
    #expect(meter.sample(0, now: 0) == 0)
    #expect(meter.sample(100, now: 1_000_000_000) == 100)
    for second in 2...20 { _ = meter.sample(100, now: Int64(second) * 1_000_000_000) }
    #expect(meter.sample(100, now: 21_000_000_000) == 0)
    var progress = UploadProgress(total: 100)
    #expect(progress.timeLeft == nil)
    progress.sent = 40
    progress.bytesPerSecond = 30
    #expect(progress.timeLeft == .seconds(2))
  }

  @Test func whatIsMissingIsCutAtMultiplesOfAChunk() {
    let missing = ByteRanges([0..<3, 15..<35, 50..<60])
    #expect(missing.pieces(of: 0..<40, length: 10) == [0..<3, 15..<20, 20..<30, 30..<35])
    #expect(missing.pieces(of: 20..<55, length: 10) == [20..<30, 30..<35, 50..<55])
    #expect(missing.pieces(of: 36..<49, length: 10).isEmpty)
  }

  @Test func filesAreSpreadAndMoveOnTogether() {
    let addresses = (1...4).map { HostPort(host: "u", port: $0) }
    var counts: [HostPort: Int] = [:]
    for index in 0..<400 { counts[UploaderChoice(addresses, for: "file-\(index)").current, default: 0] += 1 }
    #expect(counts.values.allSatisfy { $0 > 50 })
    var choice = UploaderChoice(addresses, for: "a")
    let first = choice.current
    choice.leave(first)
    let second = choice.current
    choice.leave(first)
    #expect(second != first)
    #expect(choice.current == second)
  }

  @Test func anIdIsThatOfTheUnchangedFile() throws {
    let folder = try temporaryDirectory("source")
    defer { removeDirectory(folder) }
    let path = folder + "/a"
    try Data("one".utf8).write(to: URL(fileURLWithPath: path))
    let source = try SourceFile(path: path)
    #expect(try SourceFile(path: folder + "/./a").derivedID == source.derivedID)
    #expect(source.derivedID.count == 32)
    try FileManager.default.copyItem(atPath: path, toPath: folder + "/b")
    #expect(try SourceFile(path: folder + "/b").derivedID != source.derivedID)
    // The same size and the same time of modification, and yet another content.
    let before = try FileManager.default.attributesOfItem(atPath: path)[.modificationDate]
    let file = try #require(FileHandle(forWritingAtPath: path))
    file.write(Data("two".utf8))
    file.closeFile()
    try FileManager.default.setAttributes([.modificationDate: try #require(before)], ofItemAtPath: path)
    let changed = try SourceFile(path: path)
    #expect(changed.derivedID != source.derivedID)
    #expect(changed.derivedSession == source.derivedSession)
  }

  @Test func onlyPlainFilesAreTaken() throws {
    let folder = try temporaryDirectory("tree")
    defer { removeDirectory(folder) }
    for name in ["b/2", "b/1", "a", "c/d/3"] {
      let url = URL(fileURLWithPath: "\(folder)/\(name)")
      try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
      try Data("x".utf8).write(to: url)
    }
    try FileManager.default.createSymbolicLink(atPath: folder + "/link", withDestinationPath: "a")
    let tree = FileTree([folder, folder + "/link", folder + "/nothing", "/dev/null"])
    #expect(tree.files.map { $0.path.dropFirst(folder.count) } == ["/a", "/b/1", "/b/2", "/c/d/3", "/link"])
    #expect(tree.leftOut == 1)
    #expect(tree.failures.map(\.path) == [folder + "/nothing", "/dev/null"])
  }

  @Test func theReaderWaitsForTheStreams() async throws {
    let folder = try temporaryDirectory("supply")
    defer { removeDirectory(folder) }
    let path = folder + "/a"
    #expect(FileManager.default.createFile(atPath: path, contents: nil))
    let size: Int64 = 100 << 20
    try #require(FileHandle(forWritingAtPath: path)).truncate(atOffset: UInt64(size))
    let loop = try EventLoop.start(name: "test")
    defer { loop.stop() }
    try await loop.run {
      let supply = ChunkSupply(
        try SourceFile(path: path), wanted: ByteRanges([0..<size]), isDigesting: true, loop: loop)
      supply.start()
      var (seen, inHand) = (Int64(0), [Chunk]())
      // Chunks are taken and none is sent, until none comes any more within a while.
      while let chunk = try await supply.next() {
        inHand.append(chunk)
        seen += Int64(chunk.data.count)
        if seen >= UploadOptions.unsentBytes { break }
      }
      try await loop.sleep(for: .milliseconds(100))
      #expect(supply.queuedBytes + seen <= UploadOptions.unsentBytes + UploadOptions.batchBytes)
      for chunk in inHand { supply.sent(chunk) }
      while let chunk = try await supply.next() {
        seen += Int64(chunk.data.count)
        supply.sent(chunk)
      }
      #expect(supply.last?.range == (size - UploadOptions.chunkBytes)..<size)
      #expect(seen == size - UploadOptions.chunkBytes)
      #expect(try await supply.wholeMD5() == "2f282b84e7e608d5852449ed940bfc51")
    }
  }
}
