/// Writes the Swift type of one enum: a case for each number, and one for the numbers that a newer schema may have.
struct EnumWriter {
  let descriptor: EnumDescriptor
  let path: [Int32]
  let file: FileDescriptor

  init(_ descriptor: EnumDescriptor, path: [Int32], _ file: FileDescriptor) {
    self.descriptor = descriptor
    self.path = path
    self.file = file
  }

  func write(to source: inout Source) {
    let names = caseNames(of: descriptor)
    var cases: [(name: String, schemaName: String, number: Int32, index: Int)] = []
    var aliases: [(name: String, of: String)] = []
    for (index, value) in descriptor.values.enumerated() {
      if let first = cases.first(where: { $0.number == value.number }) {
        aliases.append((names[index], first.name))
      } else {
        cases.append((names[index], value.name, value.number, index))
      }
    }
    source.documentation(file.comments[path])
    source.block("public enum \(descriptor.name): OpenEnum") { source in
      for item in cases {
        source.documentation(file.comments[path + [2, Int32(item.index)]])
        source.line("case \(item.name)")
      }
      source.line("/// A number that this version of the schema doesn't know.")
      source.line("case unrecognized(Int32)")
      for alias in aliases { source.line("public static var \(alias.name): Self { .\(alias.of) }") }
      source.line()
      let zero = cases.first { $0.number == 0 }.map(\.name) ?? "unrecognized(0)"
      source.line("public init() { self = .\(zero) }")
      source.line()
      source.block("public init(rawValue: Int32)") { source in
        source.line("switch rawValue {")
        for item in cases { source.line("case \(item.number): self = .\(item.name)") }
        source.line("default: self = .unrecognized(rawValue)")
        source.line("}")
      }
      source.line()
      source.block("public var rawValue: Int32") { source in
        source.line("switch self {")
        for item in cases { source.line("case .\(item.name): \(item.number)") }
        source.line("case .unrecognized(let number): number")
        source.line("}")
      }
      source.line()
      source.block("public var name: String") { source in
        source.line("switch self {")
        for item in cases { source.line("case .\(item.name): \"\(item.schemaName)\"") }
        source.line("case .unrecognized(let number): String(number)")
        source.line("}")
      }
    }
  }
}
