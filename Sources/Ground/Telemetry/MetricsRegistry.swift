internal import Synchronization

/// The metrics of a process, and their text for Prometheus.
///
/// Asking twice for the same name and labels yields the same instrument. Labels are fixed when an instrument is made;
/// make it once, keep it, and update it without a look-up. All methods are usable from any thread.
///
///     let delivered = metrics.counter("fleetpush_delivered_total", "Messages written to clients.", ["kind": "text"])
///     delivered.increment()
public final class MetricsRegistry: Sendable {
  /// Label names and values, in the order in which they are printed.
  public typealias Labels = KeyValuePairs<String, String>

  enum Instrument: Sendable {
    case counter(Counter)
    case gauge(Gauge)
    case histogram(Histogram)
    case computed(@Sendable () -> Double)
  }

  struct Series: Sendable {
    /// `a="1",b="2"`, escaped.
    let labels: String
    let instrument: Instrument
  }

  struct Family: Sendable {
    let name: String
    let help: String
    let type: String
    var series: [Series] = []
  }

  private let families = Mutex<[Family]>([])

  public init() {}

  /// A number that only rises; its name ends in `_total`.
  public func counter(_ name: String, _ help: String, _ labels: Labels = [:]) -> Counter {
    let instrument = instrument(name, help, "counter", labels) { .counter(Counter()) }
    guard case .counter(let counter) = instrument else { preconditionFailure("\(name) is not a counter") }
    return counter
  }

  /// A number that rises and falls.
  public func gauge(_ name: String, _ help: String, _ labels: Labels = [:]) -> Gauge {
    let instrument = instrument(name, help, "gauge", labels) { .gauge(Gauge()) }
    guard case .gauge(let gauge) = instrument else { preconditionFailure("\(name) is not a gauge") }
    return gauge
  }

  /// Observations by size, such as latencies in seconds.
  public func histogram(
    _ name: String, _ help: String, _ labels: Labels = [:], bounds: [Double] = Histogram.latencyBounds
  ) -> Histogram {
    let instrument = instrument(name, help, "histogram", labels) { .histogram(Histogram(bounds: bounds)) }
    guard case .histogram(let histogram) = instrument else { preconditionFailure("\(name) is not a histogram") }
    return histogram
  }

  /// A gauge that is computed when it is read, on the reader's thread.
  public func gauge(_ name: String, _ help: String, _ labels: Labels = [:], read: @escaping @Sendable () -> Double) {
    _ = instrument(name, help, "gauge", labels) { .computed(read) }
  }

  /// A counter that is computed when it is read, on the reader's thread.
  public func counter(_ name: String, _ help: String, _ labels: Labels = [:], read: @escaping @Sendable () -> Double) {
    _ = instrument(name, help, "counter", labels) { .computed(read) }
  }

  private func instrument(
    _ name: String, _ help: String, _ type: String, _ labels: Labels, _ make: () -> Instrument
  ) -> Instrument {
    precondition(isMetricName(name), "not a metric name: \(name)")
    precondition(labels.allSatisfy { isLabelName($0.key) }, "not a label name in \(labels)")
    let text = labels.map { "\($0.key)=\"\(escapedLabel($0.value))\"" }.joined(separator: ",")
    return families.withLock { families in
      let index =
        families.firstIndex { $0.name == name }
        ?? {
          families.append(Family(name: name, help: help, type: type))
          return families.count - 1
        }()
      precondition(families[index].type == type, "\(name) is already a \(families[index].type)")
      if let found = families[index].series.first(where: { $0.labels == text }) { return found.instrument }
      let instrument = make()
      families[index].series.append(Series(labels: text, instrument: instrument))
      return instrument
    }
  }

  /// All metrics in Prometheus' text exposition format 0.0.4 (`text/plain; version=0.0.4`).
  public func render() -> String {
    // The computed ones run outside the lock: they may ask the registry for instruments.
    let families = families.withLock { $0 }
    var text = ""
    for family in families {
      text += "# HELP \(family.name) \(escapedHelp(family.help))\n# TYPE \(family.name) \(family.type)\n"
      for series in family.series { render(series, of: family.name, into: &text) }
    }
    return text
  }

  private func render(_ series: Series, of name: String, into text: inout String) {
    func line(_ name: String, _ labels: String, _ value: String) {
      text += labels.isEmpty ? "\(name) \(value)\n" : "\(name){\(labels)} \(value)\n"
    }
    switch series.instrument {
    case .counter(let counter): line(name, series.labels, String(counter.value))
    case .gauge(let gauge): line(name, series.labels, String(gauge.value))
    case .computed(let read): line(name, series.labels, number(read()))
    case .histogram(let histogram):
      let prefix = series.labels.isEmpty ? "" : series.labels + ","
      let counts = histogram.cumulativeCounts
      for (bound, count) in zip(histogram.bounds, counts) {
        line("\(name)_bucket", "\(prefix)le=\"\(number(bound))\"", String(count))
      }
      // One reading serves the last bucket and the count, which have to agree.
      let total = counts.last ?? 0
      line("\(name)_bucket", "\(prefix)le=\"+Inf\"", String(total))
      line("\(name)_sum", series.labels, number(histogram.sum))
      line("\(name)_count", series.labels, String(total))
    }
  }
}

/// A number as Go's ParseFloat reads it; whole numbers without a fraction.
private func number(_ value: Double) -> String {
  if value.isNaN { return "NaN" }
  if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
  if value == value.rounded(), abs(value) < 9e15 { return String(Int64(value)) }
  return String(value)
}

private func escapedLabel(_ value: String) -> String {
  var escaped = ""
  for scalar in value.unicodeScalars {
    switch scalar {
    case "\\": escaped += "\\\\"
    case "\"": escaped += "\\\""
    case "\n": escaped += "\\n"
    default: escaped.unicodeScalars.append(scalar)
    }
  }
  return escaped
}

private func escapedHelp(_ help: String) -> String {
  var escaped = ""
  for scalar in help.unicodeScalars {
    switch scalar {
    case "\\": escaped += "\\\\"
    case "\n": escaped += "\\n"
    default: escaped.unicodeScalars.append(scalar)
    }
  }
  return escaped
}

private func isMetricName(_ name: String) -> Bool { isName(name, colons: true) }

private func isLabelName(_ name: String) -> Bool { isName(name, colons: false) && name != "le" }

private func isName(_ name: String, colons: Bool) -> Bool {
  guard let first = name.utf8.first, !(0x30...0x39).contains(first) else { return false }
  return name.utf8.allSatisfy { byte in
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"): true
    case UInt8(ascii: ":"): colons
    default: false
    }
  }
}
