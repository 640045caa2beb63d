import Bytes
import Foundation
import Glibc
import Schema
import Testing

@testable import FileStore

@Suite struct JournalTests {
  final class Place {
    let path = FileManager.default.temporaryDirectory.appending(path: "fleetpush-journal-\(UUID().uuidString)").path
    let id: FileID
    let store: StoreDirectory
    init() throws {
      id = try FileID("a.file")
      store = try StoreDirectory(at: path)
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    func begin(size: Int64 = 100 << 20) throws -> (part: StoreFile, journal: UploadJournal) {
      var state = JournalState(size: size)
      state.name = "n"
      return try store.begin(id, fence: 1, state, now: 10)
    }

    func path(_ fence: Int64, _ kind: String) -> String { "\(path)/incoming/a.file.\(fence).\(kind)" }
  }

  static let md5 = String(repeating: "0a", count: 16)

  static func step(_ chunks: Range<Int64>..., blocks: [Int: String] = [:], at position: Int64? = nil)
    -> UploadJournal.Step
  {
    var step = UploadJournal.Step()
    step.chunks = chunks
    step.blocks = blocks
    step.checkpoint = position.flatMap { DigestCheckpoint(position: $0, words: [1, 2, 3, .max]) }
    return step
  }

  @Test func whatWasWrittenIsRead() throws {
    let place = try Place()
    let (_, journal) = try place.begin()
    try journal.append(Self.step(0..<10, 30..<40), now: 20)
    var step = Self.step(10..<30, blocks: [0: Self.md5], at: 64)
    step.declared.add(md5: Self.md5, name: "other", sha256: nil, job: Bytes("job"))
    try journal.append(step, now: 30)
    let state = try #require(try place.store.journalState(of: place.id))
    #expect(state == journal.state)
    #expect(state.sortedChunks == [0..<10, 10..<30, 30..<40])
    #expect(state.durable == ByteRanges([0..<40]))
    #expect(state.blocks == [0: Self.md5])
    #expect(state.checkpoint?.position == 64)
    #expect(state.name == "n" && state.declaredMD5 == Self.md5 && state.job == Bytes("job"))
    #expect(state.writtenAt == 30)
    try journal.rewrite(now: 40)
    var rewritten = try #require(try place.store.journalState(of: place.id))
    #expect(rewritten.writtenAt == 40)
    rewritten.apply(.init(writtenAtMs: 0))
    #expect(rewritten.sortedChunks == state.sortedChunks && rewritten.checkpoint == state.checkpoint)
    #expect(rewritten.blocks == state.blocks && rewritten.declaredMD5 == state.declaredMD5)
  }

  /// Cut off anywhere, or with any byte changed, it says what stands before, and the next writer goes on from there.
  @Test func aTornTailIsCutOff() throws {
    let place = try Place()
    let (_, journal) = try place.begin()
    try journal.append(Self.step(0..<10), now: 20)
    let whole = try #require(FileManager.default.contents(atPath: place.path(1, "journal"))).count
    try journal.append(Self.step(10..<20), now: 30)
    let content = try #require(FileManager.default.contents(atPath: place.path(1, "journal")))
    for length in whole..<content.count {
      for damaged in [false, true] {
        var torn = content
        if damaged { torn[length] ^= 0x40 } else { torn = content.prefix(length) }
        try torn.write(to: URL(fileURLWithPath: place.path(1, "journal")))
        let state = try #require(try place.store.journalState(of: place.id))
        #expect(state.sortedChunks == [0..<10], "\(length) \(damaged)")
      }
    }
    let next = try #require(
      try place.store.takeOver(place.id, fence: 2, adding: JournalState(size: 100 << 20), now: 40))
    try next.journal.append(Self.step(50..<60), now: 50)
    #expect(try place.store.journalState(of: place.id)?.sortedChunks == [0..<10, 50..<60])
  }

  @Test func withoutAFirstRecordItSaysNothing() throws {
    let place = try Place()
    _ = try place.begin()
    for content in [Data(), Data("nonsense that is long enough".utf8), Data([0xFF, 0xFF, 0xFF, 0xFF])] {
      try content.write(to: URL(fileURLWithPath: place.path(1, "journal")))
      #expect(try place.store.journalState(of: place.id) == nil)
    }
  }

  @Test func growthIsBounded() throws {
    let place = try Place()
    let (_, journal) = try place.begin()
    // The same few chunks over and over, as a disk that loses them would bring about.
    let chunks = (0..<4000).map { Int64($0) * 1000..<Int64($0) * 1000 + 1000 }
    for round in 0..<60 {
      var step = UploadJournal.Step()
      step.chunks = chunks
      try journal.append(step, now: Int64(round))
    }
    let length = try #require(FileManager.default.contents(atPath: place.path(1, "journal"))).count
    #expect(length <= Int(UploadJournal.rewriteAbove) + 40_000)
    #expect(try place.store.journalState(of: place.id)?.chunks.count == 4000)
  }

