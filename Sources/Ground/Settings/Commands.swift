/// A program of several commands, each with options of its own: `pushctl upload FILE`.
///
///     let commands = Commands("pushctl", about: "…", [("upload", "Uploads files."), ("status", "Shows a job.")])
///     let (command, arguments) = commands.selectFromCommandLine()
public struct Commands: Sendable {
  public let name: String
  let about: String
  let version: String
  let commands: [(name: String, about: String)]

  public init(
    _ name: String, about: String, _ commands: [(name: String, about: String)],
    version: String = Options.productVersion
  ) {
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
  public func select(_ arguments: [String]) throws(UsageExit) -> (command: String, arguments: [String]) {
    guard let first = arguments.first else {
      throw .mistake("a command is missing: one of \(commands.map(\.name).joined(separator: ", ")).", of: name)
    }
    switch first {
    case "--help", "-h", "help": throw UsageExit(status: 0, text: helpText)
    case "--version": throw UsageExit(status: 0, text: "\(name) \(version)")
    case _ where commands.contains { $0.name == first }: return (first, Array(arguments.dropFirst()))
    case _ where first.hasPrefix("-"):
      throw .mistake("the command comes first, its flags after it: \(name) COMMAND \(first).", of: name)
    default: throw .mistake("there is no command '\(first)'.", of: name)
    }
  }

  public var helpText: String {
    let lines =
      ["Usage: \(name) COMMAND [flags]", ""] + wrap(about, indent: 0, width: Options.helpWidth)
      + ["", "Commands:"] + table(commands.map { ($0.name, $0.about) })
      + ["", "'\(name) COMMAND --help' tells about one of them; '\(name) --version' prints the version."]
    return lines.joined(separator: "\n")
  }
}
