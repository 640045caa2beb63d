/// Every type that a request mentions, by its full name with a leading dot.
struct Catalogue {
  /// Past this many bytes a singular message field gets memory of its own.
  static let inlineLimit = 64

  private(set) var swiftNames: [String: String] = [:]
  private(set) var messages: [String: MessageDescriptor] = [:]
  private var reachable: [String: Set<String>] = [:]
  private var sizes: [String: Int] = [:]

  init(_ files: [FileDescriptor]) {
    for file in files {
      let scope = file.package.isEmpty ? "" : "." + file.package
      let outer = namespace(of: file)
      for message in file.messages { add(message, scope, outer) }
      for descriptor in file.enums { swiftNames["\(scope).\(descriptor.name)"] = "\(outer).\(descriptor.name)" }
    }
    for name in messages.keys { reachable[name] = reach(from: name) }
    for name in messages.keys.sorted() { _ = measure(name) }
  }

  private mutating func add(_ message: MessageDescriptor, _ scope: String, _ outer: String) {
    let name = "\(scope).\(message.name)"
    let swiftName = "\(outer).\(message.name)"
    messages[name] = message
    swiftNames[name] = swiftName
    for nested in message.messages { add(nested, name, swiftName) }
    for descriptor in message.enums { swiftNames["\(name).\(descriptor.name)"] = "\(swiftName).\(descriptor.name)" }
  }

  func swiftName(_ typeName: String) -> String { swiftNames[typeName] ?? typeName }

  /// The key and value of a map field, or nil for any other field.
  func mapEntry(_ field: FieldDescriptor) -> (key: FieldDescriptor, value: FieldDescriptor)? {
    guard field.kind == .message, let entry = messages[field.typeName], entry.isMapEntry, entry.fields.count == 2
    else { return nil }
    return (entry.fields[0], entry.fields[1])
  }

  /// Whether a singular message field of `owner` is to live in memory of its own: because it may contain the owner
  /// again, or because it is large.
  func isBoxed(_ field: FieldDescriptor, in owner: String) -> Bool {
    field.typeName == owner || reachable[field.typeName]?.contains(owner) == true
      || sizes[field.typeName, default: 0] > Catalogue.inlineLimit
  }

  /// The messages that a message may contain through singular fields.
  private func reach(from name: String) -> Set<String> {
    var found: Set<String> = []
    var open = [name]
    while let next = open.popLast() {
      for field in messages[next]?.fields ?? [] where field.kind == .message && !field.isRepeated {
        if found.insert(field.typeName).inserted { open.append(field.typeName) }
      }
    }
    return found
  }

  /// About how many bytes a value takes in place.
  private mutating func measure(_ name: String) -> Int {
    if let known = sizes[name] { return known }
    guard let message = messages[name] else { return 0 }
    var size = 8  // the unknown fields
    var oneofs: [Int: Int] = [:]
    for field in message.fields {
      var own = 8
      if !field.isRepeated {
        switch field.kind {
        case .string: own = 16
        case .bytes: own = 24
        case .message:
          let recursive = field.typeName == name || reachable[field.typeName]?.contains(name) == true
          let inner = recursive ? 8 : measure(field.typeName)
          own = inner > Catalogue.inlineLimit ? 8 : inner + 1
        default: break
        }
      }
      if let index = field.oneofIndex { oneofs[index] = max(oneofs[index] ?? 0, own) } else { size += own }
    }
    size += oneofs.values.reduce(0, +)
    sizes[name] = size
    return size
  }
}