  @Test func aDamagedBlockTakesItsBytesAndDigestsAlong() throws {
    let block = Sidecar.blockSize
    var state = JournalState(size: 3 * block)
    state.add([0..<block - 5, block - 5..<block + 5, block + 5..<2 * block - 1, 2 * block - 1..<2 * block + 1])
    state.add(block: 0, md5: Self.md5)
    state.add(block: 1, md5: Self.md5)
    if let checkpoint = DigestCheckpoint(position: block, words: [0, 0, 0, 0]) { state.add(checkpoint) }
    state.drop(block: 1)
    #expect(state.sortedChunks == [0..<block - 5, block - 5..<block, 2 * block..<2 * block + 1])
    #expect(state.blocks == [0: Self.md5])
    #expect(state.checkpoint?.position == block)
    state.drop(block: 0)
    #expect(state.checkpoint == nil)
  }

  @Test func rangesThatCanNotBeAreNotTaken() throws {
    var step = InternalV1.UploadStep(writtenAtMs: 1, declaration: .init(size: 100))
    step.offsets = [0, -1, 90, 101, .max]
    step.lengths = [10, 5, 11, 1, .max]
    step.damagedBlocks = [-1]
    step.blocks = [.init(index: -1, md5: Bytes(Array(repeating: 0, count: 16))), .init(index: 0, md5: Bytes("short"))]
    let state = try #require(JournalState([step]))
    #expect(state.chunks == [0: 10] && state.blocks.isEmpty)
    #expect(JournalState([InternalV1.UploadStep(writtenAtMs: 1)]) == nil)
    #expect(JournalState([InternalV1.UploadStep(declaration: .init(size: -1))]) == nil)
  }

  // MARK: Takeover

  @Test func aTakeoverShutsTheFormerWriterOut() throws {
    let place = try Place()
    let (part, journal) = try place.begin(size: 40)
    try part.write(Bytes("0123456789"), at: 0)
    try journal.append(Self.step(0..<10), now: 20)
    var known = JournalState(size: 40)
    known.add([0..<10, 20..<30])
    let next = try #require(try place.store.takeOver(place.id, fence: 7, adding: known, now: 30))
    #expect(next.journal.state.sortedChunks == [0..<10, 20..<30])
    #expect(try place.store.incoming(of: place.id).map(\.fence) == [7, 7])
    // What the former writer still writes down nobody reads; and it can't give the file its name.
    try journal.append(Self.step(30..<40), now: 40)
    #expect(try place.store.journalState(of: place.id)?.durable.total == 20)
    let sidecar = Sidecar(name: "n", size: 40, digests: FileDigests(md5: "", blockMD5s: []), publishedAt: 0)
    let error = #expect(throws: FileStoreError.self) {
      try place.store.publish(place.id, fence: 1, file: part, sidecar: sidecar)
    }
    #expect(error?.code == .notFound)
    let late = #expect(throws: FileStoreError.self) {
      try place.store.takeOver(place.id, fence: 6, adding: known, now: 1)
    }
    #expect(late?.code == .exists)
  }

  @Test func aTakeoverThatWasCutOffIsTakenOver() throws {
    let place = try Place()
    let (_, journal) = try place.begin(size: 40)
    try journal.append(Self.step(0..<10), now: 20)
    // Its part had been renamed, its journal not yet.
    try place.store.renamePart(place.id, from: 1, to: 2)
    let next = try #require(try place.store.takeOver(place.id, fence: 3, adding: JournalState(size: 40), now: 30))
    #expect(next.journal.state.sortedChunks == [0..<10])
    #expect(
      Set(try place.store.incoming(of: place.id)) == [
        IncomingFile(place.id, fence: 3, .part), IncomingFile(place.id, fence: 3, .journal),
      ])
  }

  @Test(arguments: [
    ("a.1.part", "a", 1 as Int64, IncomingFile.Kind.part), ("a.b-c.12.journal", "a.b-c", 12, .journal),
    ("x.1.part.3.tmp", "x.1.part", 3, .tmp),
  ])
  func namesTell(_ name: String, _ id: String, _ fence: Int64, _ kind: IncomingFile.Kind) {
    let file = IncomingFile(name: name)
    #expect(file?.id.text == id && file?.fence == fence && file?.kind == kind && file?.name == name)
  }

  @Test func otherNamesTellNothing() {
    for name in ["", "a", "a.part", "a.x.part", "a.-1.part", ".1.part", "a.1.other", "a~.1.part"] {
      #expect(IncomingFile(name: name) == nil, "\(name)")
    }
  }
}
