internal import GRPC
public import Reactor
internal import Schema

/// The commands of `pushctl`: each asks the servers over gRPC, prints, and returns the exit code. Belongs to its loop.
public final class Control {
  let loop: EventLoop
  let options: ControlOptions
  let terminal: Terminal
  let gateways: Servers
  let uploaders: Servers

  public convenience init(loop: EventLoop, options: ControlOptions) {
    self.init(loop: loop, options: options, terminal: .standard)
  }

  init(loop: EventLoop, options: ControlOptions, terminal: Terminal) {
    self.loop = loop
    self.options = options
    self.terminal = terminal
    gateways = Servers("gateway", options.gateways, loop: loop, options: options)
    uploaders = Servers("uploader", options.uploaders, loop: loop, options: options)
  }

  var callOptions: CallOptions { CallOptions(timeout: options.answerLimit) }

  /// Runs a command; what it throws is printed as a sentence.
  /// - Returns: its exit code, 1 when it threw.
  func command(_ body: () async throws -> Bool) async -> Int32 {
    defer {
      gateways.leave()
      uploaders.leave()
    }
    do {
      return try await body() ? 0 : 1
    } catch {
      let sentence = (error as? ControlError)?.message ?? Status(error).description
      terminal.draw("pushctl: \(printable(sentence))\n")
      return 1
    }
  }

  func printResult(_ json: some Encodable, people text: @autoclosure () -> String) throws {
    terminal.print(options.printsJSON ? try jsonLine(json) : text())
  }

  // MARK: Files

  /// Uploads files one after the other.
  ///
  /// - Parameter fileID: for a single file; nil for a new random one each.
  public func upload(_ paths: [String], fileID: String?) async -> Int32 {
    await command {
      var reports: [UploadReport] = []
      for path in paths {
        let report = try await self.uploadFile(path, fileID: fileID)
        reports.append(report)
        if !self.options.printsJSON { self.terminal.print(Self.sentence(report)) }
      }
      if self.options.printsJSON {
        self.terminal.print(reports.count == 1 ? try jsonLine(reports[0]) : try jsonLine(reports))
      }
      return true
    }
  }

  func uploadFile(_ path: String, fileID: String?) async throws -> UploadReport {
    let source = try await BlockingPool.shared.run { try SourceFile(path: path) }
    let id = fileID ?? randomID()
    let began = EventLoop.monotonicNanoseconds()
    let bars = ProgressBars(terminal)
    let name = source.name
    let size = source.size
    let uploader = Uploader(loop: loop, servers: uploaders, fileID: id, source: source) { phase, bytes in
      let fraction = size == 0 ? 1 : Double(bytes) / Double(size)
      let seconds = Double(EventLoop.monotonicNanoseconds() - began) / 1e9
      let rate = readableSize(Int64(Double(bytes) / max(seconds, 0.001)))
      bars.show([
        .init(
          label: name, fraction: fraction,
          note: phase == .sending ? "\(readableSize(bytes)) of \(readableSize(size)), \(rate)/s" : "verifying")
      ])
    }
    let status = try await uploader.run()
    return UploadReport(
      fileID: id, name: name, size: size, md5: status.md5.isEmpty ? status.message : status.md5,
      milliseconds: (EventLoop.monotonicNanoseconds() - began) / 1_000_000)
  }

  static func sentence(_ report: UploadReport) -> String {
    "\(printable(report.name)): file id \(report.fileID), \(readableSize(report.size)), MD5 \(report.md5), "
      + readableSeconds(report.milliseconds)
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
