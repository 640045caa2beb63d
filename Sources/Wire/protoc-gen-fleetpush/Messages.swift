/// Writes the Swift type of one message.
struct MessageWriter {
  let catalogue: Catalogue
  let file: FileDescriptor
  let descriptor: MessageDescriptor
  /// With a leading dot.
  let fullName: String
  /// Where it stands, in SourceCodeInfo's terms.
  let path: [Int32]
  private let fields: [Field]

  init(
    _ descriptor: MessageDescriptor, in scope: String, path: [Int32], _ file: FileDescriptor, _ catalogue: Catalogue
  ) {
    self.catalogue = catalogue
    self.file = file
    self.descriptor = descriptor
    self.path = path
    let name = "\(scope).\(descriptor.name)"
    fullName = name
    fields = descriptor.fields.enumerated().map { Field($1, index: $0, owner: name, catalogue) }
  }

  func write(to source: inout Source) {
    source.documentation(file.comments[path])
    source.block("public struct \(descriptor.name): Message") { source in
      source.line("public static var fullName: String { \"\(fullName.dropFirst())\" }")
      properties(&source)
      source.line("public var unknownFields = UnknownFields()")
      initialisers(&source)
      decode(&source)
      encodedSize(&source)
      encode(&source)
      for index in realOneofs { oneof(index, &source) }
      nestedTypes(&source)
    }
  }

  private func nestedTypes(_ source: inout Source) {
    for (index, nested) in descriptor.messages.enumerated() where !nested.isMapEntry {
      source.line()
      MessageWriter(nested, in: fullName, path: path + [3, Int32(index)], file, catalogue).write(to: &source)
    }
    for (index, nested) in descriptor.enums.enumerated() {
      source.line()
      EnumWriter(nested, path: path + [4, Int32(index)], file).write(to: &source)
    }
  }

  // MARK: Oneofs

  /// Those that the schema shows; an explicit `optional` has a hidden one.
  private var realOneofs: [Int] {
    descriptor.oneofs.indices.filter { !members(of: $0).isEmpty }
  }

  private func members(of oneof: Int) -> [Field] {
    fields.filter { field in
      if case .member(oneof) = field.shape { true } else { false }
    }
  }

  private func typeName(ofOneof index: Int) -> String {
    let name = upperCamel(descriptor.oneofs[index])
    let taken = descriptor.messages.map(\.name) + descriptor.enums.map(\.name)
    return taken.contains(name) ? name + "Choice" : name
  }

  private func oneof(_ index: Int, _ source: inout Source) {
    source.line()
    source.documentation(file.comments[path + [8, Int32(index)]])
    source.block("public enum \(typeName(ofOneof: index)): Sendable, Equatable") { source in
      for field in members(of: index) {
        source.documentation(comment(of: field))
        source.line("\(field.isIndirect ? "indirect " : "")case \(field.name)(\(field.element))")
      }
    }
  }

  // MARK: Properties

  private func comment(of field: Field) -> String? { file.comments[path + [2, Int32(field.index)]] }

  /// Names, types and defaults in the order of the schema.
  private var storedProperties: [(name: String, type: String, defaultValue: String, field: Field?)] {
    var properties: [(name: String, type: String, defaultValue: String, field: Field?)] = []
    var seen: Set<Int> = []
    for field in fields {
      guard case .member(let oneof) = field.shape else {
        properties.append((field.name, field.type, field.defaultValue, field))
        continue
      }
      guard seen.insert(oneof).inserted else { continue }
      properties.append((propertyName(descriptor.oneofs[oneof]), typeName(ofOneof: oneof) + "?", "nil", nil))
    }
    return properties
  }

  private func properties(_ source: inout Source) {
    for property in storedProperties {
      source.documentation(property.field.flatMap(comment))
      var wrapper = ""
      if case .boxed? = property.field?.shape { wrapper = "@Boxed " }
      source.line("\(wrapper)public var \(property.name): \(property.type) = \(property.defaultValue)")
    }
  }

  private func initialisers(_ source: inout Source) {
    source.line()
    source.line("public init() {}")
    let properties = storedProperties
    guard !properties.isEmpty else { return }
    source.line()
    source.line("public init(")
    for (index, property) in properties.enumerated() {
      let comma = index == properties.count - 1 ? "" : ","
      source.line("  \(property.name): \(property.type) = \(property.defaultValue)\(comma)")
    }
    source.block(")") { source in
      for property in properties { source.line("self.\(property.name) = \(property.name)") }
    }
  }

