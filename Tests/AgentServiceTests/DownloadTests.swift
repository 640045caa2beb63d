import Testing

@testable import AgentService

private let second: Int64 = 1_000_000_000

@Suite struct DownloadTests {
  func download(size: Int64 = 100, md5: String = "right") -> Download {
    Download(size: size, md5: md5, seed: 1, now: 0)
  }

  /// A download that fetches from 0.
  func fetching(size: Int64 = 100) -> Download {
    var download = download(size: size)
    _ = download.prepared(kept: 0, now: 0)
    return download
  }

  @Test func theWholeWay() {
    var download = download()
    #expect(
      download.prepared(kept: 0, now: 0) == [.report(.downloading(kept: 0)), .fetch(offset: 0, turn: 0)])
    #expect(
      download.chunk(offset: 0, length: 60, isLast: false, now: second) == [.keep, .report(.downloading(kept: 60))])
    #expect(download.chunk(offset: 60, length: 40, isLast: true, now: second) == [.keep, .finish])
    #expect(download.digested("right", now: second) == [.place])
    #expect(download.placed(path: "/d/f") == [.report(.verified(path: "/d/f", md5: "right"))])
    #expect(download.callEnded(.passing("late"), now: second).isEmpty)
    #expect(download.wakeTime == nil)
  }

  @Test func progressIsReportedNowAndThen() {
    var download = fetching(size: 1000)
    var reports = 0
    for index in 0..<100 as Range<Int64> {
      let actions = download.chunk(offset: index, length: 1, isLast: false, now: index * second / 100)
      reports += actions.count { if case .report = $0 { true } else { false } }
    }
    #expect(reports == 1)
  }

  @Test func aBrokenCallGoesOnElsewhereAtOnceThenWaits() {
    var download = fetching()
    _ = download.chunk(offset: 0, length: 30, isLast: false, now: 1)
    #expect(download.callEnded(.passing("reset"), now: second) == [.checkpoint])
    #expect(download.wakeTime == second)
    #expect(download.timePassed(now: second).last == .fetch(offset: 30, turn: 1))
    _ = download.callEnded(.passing("refused"), now: 2 * second)
    let wake = download.wakeTime ?? 0
    #expect(wake >= 2 * second && wake <= 3 * second)
    #expect(download.timePassed(now: 4 * second).last == .fetch(offset: 30, turn: 2))
    #expect(download.chunk(offset: 30, length: 70, isLast: true, now: 5 * second).last == .finish)
  }

  @Test func aLastingErrorEndsIt() {
    var download = fetching()
    #expect(download.callEnded(.lasting("no such file"), now: 1) == [.report(.failed(reason: "no such file", md5: ""))])
    #expect(download.wakeTime == nil)
  }

  @Test func aSilentCallIsCancelled() {
    var download = fetching()
    #expect(download.timePassed(now: 29 * second).isEmpty)
    #expect(download.timePassed(now: 30 * second) == [.cancel, .checkpoint])
  }

  @Test func aDownloadWithoutAByteForADayFails() {
    var download = fetching()
    #expect(download.callEnded(.passing("x"), now: 23 * 3600 * second) == [.checkpoint])
    _ = download.timePassed(now: 24 * 3600 * second)
    #expect(
      download.callEnded(.passing("refused"), now: 24 * 3600 * second)
        == [.report(.failed(reason: "no byte came for 86400 s: refused", md5: ""))])
  }

  @Test func aWrongDigestIsFetchedAnewOnce() {
    var download = fetching()
    _ = download.chunk(offset: 0, length: 100, isLast: true, now: 1)
    #expect(
      download.digested("wrong", now: second) == [.discard, .report(.downloading(kept: 0)), .fetch(offset: 0, turn: 1)])
    _ = download.chunk(offset: 0, length: 100, isLast: true, now: 2 * second)
    #expect(
      download.digested("wrong", now: 2 * second)
        == [.discard, .report(.failed(reason: "the MD5 is wrong instead of right", md5: "wrong"))])
  }

  @Test func aFileOfAnotherLengthFails() {
    var long = fetching()
    #expect(
      long.chunk(offset: 0, length: 101, isLast: false, now: 1)
        == [.cancel, .report(.failed(reason: "the file is longer than announced", md5: ""))])
    var short = fetching()
    #expect(
      short.chunk(offset: 0, length: 0, isLast: true, now: 1)
        == [.report(.failed(reason: "the file is shorter than announced: it ends at 0 of 100", md5: ""))])
  }

  @Test func aChunkOutOfPlaceBreaksTheCall() {
    var download = fetching()
    #expect(download.chunk(offset: 10, length: 10, isLast: false, now: 1) == [.cancel, .checkpoint])
    #expect(download.kept == 0)
  }

  @Test func aRestartGoesOnWhereItWas() {
    var download = download()
    #expect(download.prepared(kept: 40, now: 0).last == .fetch(offset: 40, turn: 0))
    var whole = self.download()
    #expect(whole.prepared(kept: 100, now: 0) == [.finish])
    var tooLong = self.download()
    #expect(tooLong.prepared(kept: 101, now: 0).first == .discard)
    var empty = self.download(size: 0)
    #expect(empty.prepared(kept: 0, now: 0) == [.finish])
  }

  @Test func checkpointsComeWithEveryTwentyMebibytes() {
    var download = fetching(size: 50 << 20)
    var checkpoints: [Int64] = []
    for index in 0..<50 as Range<Int64> {
      let actions = download.chunk(offset: index << 20, length: 1 << 20, isLast: false, now: 1)
      if actions.contains(.checkpoint) { checkpoints.append(download.kept >> 20) }
    }
    #expect(checkpoints == [20, 40])
  }

  @Test func aFullDiskEndsIt() {
    var download = fetching()
    #expect(download.localFailure("disk full") == [.cancel, .report(.failed(reason: "disk full", md5: ""))])
    #expect(download.localFailure("again").isEmpty)
  }

  @Test func aFileThatIsThereIsNotFetched() {
    var download = download()
    #expect(download.found(path: "/d/f", md5: "right") == [.report(.verified(path: "/d/f", md5: "right"))])
  }
}
