/// What an attribute of a log record may hold.
public protocol LogValue: Sendable {
  var logged: LoggedValue { get }
}

/// The two ways in which a value is printed.
public enum LoggedValue: Sendable {
  /// Quoted and escaped.
  case text(String)
  /// Valid JSON as it stands: a number, true, false or null.
  case bare(String)
}

extension String: LogValue {
  public var logged: LoggedValue { .text(self) }
}

extension Substring: LogValue {
  public var logged: LoggedValue { .text(String(self)) }
}

extension Bool: LogValue {
  public var logged: LoggedValue { .bare(self ? "true" : "false") }
}

extension Int: LogValue {
  public var logged: LoggedValue { .bare(String(self)) }
}

extension Int32: LogValue {
  public var logged: LoggedValue { .bare(String(self)) }
}

extension UInt32: LogValue {
  public var logged: LoggedValue { .bare(String(self)) }
}

extension Int64: LogValue {
  public var logged: LoggedValue { .bare(String(self)) }
}

extension UInt64: LogValue {
  public var logged: LoggedValue { .bare(String(self)) }
}

extension Double: LogValue {
  /// JSON has no infinity and no NaN; they become text.
  public var logged: LoggedValue { isFinite ? .bare(String(self)) : .text(String(self)) }
}

extension Duration: LogValue {
  /// Seconds as a number.
  public var logged: LoggedValue {
    .bare(String(Double(components.seconds) + Double(components.attoseconds) * 1e-18))
  }
}

extension Optional: LogValue where Wrapped: LogValue {
  public var logged: LoggedValue { self?.logged ?? .bare("null") }
}

extension Array: LogValue where Element == String {
  public var logged: LoggedValue { .text(joined(separator: ",")) }
}