  // MARK: Reading

  private func decode(_ source: inout Source) {
    source.line()
    source.block("public mutating func decode(from reader: inout WireReader) throws(ProtobufError)") { source in
      source.block("while let tag = try reader.tag()") { source in
        source.line("switch tag {")
        for field in fields { decode(field, &source) }
        source.line("default: try reader.unknown(tag, into: &self.unknownFields)")
        source.line("}")
      }
    }
  }

  private func decode(_ field: Field, _ source: inout Source) {
    let isMessage = field.descriptor.kind == .message
    switch field.shape {
    case .plain: source.line("case \(field.tag): self.\(field.name) = try \(field.kind).read(&reader)")
    case .optional, .boxed:
      let read =
        isMessage ? "try reader.message(&self.\(field.name))" : "self.\(field.name) = try \(field.kind).read(&reader)"
      source.line("case \(field.tag): \(read)")
    case .repeated, .packed:
      let read =
        isMessage
        ? "try reader.message(appendingTo: &self.\(field.name))"
        : "self.\(field.name).append(try \(field.kind).read(&reader))"
      source.line("case \(field.tag): \(read)")
      if field.isPackable {
        source.line("case \(field.packedTag): try \(field.kind).read(packedInto: &self.\(field.name), &reader)")
      }
    case .map(let key, let value, _):
      source.line("case \(field.tag): try MapField<\(key), \(value)>.read(into: &self.\(field.name), &reader)")
    case .member(let oneof):
      let property = propertyName(descriptor.oneofs[oneof])
      guard isMessage else {
        source.line("case \(field.tag): self.\(property) = .\(field.name)(try \(field.kind).read(&reader))")
        return
      }
      source.line("case \(field.tag):")
      source.line("  var value = \(field.element)()")
      source.line("  if case .\(field.name)(let present)? = self.\(property) { value = present }")
      source.line("  try reader.message(&value)")
      source.line("  self.\(property) = .\(field.name)(value)")
    }
  }

  // MARK: Writing

  private func encodedSize(_ source: inout Source) {
    source.line()
    source.block("public var encodedSize: Int") { source in
      guard !fields.isEmpty else { return source.line("self.unknownFields.count") }
      source.line("var size = self.unknownFields.count")
      for field in fields {
        guard let (function, label) = call(field) else { continue }
        source.line("size += \(function).size(\(label)self.\(field.name), \(field.number))")
      }
      for oneof in realOneofs {
        source.line("switch self.\(propertyName(descriptor.oneofs[oneof])) {")
        for field in members(of: oneof) {
          source.line("case .\(field.name)(let value)?: size += \(field.kind).size(present: value, \(field.number))")
        }
        source.line("case nil: break")
        source.line("}")
      }
      source.line("return size")
    }
  }

  /// The type with `size` and `write`, and the label of the value; nil for members of a oneof.
  private func call(_ field: Field) -> (function: String, label: String)? {
    switch field.shape {
    case .plain: (field.kind, "")
    case .optional, .boxed: (field.kind, "optional: ")
    case .repeated: (field.kind, "repeated: ")
    case .packed: (field.kind, "packed: ")
    case .map(let key, let value, _): ("MapField<\(key), \(value)>", "")
    case .member: nil
    }
  }

  /// By falling field number, as the writer goes backwards.
  private func encode(_ source: inout Source) {
    source.line()
    source.block("public func encode(into writer: inout WireWriter)") { source in
      source.line("writer.unknown(self.unknownFields)")
      for field in fields.sorted(by: { $0.number > $1.number }) {
        if let (function, label) = call(field) {
          source.line("\(function).write(\(label)self.\(field.name), \(field.number), to: &writer)")
        } else if case .member(let oneof) = field.shape {
          let property = propertyName(descriptor.oneofs[oneof])
          source.block("if case .\(field.name)(let value)? = self.\(property)") { source in
            source.line("\(field.kind).write(present: value, \(field.number), to: &writer)")
          }
        }
      }
    }
  }
}
