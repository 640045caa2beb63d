internal import Glibc

/// Why a command line was not taken: `--help` and `--version` (status 0), or a mistake of usage (status 64).
public struct UsageExit: Error, Sendable {
  /// `EX_USAGE` of sysexits.h.
  public static let usageStatus: Int32 = 64

  public let status: Int32
  /// What to print, without a last newline: on stdout when the status is 0, else on stderr.
  public let text: String

  static func mistake(_ sentence: String, of program: String) -> UsageExit {
    UsageExit(status: usageStatus, text: "\(program): \(sentence)\nTry '\(program) --help'.")
  }

  /// Prints the text where it belongs and ends the process.
  public func exitProcess() -> Never {
    var text = text + "\n"
    text.withUTF8 { utf8 in
      var rest = UnsafeRawBufferPointer(utf8)
      while !rest.isEmpty {
        let written = write(status == 0 ? STDOUT_FILENO : STDERR_FILENO, rest.baseAddress, rest.count)
        guard written > 0 else { break }
        rest = UnsafeRawBufferPointer(rebasing: rest[written...])
      }
    }
    exit(status)
  }
}

extension Options {
  /// A mistake that the declarations can't express, as a sentence.
  public func mistake(_ sentence: String) -> UsageExit { .mistake(sentence, of: name) }

  /// Parses this process's command line and environment; prints and exits for `--help`, `--version` and mistakes.
  public func parseCommandLine() -> Parsed {
    parseOrExit(Array(CommandLine.arguments.dropFirst()))
  }

  /// The same for arguments that were split off already, as a command's.
  public func parseOrExit(_ arguments: [String]) -> Parsed {
    do {
      return try parse(arguments, environment: processEnvironment())
    } catch { error.exitProcess() }
  }

  /// - Parameter arguments: without the program's name.
  public func parse(_ arguments: [String], environment: [String: String] = [:]) throws(UsageExit) -> Parsed {
    var given = try collect(arguments)
    var values: [any Sendable] = []
    for (index, declaration) in declarations.enumerated() {
      var source = declaration.label
      let variable = variable(of: declaration)
      if given[index] == nil, let variable, let text = environment[variable] {
        source = variable
        given[index] = declaration.split(text)
      }
      if declaration.isRequired, (given[index] ?? []).isEmpty {
        let hint = variable.map { " (or \($0) in the environment)" } ?? ""
        throw .mistake("\(declaration.label) is missing\(hint).", of: name)
      }
      do {
        values.append(try declaration.convert(given[index] ?? []))
      } catch {
        throw .mistake("\(source): '\((given[index] ?? []).joined(separator: ","))' \(error.reason).", of: name)
      }
    }
    return Parsed(values: values)
  }

  /// The texts given on the command line, by the index of their declaration.
  private func collect(_ arguments: [String]) throws(UsageExit) -> [Int: [String]] {
    var given: [Int: [String]] = [:]
    var flagsEnded = false
    var rest = arguments[...]
    while let argument = rest.popFirst() {
      if flagsEnded || !argument.hasPrefix("-") || argument == "-" {
        guard let index = declarations.firstIndex(where: \.isPositional) else {
          throw .mistake("'\(argument)' is unexpected: it takes no arguments.", of: name)
        }
        given[index, default: []].append(argument)
        continue
      }
      switch argument {
      case "--": flagsEnded = true
      case "--help", "-h": throw UsageExit(status: 0, text: helpText)
      case "--version": throw UsageExit(status: 0, text: "\(name) \(version)")
      default: try take(flag: argument, &rest, &given)
      }
    }
    return given
  }

  private func take(
    flag argument: String, _ rest: inout ArraySlice<String>, _ given: inout [Int: [String]]
  ) throws(UsageExit) {
    let parts = argument.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    guard let index = declarations.firstIndex(where: { !$0.isPositional && "--\($0.name)" == parts[0] }) else {
      throw .mistake("there is no flag \(parts[0]).", of: name)
    }
    let declaration = declarations[index]
    let text: String
    if parts.count == 2 {
      text = parts[1]
    } else if case .toggle = declaration.kind {
      text = "true"
    } else if let next = rest.first, !next.hasPrefix("--") {
      text = rest.removeFirst()
    } else {
      throw .mistake("\(declaration.label) needs a value: \(declaration.label) \(declaration.valueName).", of: name)
    }
    if case .list = declaration.kind {
      given[index, default: []] += declaration.split(text)
    } else {
      given[index] = [text]
    }
  }
}

extension Options {
  /// The environment variable that stands for a flag; nil where none does.
  func variable(of declaration: Declaration) -> String? {
    guard !declaration.isPositional, environmentFlags?.contains(declaration.name) ?? true else { return nil }
    return "FLEETPUSH_" + declaration.name.uppercased().map { $0 == "-" ? "_" : String($0) }.joined()
  }
}

extension Options.Declaration {
  var isPositional: Bool {
    if case .positional = kind { true } else { false }
  }

  /// As the user writes it.
  var label: String { isPositional ? name : "--\(name)" }

  func split(_ text: String) -> [String] {
    splitsAtCommas ? text.split(separator: ",").map(String.init) : [text]
  }
}

/// The environment of this process.
public func processEnvironment() -> [String: String] {
  var environment: [String: String] = [:]
  var entry = environ
  while let pointer = entry.pointee {
    let parts = String(cString: pointer).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    if parts.count == 2 { environment[String(parts[0])] = String(parts[1]) }
    entry += 1
  }
  return environment
}
