/// Lines that are drawn again in place while something goes on; nothing where stderr is no terminal. Belongs to its loop.
final class ProgressBars {
  static let width = 30
  /// Bars at once.
  static let maximumBars = 20

  private let terminal: Terminal
  private var drawn: [String] = []

  init(_ terminal: Terminal) { self.terminal = terminal }

  struct Bar {
    var label: String
    var fraction: Double
    var note: String
  }

  /// Bars under some lines and above others.
  func show(head: [String] = [], _ bars: [Bar], foot: [String] = []) {
    guard terminal.canRedraw else { return }
    let labelWidth = bars.map(\.label.count).max() ?? 0
    show(lines: head + bars.map { Self.line($0, labelWidth) } + foot)
  }

  func show(lines: [String]) {
    guard terminal.canRedraw, lines != drawn else { return }
    // CSI n F: to the start of the line n lines up; CSI K: clear to the end of the line.
    var text = drawn.isEmpty ? "" : "\u{1B}[\(drawn.count)F"
    for line in lines { text += "\u{1B}[K\(line)\n" }
    for _ in lines.count..<max(lines.count, drawn.count) { text += "\u{1B}[K\n" }
    terminal.draw(text)
    drawn = lines + Array(repeating: "", count: max(0, drawn.count - lines.count))
  }

  private static func line(_ bar: Bar, _ labelWidth: Int) -> String {
    let fraction = min(1, max(0, bar.fraction))
    let filled = Int(fraction * Double(width))
    let label = printable(bar.label) + String(repeating: " ", count: labelWidth - bar.label.count)
    let percent = String(Int(fraction * 100))
    return "\(label) [\(String(repeating: "#", count: filled))\(String(repeating: ".", count: width - filled))] "
      + "\(String(repeating: " ", count: 3 - percent.count))\(percent) %  \(printable(bar.note))"
  }
}
