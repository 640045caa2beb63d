import FileStore
import Testing

@Suite struct UploadTests {
  typealias Chunk = Upload.Chunk

  func refusal(_ arrival: Upload.Arrival) -> Upload.Refusal.Code? {
    if case .refused(let refusal) = arrival { refusal.code } else { nil }
  }

  @Test(arguments: [
    (Chunk(offset: -1, length: 5, totalSize: 100), Upload.Refusal.Code.invalidArgument),
    (Chunk(offset: 0, length: 5, totalSize: -100), .invalidArgument),
    (Chunk(offset: 101, length: 0, totalSize: 100), .invalidArgument),
    (Chunk(offset: 96, length: 5, totalSize: 100), .invalidArgument),
    (Chunk(offset: .max, length: 5, totalSize: 100), .invalidArgument),
    (Chunk(offset: 0, length: 5, totalSize: 101), .failedPrecondition),
    (Chunk(offset: 5, length: 10, totalSize: 100), .failedPrecondition),
    (Chunk(offset: 25, length: 10, totalSize: 0), .failedPrecondition),
  ])
  func badChunks(_ chunk: Chunk, _ code: Upload.Refusal.Code) {
    var upload = Upload(size: 100, durable: ByteRanges([0..<10]), now: 0)
    #expect(upload.arrived(Chunk(offset: 20, length: 10, totalSize: 100)) == .write(20..<30))
    #expect(refusal(upload.arrived(chunk)) == code)
  }

  @Test func sizesAreBounded() {
    #expect(throws: Upload.Refusal.self) { try Upload.checkSize(-1) }
    #expect(throws: Upload.Refusal.self) { try Upload.checkSize(Upload.maximumSize + 1) }
    #expect(throws: Never.self) { try Upload.checkSize(0) }
  }

  @Test func aRepeatIsTakenOnce() {
    var upload = Upload(size: 30, now: 0)
    let chunk = Chunk(offset: 10, length: 10, totalSize: 30)
    #expect(upload.arrived(chunk) == .write(10..<20))
    #expect(upload.arrived(chunk) == .duplicate)
    upload.written(10..<20)
    #expect(upload.arrived(chunk) == .duplicate)
    #expect(upload.beginSync() == [10..<20])
    #expect(upload.arrived(chunk) == .duplicate)
    upload.synced(now: 5)
    #expect(upload.arrived(chunk) == .duplicate)
    #expect(upload.arrived(Chunk(offset: 12, length: 3, totalSize: 0)) == .duplicate)
    #expect(upload.durable.total == 10)
    #expect(upload.lastProgress == 5)
  }

  @Test func inAnyOrderToTheEnd() {
    var upload = Upload(size: 25, now: 0)
    for offset: Int64 in [20, 0, 10] {
      let length = min(10, 25 - offset)
      #expect(upload.streamEnded() != .finalise)
      #expect(upload.arrived(Chunk(offset: offset, length: length, totalSize: 25)) == .write(offset..<offset + length))
      #expect(upload.streamEnded() == .waitForBytes)
      upload.written(offset..<offset + length)
      #expect(upload.streamEnded() == .waitForBytes)
      #expect(upload.beginFinalising() == false)
      let begun = upload.beginSync()
      #expect(begun.count == 1)
      #expect(upload.beginSync() == [])
      upload.synced(now: 1)
    }
    #expect(upload.streamEnded() == .finalise)
    #expect(upload.beginFinalising() == true)
    #expect(upload.beginFinalising() == false)
    #expect(upload.streamEnded() == .waitForResult)
    upload.finalisingFailed()
    #expect(upload.streamEnded() == .finalise)
    #expect(upload.beginFinalising() == true)
    upload.finalised(md5: "m", now: 2)
    #expect(upload.streamEnded() == .complete(md5: "m"))
    #expect(upload.arrived(Chunk(offset: 0, length: 10, totalSize: 25)) == .duplicate)
  }

  @Test func whatFailedIsMissingAgain() {
    var upload = Upload(size: 20, now: 0)
    #expect(upload.arrived(Chunk(offset: 0, length: 10, totalSize: 20)) == .write(0..<10))
    #expect(upload.arrived(Chunk(offset: 10, length: 10, totalSize: 20)) == .write(10..<20))
    upload.released(0..<10)
    upload.written(10..<20)
    #expect(upload.unsyncedBytes == 10)
    #expect(upload.beginSync() == [10..<20])
    upload.syncFailed()
    #expect(upload.streamEnded() == .incomplete(missing: [0..<20]))
    #expect(upload.arrived(Chunk(offset: 10, length: 10, totalSize: 20)) == .write(10..<20))
  }

  @Test func whatIsDamagedIsMissingAgain() {
    var upload = Upload(size: 30, durable: ByteRanges([0..<30]), now: 0)
    #expect(upload.beginFinalising() == true)
    upload.damaged(10..<20)
    #expect(upload.streamEnded() == .incomplete(missing: [10..<20]))
    #expect(upload.arrived(Chunk(offset: 10, length: 10, totalSize: 30)) == .write(10..<20))
    #expect(upload.arrived(Chunk(offset: 0, length: 10, totalSize: 30)) == .duplicate)
  }

  @Test func theFirstDeclarationStands() throws {
    var upload = Upload(size: 20, now: 0)
    try upload.declare(size: 20, md5: "a")
    try upload.declare(size: 20, md5: "a")
    #expect(throws: Upload.Refusal.self) { try upload.declare(md5: "b") }
    #expect(throws: Upload.Refusal.self) { try upload.declare(size: 21) }
    #expect(upload.declaredMD5 == "a")
  }

  @Test func anEmptyFileIsCompleteAtOnce() {
    var upload = Upload(size: 0, now: 0)
    #expect(upload.arrived(Chunk(offset: 0, length: 0, totalSize: 0)) == .duplicate)
    #expect(upload.streamEnded() == .finalise)
  }
}
