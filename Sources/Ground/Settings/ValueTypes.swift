public import Reactor

/// What is wrong with a value, to follow it in a sentence: "is not a whole number".
public struct BadValue: Error, Sendable {
  public let reason: String
  public init(_ reason: String) { self.reason = reason }
}

/// How the text of a flag becomes a value.
public struct ValueType<Value: Sendable>: Sendable {
  /// What stands for the value in the help: `HOST:PORT`.
  public let valueName: String
  let parse: @Sendable (String) throws(BadValue) -> Value

  public init(_ valueName: String, parse: @escaping @Sendable (String) throws(BadValue) -> Value) {
    self.valueName = valueName
    self.parse = parse
  }

  /// The same with another word in the help.
  public func named(_ valueName: String) -> ValueType { ValueType(valueName, parse: parse) }
}

extension ValueType<String> {
  /// Any text but the empty one.
  public static var string: ValueType<String> {
    ValueType("TEXT") { (text) throws(BadValue) in
      guard !text.isEmpty else { throw BadValue("is empty") }
      return text
    }
  }

  /// Any text.
  public static var text: ValueType<String> { ValueType("TEXT") { (text) throws(BadValue) in text } }

  /// One of some words.
  public static func choice(_ words: [String]) -> ValueType<String> {
    ValueType(words.joined(separator: "|")) { (text) throws(BadValue) in
      guard words.contains(text) else { throw BadValue("is none of \(words.joined(separator: ", "))") }
      return text
    }
  }
}

extension ValueType<Int> {
  /// A whole number.
  public static func int(_ range: ClosedRange<Int> = Int.min...Int.max) -> ValueType<Int> {
    ValueType("N") { (text) throws(BadValue) in
      guard let number = Int(text) else { throw BadValue("is not a whole number") }
      guard range.contains(number) else { throw BadValue("is not in \(range.lowerBound) ... \(range.upperBound)") }
      return number
    }
  }

  /// A size: a whole or decimal number with B, KiB, MiB, GiB, TiB, KB, MB, GB or TB, or a whole number of bytes.
  public static var bytes: ValueType<Int> {
    ValueType("SIZE") { (text) throws(BadValue) in
      let units: [(String, Double)] = [
        ("", 1), ("B", 1), ("KiB", 0x1p10), ("MiB", 0x1p20), ("GiB", 0x1p30), ("TiB", 0x1p40),
        ("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12),
      ]
      guard let size = quantity(text, units), size < 0x1p62, size == size.rounded() else {
        throw BadValue("is not a size like 64KiB, 10MiB or 1048576")
      }
      return Int(size)
    }
  }
}

extension ValueType<Duration> {
  /// A time with its unit: 250ms, 3s, 1.5m, 2h, 1d; or 0.
  public static var duration: ValueType<Duration> {
    ValueType("TIME") { (text) throws(BadValue) in
      if text == "0" { return .zero }
      let units: [(String, Double)] = [("us", 1e-6), ("ms", 1e-3), ("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)]
      guard let seconds = quantity(text, units), seconds < 1e10 else {
        throw BadValue("is not a time like 250ms, 3s or 2m")
      }
      return .seconds(seconds)
    }
  }
}

extension ValueType<Rate> {
  /// So many in a unit of time: 500/s, 30/m, 100/h; more than 0.
  public static var rate: ValueType<Rate> {
    ValueType<Rate>("RATE") { (text) throws(BadValue) in
      let units: [(String, Double)] = [("/s", 1), ("/m", 1.0 / 60), ("/h", 1.0 / 3600)]
      guard let rate = quantity(text, units).flatMap(Rate.init(validating:)) else {
        throw BadValue("is not a rate like 500/s or 30/m")
      }
      return rate
    }
  }
}

extension ValueType<HostPort> {
  /// An address: 10.0.0.7:7000, gateway-1:7000, [::1]:7000, or :7000 for all addresses.
  public static var hostPort: ValueType<HostPort> {
    ValueType("HOST:PORT") { (text) throws(BadValue) in
      let full = text.hasPrefix(":") ? "0.0.0.0\(text)" : text
      guard let address = HostPort(full), !address.host.contains(where: { "[]/ ".contains($0) }) else {
        throw BadValue("is not HOST:PORT with a port of 0 ... 65535")
      }
      return address
    }
  }
}

extension ValueType<KeyValue> {
  /// A pair: region=eu.
  public static var keyValue: ValueType<KeyValue> {
    ValueType<KeyValue>("K=V") { (text) throws(BadValue) in
      let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2, !parts[0].isEmpty else { throw BadValue("is not KEY=VALUE") }
      return KeyValue(key: String(parts[0]), value: String(parts[1]))
    }
  }
}

/// A key with its value.
public struct KeyValue: Sendable, Hashable {
  public var key: String
  public var value: String
}

/// A decimal number and one of the units, as a product; nil when the text is anything else.
private func quantity(_ text: String, _ units: [(String, Double)]) -> Double? {
  let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
  guard let value = Double(number), let unit = units.first(where: { $0.0 == text[number.endIndex...] }) else {
    return nil
  }
  return value * unit.1
}
