import Bytes
import Reactor
import Testing

@testable import Redis

@Suite struct RedisProtocolTests {
  private static let replies =
    "+OK\r\n:-42\r\n$5\r\na\r\nbc\r\n$-1\r\n*0\r\n*-1\r\n*3\r\n:1\r\n*2\r\n$0\r\n\r\n-ERR no\r\n$-1\r\n-WRONG type\r\n"
  private static let values: [RedisValue] = [
    .simple("OK"), .integer(-42), .bulk(Bytes("a\r\nbc")), .null, .array([]), .null,
    .array([.integer(1), .array([.bulk(Bytes()), .error("ERR no")]), .null]), .error("WRONG type"),
  ]

  @Test func repliesAreReadAtEveryBoundary() throws {
    let bytes = Array(RedisProtocolTests.replies.utf8)
    for cut in 0...bytes.count {
      let reader = try RedisReplyReader()
      var seen: [RedisValue] = []
      for part in [bytes[..<cut], bytes[cut...]] where !part.isEmpty {
        try part.withUnsafeBytes { try reader.feed($0) }
        while let value = try reader.next() { seen.append(value) }
      }
      #expect(seen == RedisProtocolTests.values)
    }
  }

  @Test func repliesAreReadByteByByte() throws {
    let reader = try RedisReplyReader()
    var seen: [RedisValue] = []
    for byte in RedisProtocolTests.replies.utf8 {
      try withUnsafeBytes(of: byte) { try reader.feed($0) }
      while let value = try reader.next() { seen.append(value) }
    }
    #expect(seen == RedisProtocolTests.values)
  }

  @Test(arguments: ["HTTP/1.1 400 Bad Request\r\n", "$99999999999999999999\r\n", "*1\r\n?\r\n", ":1x\r\n"])
  func whatIsNoReplyIsAnError(_ text: String) throws {
    let reader = try RedisReplyReader()
    let bytes = Array(text.utf8)
    #expect(throws: RedisError.self) {
      try bytes.withUnsafeBytes { try reader.feed($0) }
      while try reader.next() != nil {}
      // A reader that waits for more has to fail with more.
      try bytes.withUnsafeBytes { try reader.feed($0) }
      while try reader.next() != nil {}
    }
  }

  @Test func commandsAreArraysOfStrings() {
    var output = ByteWriter()
    RedisCommandEncoder.append(["SET", .string("grüße"), .bytes(Bytes([0, 13, 10])), -7, .string("")], to: &output)
    RedisCommandEncoder.append(["ECHO", .string(String(repeating: "x", count: 12))], to: &output)
    let expected =
      "*5\r\n$3\r\nSET\r\n$7\r\ngrüße\r\n$3\r\n\0\r\n\r\n$2\r\n-7\r\n$0\r\n\r\n*2\r\n$4\r\nECHO\r\n$12\r\nxxxxxxxxxxxx\r\n"
    #expect(output.finish().string == expected)
  }

  @Test func addressesAreRead() throws {
    let full = try RedisAddress("redis://us%20er:p@ss%3Aword@redis-1:6380/3")
    #expect(full.endpoint.description == "redis-1:6380" && full.database == 3)
    #expect(full.user == "us er" && full.password == "p@ss:word")
    #expect("\(full)" == "redis-1:6380/3")
    let short = try RedisAddress("10.0.0.7:6379")
    #expect(short.endpoint.description == "10.0.0.7:6379" && short.database == 0 && short.password == nil)
    #expect(try RedisAddress("redis://:secret@h").endpoint.port == RedisAddress.defaultPort)
    #expect(try RedisAddress("redis://:secret@h").user == nil)
    for wrong in ["", "http://h:1", "h:99999", "redis://h:1/x", "redis://a:%4@h:1"] {
      #expect(throws: RedisError.self) { try RedisAddress(wrong) }
    }
  }

  @Test func aScriptIsNamedByItsDigest() {
    #expect(RedisScript("return 1").sha1 == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db")
  }

  @Test func outstandingCommandsKeepTheirOrder() {
    var commands = OutstandingCommands()
    for number in 0..<5000 {
      commands.append(OutstandingCommand(then: { _ in }, deadline: Int64(number), held: nil))
      if number == 2999 { commands.markAllSent() }
      if number % 2 == 0, number < 3000 { #expect((commands.popFirstSent() != nil) == (number > 2999)) }
    }
    for number in 0..<3000 { #expect(commands.popFirstSent()?.deadline == Int64(number)) }
    #expect(commands.popFirstSent() == nil)
    #expect(commands.count == 2000 && commands.first?.isSent == false)
    #expect(commands.removeAll().map(\.deadline) == (3000..<5000).map { Int64($0) })
    #expect(commands.count == 0)
  }
}
