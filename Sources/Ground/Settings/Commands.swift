/// A program of several commands, each with options of its own: `pushctl upload FILE`.
///
///     let commands = Commands("pushctl", about: "…", [("upload", "Uploads files."), ("status", "Shows a job.")])
///     let (command, arguments) = commands.selectFromCommandLine()
public struct Commands: Sendable {
  public let name: String
  let about: String
  let version: String
  let commands: [(name: String, about: String)]
  let leadingFlags: [String]
  let leadingToggles: [String]

  /// - Parameters:
  ///   - leadingFlags: flags with a value that every command has; they may stand before the command, too.
  ///   - leadingToggles: the same for flags without a value.
  public init(
    _ name: String, about: String, _ commands: [(name: String, about: String)], leadingFlags: [String] = [],
    leadingToggles: [String] = [], version: String = Options.productVersion
  ) {
    self.leadingFlags = leadingFlags
    self.leadingToggles = leadingToggles
    self.name = name
    self.about = about
    self.version = version
    self.commands = commands
  }

  /// Splits off the command of this process's command line; prints and exits for `--help`, `--version` and mistakes.
  public func selectFromCommandLine() -> (command: String, arguments: [String]) {
    do {
      return try select(Array(CommandLine.arguments.dropFirst()))
    } catch { error.exitProcess() }
  }

  /// - Parameter arguments: without the program's name.
  /// - Returns: the command, and its arguments behind the flags that stood before it.
  public func select(_ arguments: [String]) throws(UsageExit) -> (command: String, arguments: [String]) {
    var leading: [String] = []
    var rest = arguments[...]
    while let argument = rest.popFirst() {
      switch argument {
      case "--help", "-h", "help": throw UsageExit(status: 0, text: helpText)
      case "--version": throw UsageExit(status: 0, text: "\(name) \(version)")
      case _ where commands.contains { $0.name == argument }: return (argument, leading + rest)
      case _ where argument.hasPrefix("--"):
        let flag = argument.dropFirst(2).prefix { $0 != "=" }
        leading.append(argument)
        if leadingFlags.contains(String(flag)) {
          if !argument.contains("="), let value = rest.popFirst() { leading.append(value) }
        } else if !leadingToggles.contains(String(flag)) {
          throw .mistake("\(argument) is no flag that stands before the command.", of: name)
        }
      default: throw .mistake("there is no command '\(argument)'.", of: name)
      }
    }
    throw .mistake("a command is missing: one of \(commands.map(\.name).joined(separator: ", ")).", of: name)
  }

  public var helpText: String {
    let lines =
      ["Usage: \(name) COMMAND [flags]", ""] + wrap(about, indent: 0, width: Options.helpWidth)
      + ["", "Commands:"] + table(commands.map { ($0.name, $0.about) })
      + ["", "'\(name) COMMAND --help' tells about one of them; '\(name) --version' prints the version."]
    return lines.joined(separator: "\n")
  }
}
