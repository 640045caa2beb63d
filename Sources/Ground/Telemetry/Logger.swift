/// Writes structured log records.
///
/// A record is one line: a JSON object, or, when stderr is a terminal, a line for people. The line goes out with one
/// `write(2)`, so the lines of several threads and processes that share a pipe don't mix (POSIX promises that up to
/// `PIPE_BUF`, 4,096 bytes).
///
///     let log = Logger("gateway", level: .info)
///     log.info("client registered", ["client": clientID, "streams": 12])
///     let connectionLog = log.with(["peer": peer])
///
/// Copying costs one retain. Usable from any thread. A record below the level costs one comparison: message and
/// attributes are evaluated only when they are written.
public struct Logger: Sendable {
  /// How much a record matters, in rising order.
  public enum Level: UInt8, Sendable, Comparable, CaseIterable {
    case trace, debug, info, warning, error

    /// `trace`, `debug`, `info`, `warning` or `error`; nil for anything else.
    public init?(_ name: String) {
      guard let level = Level.allCases.first(where: { $0.name == name }) else { return nil }
      self = level
    }

    public var name: String { "\(self)" }

    public static func < (a: Level, b: Level) -> Bool { a.rawValue < b.rawValue }
  }

  /// The shape of a line.
  public enum Form: Sendable {
    case json, people

    /// `people` when stderr is a terminal, else `json`.
    public static var automatic: Form { isStandardErrorTerminal() ? .people : .json }
  }

  /// Attributes in the order in which they are printed.
  public typealias Attributes = KeyValuePairs<String, any LogValue>

  final class Core: Sendable {
    let label: String
    let form: Form
    let sink: @Sendable (borrowing LogLine) -> Void
    /// The attributes of `with`, printed already in this form.
    let fixed: [UInt8]

    init(label: String, form: Form, fixed: [UInt8], sink: @escaping @Sendable (borrowing LogLine) -> Void) {
      self.label = label
      self.form = form
      self.fixed = fixed
      self.sink = sink
    }
  }

  let core: Core
  /// Records below this level are dropped.
  public let level: Level

  /// - Parameters:
  ///   - label: the program or part that speaks; the field `logger` of each record.
  ///   - sink: takes each finished line with its newline, on the thread that logs; nil writes to stderr.
  public init(
    _ label: String, level: Level = .info, form: Form = .automatic, sink: (@Sendable (String) -> Void)? = nil
  ) {
    self.level = level
    let write: @Sendable (borrowing LogLine) -> Void =
      if let sink { { line in sink(line.string) } } else { { line in line.writeToStandardError() } }
    core = Core(label: label, form: form, fixed: [], sink: write)
  }

  init(core: Core, level: Level) {
    self.core = core
    self.level = level
  }

  /// A logger that drops everything.
  public static let silent = Logger("silent", level: .error, form: .json, sink: { _ in })

  /// A logger that adds these attributes to each of its records.
  public func with(_ attributes: Attributes) -> Logger {
    var line = LogLine(form: core.form)
    for (key, value) in attributes { line.append(key: key, value) }
    return Logger(
      core: Core(label: core.label, form: core.form, fixed: core.fixed + line.bytes, sink: core.sink), level: level)
  }

  /// A logger of another part of the program, with the same level, form, sink and attributes.
  public func labelled(_ label: String) -> Logger {
    Logger(core: Core(label: label, form: core.form, fixed: core.fixed, sink: core.sink), level: level)
  }

  @inline(__always)
  public func isEnabled(_ level: Level) -> Bool { level >= self.level }

  public func log(
    _ level: Level, _ message: @autoclosure () -> String, _ attributes: @autoclosure () -> Attributes = [:]
  ) {
    guard isEnabled(level) else { return }
    write(level, message(), attributes())
  }

  public func trace(_ message: @autoclosure () -> String, _ attributes: @autoclosure () -> Attributes = [:]) {
    if isEnabled(.trace) { write(.trace, message(), attributes()) }
  }

  public func debug(_ message: @autoclosure () -> String, _ attributes: @autoclosure () -> Attributes = [:]) {
    if isEnabled(.debug) { write(.debug, message(), attributes()) }
  }

  public func info(_ message: @autoclosure () -> String, _ attributes: @autoclosure () -> Attributes = [:]) {
    if isEnabled(.info) { write(.info, message(), attributes()) }
  }

  public func warning(_ message: @autoclosure () -> String, _ attributes: @autoclosure () -> Attributes = [:]) {
    if isEnabled(.warning) { write(.warning, message(), attributes()) }
  }

  public func error(_ message: @autoclosure () -> String, _ attributes: @autoclosure () -> Attributes = [:]) {
    if isEnabled(.error) { write(.error, message(), attributes()) }
  }

  private func write(_ level: Level, _ message: String, _ attributes: Attributes) {
    var line = LogLine(form: core.form)
    line.begin(time: WallTime.now(), level: level, label: core.label, message: message)
    line.append(raw: core.fixed)
    for (key, value) in attributes { line.append(key: key, value) }
    line.end()
    core.sink(line)
  }
}
