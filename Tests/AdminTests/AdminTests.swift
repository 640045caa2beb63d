import Admin
import Glibc
import Telemetry
import Testing

@Suite(.timeLimit(.minutes(1))) struct AdminTests {
  let metrics = MetricsRegistry()
  let readiness = Readiness(waitingFor: ["redis"])

  func server() throws -> AdminServer {
    try AdminServer(host: "127.0.0.1", port: 0, metrics: metrics, readiness: { [readiness] in readiness.reason })
  }

  /// Sends bytes on a connection of its own and reads until the server closes it.
  func exchange(_ request: String, port: UInt16) throws -> String {
    let file = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(file) }
    var limit = timeval(tv_sec: 5, tv_usec: 0)
    setsockopt(file, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    let status = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(file, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    try #require(status == 0)
    _ = Array(request.utf8).withUnsafeBytes { send(file, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
    var answer: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while case let count = read(file, &buffer, buffer.count), count > 0 { answer += buffer[..<count] }
    return String(decoding: answer, as: UTF8.self)
  }

  func get(_ path: String, _ server: AdminServer, method: String = "GET") throws -> String {
    try exchange("\(method) \(path) HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", port: server.port)
  }

  @Test func pagesAnswer() throws {
    let server = try server()
    defer { server.stop() }
    #expect(server.port > 0)
    metrics.counter("pushes_total", "Pushes.").increment(by: 7)
    let health = try get("/healthz", server)
    #expect(health.hasPrefix("HTTP/1.1 200 OK\r\n") && health.hasSuffix("\r\n\r\nok\n"))
    let page = try get("/metrics?x=1", server)
    #expect(page.contains("Content-Type: text/plain; version=0.0.4"))
    #expect(page.hasSuffix("# TYPE pushes_total counter\npushes_total 7\n"))
  }

  @Test func readinessIsToldWithItsReason() throws {
    let server = try server()
    defer { server.stop() }
    let early = try get("/readyz", server)
    #expect(early.hasPrefix("HTTP/1.1 503 ") && early.hasSuffix("not ready: redis: not yet\n"))
    readiness.met("redis")
    #expect(try get("/readyz", server).hasPrefix("HTTP/1.1 200 "))
    readiness.unmet("kafka", because: "no broker")
    #expect(try get("/readyz", server).hasSuffix("not ready: kafka: no broker\n"))
  }

  @Test func whatIsNotOfferedIsRefused() throws {
    let server = try server()
    defer { server.stop() }
    #expect(try get("/", server).hasPrefix("HTTP/1.1 404 "))
    #expect(try get("/healthz", server, method: "DELETE").hasPrefix("HTTP/1.1 405 "))
    let post = "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    #expect(try exchange(post, port: server.port).contains("Allow: GET, HEAD\r\n"))
    let body = "GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    #expect(try exchange(body, port: server.port).hasPrefix("HTTP/1.1 413 "))
    let long = "GET /healthz HTTP/1.1\r\nHost: a\r\nX: \(String(repeating: "x", count: 40_000))\r\n\r\n"
    #expect(!(try exchange(long, port: server.port).contains(" 200 ")))
    _ = try exchange("\u{16}\u{3}\u{1} no HTTP\r\n\r\n", port: server.port)
    #expect(try get("/healthz", server).hasPrefix("HTTP/1.1 200 "))
  }

  @Test func headHasNoBody() throws {
    let server = try server()
    defer { server.stop() }
    let head = try get("/healthz", server, method: "HEAD")
    #expect(head.contains("Content-Length: 3\r\n") && head.hasSuffix("\r\n\r\n"))
  }

  @Test func aConnectionServesSeveralRequests() throws {
    let server = try server()
    defer { server.stop() }
    let one = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    let last = "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    let answers = try exchange(one + one + last, port: server.port)
    #expect(answers.split(separator: "HTTP/1.1 200 OK").count == 3)
  }

  @Test func stoppingFreesThePort() throws {
    let first = try server()
    first.stop()
    first.stop()
    let second = try AdminServer(host: "127.0.0.1", port: first.port, metrics: metrics)
    #expect(second.port == first.port)
    #expect {
      try AdminServer(host: "127.0.0.1", port: second.port, metrics: metrics)
    } throws: { ($0 as? AdminError)?.message.contains("Address already in use") == true }
    second.stop()
    #expect {
      try AdminServer(host: "no such host", port: 0, metrics: metrics)
    } throws: { ($0 as? AdminError)?.code == .badAddress }
  }
}
