extension Options {
  /// The columns of the help text.
  static let helpWidth = 100

  /// What `--help` prints, made from the declarations.
  public var helpText: String {
    var lines = ["Usage: \(usage)", ""] + wrap(about, indent: 0, width: Self.helpWidth) + [""]
    let positional = declarations.filter(\.isPositional).map { ($0.valueName, $0.help) }
    let flags = declarations.filter { !$0.isPositional }.map { ($0.usage, $0.fullHelp) }
    let common = [("--help", "Prints this text."), ("--version", "Prints the version.")]
    if !positional.isEmpty { lines += ["Arguments:"] + table(positional) + [""] }
    lines += ["Flags:"] + table(flags + common)
    let variables = declarations.compactMap(variable(of:))
    if !variables.isEmpty {
      lines += [""]
      lines += wrap(
        "The environment may hold the same, and the command line wins: \(variables.joined(separator: ", ")).",
        indent: 0, width: Self.helpWidth)
    }
    return lines.joined(separator: "\n")
  }

  private var usage: String {
    var words = [name]
    words += declarations.filter { $0.isRequired && !$0.isPositional }.map(\.usage)
    words.append("[flags]")
    for declaration in declarations where declaration.isPositional {
      words.append(declaration.isRequired ? "\(declaration.valueName)…" : "[\(declaration.valueName)…]")
    }
    return words.joined(separator: " ")
  }
}

extension Options.Declaration {
  /// `--listen HOST:PORT`
  var usage: String { valueName.isEmpty ? "--\(name)" : "--\(name) \(valueName)" }

  /// The help with what else there is to know.
  var fullHelp: String {
    var notes: [String] = []
    if isRequired { notes.append("required") }
    if case .list = kind { notes.append("may be repeated or a comma list") }
    if let defaultText, !defaultText.isEmpty { notes.append("default: \(defaultText)") }
    return notes.isEmpty ? help : "\(help) (\(notes.joined(separator: "; ")))"
  }
}

/// Rows of two columns, the second wrapped.
func table(_ rows: [(String, String)]) -> [String] {
  let left = min(32, (rows.map(\.0.count).max() ?? 0) + 4)
  return rows.flatMap { row in
    var lines = wrap(row.1, indent: left, width: Options.helpWidth)
    let head = "  " + row.0
    if head.count + 2 <= left, let first = lines.first {
      lines[0] = head + first.dropFirst(head.count)
    } else {
      lines.insert(head, at: 0)
    }
    return lines
  }
}

func wrap(_ text: String, indent: Int, width: Int) -> [String] {
  let margin = String(repeating: " ", count: indent)
  var lines: [String] = []
  var line = ""
  for word in text.split(separator: " ") {
    if !line.isEmpty, indent + line.count + 1 + word.count > width {
      lines.append(margin + line)
      line = ""
    }
    line += (line.isEmpty ? "" : " ") + word
  }
  return line.isEmpty ? lines : lines + [margin + line]
}
