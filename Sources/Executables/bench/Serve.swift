import GRPC
import Reactor
import Schema
import Settings

/// `bench serve`: the unary call alone, for comparisons with servers that have no cluster behind them either.
struct Serve {
  private let listen: HostPort

  init(_ arguments: [String]) {
    var options = Options(
      "bench serve", about: "Answers PushToClient with success until SIGTERM.", environmentFlags: [])
    let listen = options.value("listen", .hostPort, default: "127.0.0.1:7000", help: "Where to serve gRPC.")
    self.listen = options.parseOrExit(arguments)[listen]
  }

  func run(_ loop: EventLoop) async throws {
    let ended = Wakeup()
    let signals = try Signals(loop: loop) { _ in ended.fire() }
    var router = Router()
    router.unary(PushV1.PushService.pushToClient) { request, _ in
      PushV1.PushResponse(success: !request.clientID.isEmpty)
    }
    let server = Server(loop: loop, router: router)
    print("listening on \(try await server.listen(on: listen))")
    await ended.wait()
    await server.shutdown(grace: .seconds(1))
    withExtendedLifetime(signals) {}
  }
}
