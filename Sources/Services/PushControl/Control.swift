internal import GRPC
public import Reactor
internal import UploadClient

/// The commands of `pushctl`: each asks the servers over gRPC, prints, and returns the exit code. Belongs to its loop.
public final class Control {
  let loop: EventLoop
  let options: ControlOptions
  let terminal: Terminal
  let gateways: Servers
  /// While files are sent.
  var uploading: UploadClient?
  private var isInterrupted = false

  public convenience init(loop: EventLoop, options: ControlOptions) {
    self.init(loop: loop, options: options, terminal: .standard)
  }

  init(loop: EventLoop, options: ControlOptions, terminal: Terminal) {
    self.loop = loop
    self.options = options
    self.terminal = terminal
    gateways = Servers("gateway", options.gateways, loop: loop, options: options)
  }

  var callOptions: CallOptions { CallOptions(timeout: options.answerLimit) }

  /// Runs a command; what it throws is printed as a sentence.
  /// - Returns: its exit code, 1 when it threw, 130 when it was interrupted.
  func command(_ body: () async throws -> Bool) async -> Int32 {
    defer { gateways.leave() }
    do {
      let isGood = try await body()
      return isInterrupted ? Self.interrupted : isGood ? 0 : 1
    } catch {
      complain(error)
      return isInterrupted ? Self.interrupted : 1
    }
  }

  /// The exit code of a command that SIGINT has ended, as shells know it.
  public static let interrupted: Int32 = 130

  /// Ends an upload so that the same command can go on with it; the command ends then.
  ///
  /// - Returns: false when there is none under way, and nothing to wait for.
  public func interrupt() -> Bool {
    guard let uploading, !isInterrupted else { return false }
    isInterrupted = true
    uploading.stop()
    return true
  }

  func complain(_ error: any Error) {
    let sentence =
      (error as? ControlError)?.message ?? (error as? UploadError)?.message ?? Status(error).description
    terminal.draw("pushctl: \(printable(sentence))\n")
  }

  func printResult(_ json: some Encodable, people text: @autoclosure () -> String) throws {
    terminal.print(options.printsJSON ? try jsonLine(json) : text())
  }
}

/// 128 random bits in hex: a name that nothing else has.
func randomID() -> String {
  var random = SystemRandomNumberGenerator()
  return (0..<2).map { _ in
    let digits = String(random.next() as UInt64, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }.joined()
}
