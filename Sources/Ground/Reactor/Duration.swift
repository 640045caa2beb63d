extension Duration {
  /// The whole nanoseconds; what doesn't fit is clamped.
  public var nanoseconds: Int64 {
    let (seconds, attoseconds) = components
    let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    guard !overflow else { return seconds < 0 ? .min : .max }
    let (sum, overflowed) = product.addingReportingOverflow(attoseconds / 1_000_000_000)
    return overflowed ? .max : sum
  }

  /// The whole milliseconds, as protocols and Redis take times.
  public var wholeMilliseconds: Int64 { nanoseconds / 1_000_000 }
}
