import Glibc
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(1))) struct DevbrokerTests {
  private let program = "\(builtProducts())/devbroker"

  @Test func itTellsItsAddressAndEndsWhenAsked() throws {
    let directory = try temporaryDirectory("devbroker")
    defer { removeDirectory(directory) }
    let port = freePort()
    let file = "\(directory)/port"
    for _ in 0..<2 {
      let broker = try ServerProcess(
        program, ["--listen-port-file", file, "--topic", "a:2", "--topic=b:1,c:4", "--port", "\(port)"])
      #expect(try broker.line(containing: ":") == "127.0.0.1:\(port)")
      #expect(text(of: file) == "127.0.0.1:\(port)\n")
      #expect(broker.stop() == 0)
    }
  }

  @Test func brokersHavePortsOfTheirOwn() throws {
    let broker = try ServerProcess(program, ["--brokers", "3"])
    #expect(Set(try broker.line(containing: ":").split(separator: ",")).count == 3)
    #expect(broker.stop() == 0)
  }

  @Test(arguments: [
    ["--topic", "a"], ["--topic", "a:0"], ["--port", "70000"], ["--host", "nowhere"], ["--brokers", "0"],
  ])
  func mistakesOfUsageAreRefused(_ arguments: [String]) throws {
    #expect(try ServerProcess(program, arguments).wait() == 64)
  }

  private func text(of path: String) -> String {
    var buffer = [UInt8](repeating: 0, count: 256)
    let descriptor = open(path, O_RDONLY)
    defer { close(descriptor) }
    let count = read(descriptor, &buffer, buffer.count)
    return String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
  }
}
