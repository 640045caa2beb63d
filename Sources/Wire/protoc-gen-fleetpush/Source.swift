/// Swift source in the making: lines with their indentation.
struct Source {
  private(set) var text = ""
  private var depth = 0

  mutating func line(_ line: String = "") {
    if !line.isEmpty { text += String(repeating: "  ", count: depth) + line }
    text += "\n"
  }

  /// A line that opens a brace, what is inside, and the closing brace.
  mutating func block(_ head: String, _ body: (inout Source) -> Void) {
    line(head + " {")
    depth += 1
    body(&self)
    depth -= 1
    line("}")
  }

  /// A comment of the schema as documentation.
  mutating func documentation(_ comment: String?) {
    guard let comment else { return }
    for part in comment.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
      let content = part.first == " " ? part.dropFirst() : part
      line(content.isEmpty ? "///" : "/// \(content)")
    }
  }
}
