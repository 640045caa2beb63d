/// The declared flags and arguments of a program or of one of its commands.
///
/// Every flag can also come from the environment: `--node-id` from `FLEETPUSH_NODE_ID`. The flag wins.
///
///     var options = Options("gateway", about: "Holds the streams of endpoints.")
///     let node = options.required("node-id", .string, help: "The name of this node.")
///     let listen = options.value("listen", .hostPort, default: "0.0.0.0:7000", help: "Where to serve gRPC.")
///     let tags = options.list("tag", .keyValue, help: "A tag of this endpoint.")
///     let parsed = options.parseCommandLine()
///     serve(on: parsed[listen])
///
/// `--name value` and `--name=value` are the same; of a flag given twice the last counts, a list takes both and splits
/// each at commas; `--` ends the flags.
public struct Options {
  /// The version of the product, which `--version` prints.
  public static let productVersion = "0.1.0"

  struct Declaration {
    enum Kind {
      case toggle, single, list, positional(required: Bool)
    }
    let name: String
    let kind: Kind
    let valueName: String
    let help: String
    /// As it would be written by the user; shown in the help.
    let defaultText: String?
    let isRequired: Bool
    /// Turns the texts that were given (of a flag, of the environment or the default) into the value.
    let convert: ([String]) throws(BadValue) -> any Sendable
    let splitsAtCommas: Bool
  }

  /// The program's name, with the command's when these are a command's options: `pushctl upload`.
  public let name: String
  let about: String
  let version: String
  let environmentFlags: [String]?
  private(set) var declarations: [Declaration] = []

  /// - Parameter environmentFlags: the flags that may come from the environment, without dashes; nil means all of them.
  public init(
    _ name: String, about: String, version: String = Options.productVersion, environmentFlags: [String]? = nil
  ) {
    self.name = name
    self.about = about
    self.version = version
    self.environmentFlags = environmentFlags
  }

  /// A flag that stands for true: `--json`. In the environment 1, true, yes or 0, false, no.
  public mutating func toggle(_ name: String, help: String) -> Flag<Bool> {
    declare(name, .toggle, valueName: "", help: help) { (texts) throws(BadValue) in
      try texts.last.map(parseBoolean) ?? false
    }
  }

  /// A flag without which the program doesn't start.
  public mutating func required<Value>(_ name: String, _ type: ValueType<Value>, help: String) -> Flag<Value> {
    declare(name, .single, valueName: type.valueName, help: help, isRequired: true) { (texts) throws(BadValue) in
      try type.parse(texts.last ?? "")
    }
  }

  /// A flag with a default, written as the user would write it.
  /// - Precondition: the default is valid.
  public mutating func value<Value>(
    _ name: String, _ type: ValueType<Value>, default text: String, help: String
  ) -> Flag<Value> {
    precondition((try? type.parse(text)) != nil, "the default of --\(name) is no \(type.valueName): \(text)")
    return declare(name, .single, valueName: type.valueName, help: help, defaultText: text) {
      (texts) throws(BadValue) in try type.parse(texts.last ?? text)
    }
  }

  /// A flag that may be absent.
  public mutating func optional<Value>(_ name: String, _ type: ValueType<Value>, help: String) -> Flag<Value?> {
    declare(name, .single, valueName: type.valueName, help: help) { (texts) throws(BadValue) -> Value? in
      guard let text = texts.last else { return nil }
      return try type.parse(text)
    }
  }

  /// A flag that may be repeated, and whose values may hold several, split at commas.
  public mutating func list<Value>(
    _ name: String, _ type: ValueType<Value>, default text: String? = nil, isRequired: Bool = false, help: String
  ) -> Flag<[Value]> {
    let fallback = text.map { $0.split(separator: ",").map(String.init) } ?? []
    return declare(
      name, .list, valueName: type.valueName, help: help, defaultText: text, isRequired: isRequired,
      splitsAtCommas: true
    ) { (texts) throws(BadValue) in try convertAll(texts.isEmpty ? fallback : texts, type) }
  }

  /// The arguments that are no flags. They come last: declare them once.
  public mutating func arguments<Value>(
    _ valueName: String, _ type: ValueType<Value>, isRequired: Bool, help: String
  ) -> Flag<[Value]> {
    declare(
      valueName, .positional(required: isRequired), valueName: valueName, help: help, isRequired: isRequired
    ) { (texts) throws(BadValue) in try convertAll(texts, type) }
  }

  private mutating func declare<Value: Sendable>(
    _ name: String, _ kind: Declaration.Kind, valueName: String, help: String, defaultText: String? = nil,
    isRequired: Bool = false, splitsAtCommas: Bool = false,
    convert: @escaping ([String]) throws(BadValue) -> Value
  ) -> Flag<Value> {
    precondition(!declarations.contains { $0.name == name }, "--\(name) is declared twice")
    declarations.append(
      Declaration(
        name: name, kind: kind, valueName: valueName, help: help, defaultText: defaultText,
        isRequired: isRequired, convert: { (texts) throws(BadValue) in try convert(texts) },
        splitsAtCommas: splitsAtCommas))
    return Flag(index: declarations.count - 1)
  }
}

/// Stands for a declared flag; look it up in `Parsed`.
public struct Flag<Value: Sendable>: Sendable {
  let index: Int
}

/// The values of all declared flags.
public struct Parsed: Sendable {
  let values: [any Sendable]

  /// - Precondition: the flag was declared on the `Options` that were parsed.
  public subscript<Value>(flag: Flag<Value>) -> Value {
    guard flag.index < values.count, let value = values[flag.index] as? Value else {
      preconditionFailure("a flag of other options")
    }
    return value
  }
}

private func convertAll<Value>(_ texts: [String], _ type: ValueType<Value>) throws(BadValue) -> [Value] {
  var values: [Value] = []
  for text in texts { values.append(try type.parse(text)) }
  return values
}

private func parseBoolean(_ text: String) throws(BadValue) -> Bool {
  switch text.lowercased() {
  case "1", "true", "yes", "on": true
  case "0", "false", "no", "off", "": false
  default: throw BadValue("is neither true nor false")
  }
}
