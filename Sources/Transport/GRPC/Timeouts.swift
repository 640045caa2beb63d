internal import Reactor

/// The `grpc-timeout` header: up to eight digits and a unit.
enum Timeouts {
  static func encode(_ duration: Duration) -> String {
    let nanoseconds = max(0, duration.nanoseconds)
    for (unit, size) in [("n", Int64(1)), ("u", 1_000), ("m", 1_000_000), ("S", 1_000_000_000)] {
      // Rounded up: a server may not give up before its client does.
      let value = nanoseconds / size + (nanoseconds % size == 0 ? 0 : 1)
      if value <= 99_999_999 { return "\(value)\(unit)" }
    }
    return "99999999S"
  }

  /// nil for what isn't of the form.
  static func decode(_ text: String) -> Duration? {
    guard let unit = text.last, let value = Int64(text.dropLast()), value >= 0, text.count <= 9 else { return nil }
    switch unit {
    case "n": return .nanoseconds(value)
    case "u": return .microseconds(value)
    case "m": return .milliseconds(value)
    case "S": return .seconds(value)
    case "M": return .seconds(value * 60)
    case "H": return .seconds(value * 3600)
    default: return nil
    }
  }
}
