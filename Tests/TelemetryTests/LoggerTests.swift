import Synchronization
import Testing

@testable import Telemetry

@Suite struct LoggerTests {
  /// Collects the lines that a logger writes.
  final class Lines: Sendable {
    private let lines = Mutex<[String]>([])
    func append(_ line: String) { lines.withLock { $0.append(line) } }
    var all: [String] { lines.withLock { $0 } }
  }

  @Test func aRecordIsOneLineOfJSON() throws {
    let lines = Lines()
    let log = Logger("gateway", level: .info, form: .json, sink: lines.append)
    log.with(["peer": "10.0.0.1:9"]).info(
      "say \"hi\"\n\u{1}", ["n": 3, "ok": true, "late": Duration.milliseconds(1500), "none": String?.none, "x": 0.5])
    log.debug("not written")
    let line = try #require(lines.all.first)
    #expect(lines.all.count == 1)
    #expect(line.hasPrefix("{\"time\":\"20"))
    #expect(
      line.hasSuffix(
        "\"level\":\"info\",\"logger\":\"gateway\",\"message\":\"say \\\"hi\\\"\\n\\u0001\","
          + "\"peer\":\"10.0.0.1:9\",\"n\":3,\"ok\":true,\"late\":1.5,\"none\":null,\"x\":0.5}\n"))
  }

  @Test func aLineForPeopleHoldsNoControlCharacters() throws {
    let lines = Lines()
    let log = Logger("agent", level: .trace, form: .people, sink: lines.append)
    log.warning("red \u{1B}[31m", ["file": "a b", "size": 7])
    let line = try #require(lines.all.first)
    #expect(line.hasSuffix(" WARN  agent: red ?[31m  file=\"a b\"  size=7\n"))
  }

  @Test func aLongValueIsCutBetweenCharacters() throws {
    let lines = Lines()
    let log = Logger("agent", form: .json, sink: lines.append)
    log.info(String(repeating: "é", count: 5000) + "tail")
    log.info("x" + String(repeating: "é", count: 5000))
    for line in lines.all {
      #expect(line.contains("é…\""))
      #expect(!line.contains("\u{FFFD}") && !line.contains("tail"))
    }
  }

  @Test(
    arguments: [
      (0, "1970-01-01T00:00:00.000Z"), (951_782_400_000, "2000-02-29T00:00:00.000Z"),
      (1_795_224_401_007, "2026-11-21T01:26:41.007Z"), (-1, "1969-12-31T23:59:59.999Z"),
      (4_107_542_399_999, "2100-02-28T23:59:59.999Z"), (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
    ] as [(Int64, String)])
  func timesArePrintedInUTC(milliseconds: Int64, text: String) {
    #expect(WallTime(milliseconds: milliseconds).iso8601 == text)
  }

  @Test func levelsHaveNames() {
    #expect(Logger.Level("warning") == .warning)
    #expect(Logger.Level("loud") == nil)
    #expect(Logger.Level.debug < .error)
  }
}
