internal import Glibc

/// Where results and progress go: results to stdout, progress and errors to stderr.
struct Terminal: Sendable {
  /// Takes whole lines for stdout.
  var print: @Sendable (String) -> Void
  /// Takes what is drawn on stderr.
  var draw: @Sendable (String) -> Void
  /// Whether stderr is a terminal, on which lines can be drawn again.
  var canRedraw: Bool

  static let standard = Terminal(
    print: { writeAll($0 + "\n", to: STDOUT_FILENO) }, draw: { writeAll($0, to: STDERR_FILENO) },
    canRedraw: isatty(STDERR_FILENO) == 1)

  /// A reader that has gone away (EPIPE) gets nothing more.
  private static func writeAll(_ text: String, to file: Int32) {
    var text = text
    text.withUTF8 { utf8 in
      var rest = UnsafeRawBufferPointer(utf8)
      while !rest.isEmpty {
        let count = write(file, rest.baseAddress, rest.count)
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { return }
        rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      }
    }
  }
}

/// Text from a server without control characters, which could steer a terminal.
func printable(_ text: String) -> String {
  var clean = String.UnicodeScalarView()
  for scalar in text.unicodeScalars {
    clean.append(scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) ? "?" : scalar)
  }
  return String(clean)
}

/// A size for people: `64.0 MiB`.
func readableSize(_ bytes: Int64) -> String {
  let units = ["B", "KiB", "MiB", "GiB", "TiB"]
  var (value, unit) = (Double(bytes), 0)
  while value >= 1024, unit < units.count - 1 {
    value /= 1024
    unit += 1
  }
  return unit == 0 ? "\(bytes) B" : "\(oneDecimal(value)) \(units[unit])"
}

/// A time in seconds for people: `1.3 s`.
func readableSeconds(_ milliseconds: Int64) -> String { "\(oneDecimal(Double(milliseconds) / 1000)) s" }

private func oneDecimal(_ value: Double) -> String {
  let tenths = Int64((value * 10).rounded())
  return "\(tenths / 10).\(tenths % 10)"
}

/// Rows under a head, in columns.
func columns(_ head: [String], _ rows: [[String]]) -> String {
  let all = [head] + rows.map { $0.map(printable) }
  let widths = head.indices.map { column in all.map { $0[column].count }.max() ?? 0 }
  let lines = all.map { row in
    zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }.joined(separator: "  ").trimmedEnd
  }
  return lines.joined(separator: "\n")
}

extension String {
  fileprivate var trimmedEnd: String {
    var text = self[...]
    while text.last == " " { text = text.dropLast() }
    return String(text)
  }
}
