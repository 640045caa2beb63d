// From the schema's names to Swift's.

/// `last_session_id` → `lastSessionID`; quoted where Swift reserves the word.
func propertyName(_ name: String) -> String {
  let camel = lowerCamel(name)
  if ["encodedSize", "unknownFields", "init", "self", "Type"].contains(camel) { return camel + "_" }
  return quoted(camel)
}

/// The same without quotes or marks, for a part of another name.
func lowerCamel(_ name: String) -> String {
  var words = name.split(separator: "_").map(String.init)
  guard let first = words.first else { return "_" }
  let shouts = !name.contains { $0.isLowercase }
  if shouts { words = words.map { $0.lowercased() } }
  words[0] = shouts ? words[0] : first.prefix(1).lowercased() + first.dropFirst()
  let camel = words[0] + words.dropFirst().map(capitalised).joined()
  return camel.first.map(\.isNumber) == true ? "_" + camel : camel
}

/// `FileNotice`, `payload` → `Payload`.
func upperCamel(_ name: String) -> String {
  name.split(separator: "_").map { capitalised(String($0)) }.joined()
}

private func capitalised(_ word: String) -> String {
  switch word {
  case "id": "ID"
  case "ids": "IDs"
  case "md5": "MD5"
  case "md5s": "MD5s"
  case "sha256": "SHA256"
  case "url": "URL"
  default: word.prefix(1).uppercased() + word.dropFirst()
  }
}

func quoted(_ name: String) -> String {
  let reserved: Set<String> = [
    "as", "associatedtype", "break", "case", "catch", "class", "continue", "default", "defer", "deinit", "do", "else",
    "enum", "extension", "fallthrough", "false", "fileprivate", "for", "func", "guard", "if", "import", "in", "inout",
    "internal", "is", "let", "nil", "operator", "precedencegroup", "private", "protocol", "public", "repeat",
    "rethrows", "return", "static", "struct", "subscript", "super", "switch", "throw", "throws", "true", "try",
    "typealias", "var", "where", "while", "self", "init",
  ]
  return reserved.contains(name) ? "`\(name)`" : name
}

/// The cases of an enum: values without the prefix that repeats the enum's name (`QOS_` for `QoS`).
func caseNames(of descriptor: EnumDescriptor) -> [String] {
  let prefix = descriptor.name.uppercased().filter { $0 != "_" }
  let stripped = descriptor.values.map { dropPrefix(prefix, from: $0.name) }
  let allHaveIt = stripped.allSatisfy { $0 != nil }
  return zip(descriptor.values, stripped).map { value, short in
    let camel = lowerCamel(allHaveIt ? short ?? value.name : value.name)
    return camel == "unrecognized" ? "unrecognized_" : quoted(camel)
  }
}

/// What follows a prefix that may have underscores in between, or nil.
private func dropPrefix(_ prefix: String, from name: String) -> String? {
  var rest = name[...]
  for character in prefix {
    while rest.first == "_" { rest = rest.dropFirst() }
    guard rest.first?.uppercased() == String(character) else { return nil }
    rest = rest.dropFirst()
  }
  guard rest.first == "_" else { return nil }
  rest = rest.drop { $0 == "_" }
  return rest.isEmpty ? nil : String(rest)
}

/// The namespace of a file's types: its `swift_prefix`, or its package in capitals: `push.v1` → `PushV1`.
func namespace(of file: FileDescriptor) -> String {
  guard file.swiftPrefix.isEmpty else { return file.swiftPrefix }
  return file.package.split(separator: ".").map { capitalised(String($0)) }.joined()
}

/// `push/v1/push.proto` → `push.v1.push.swift`; the build plugin counts on it.
func outputName(of file: FileDescriptor) -> String {
  stem(of: file).joined(separator: ".") + ".swift"
}

/// `push/v1/push.proto` → `push_v1_push`.
func identifier(of file: FileDescriptor) -> String {
  stem(of: file).joined(separator: "_")
}

private func stem(of file: FileDescriptor) -> [Substring] {
  file.name.dropLast(".proto".count).split(separator: "/")
}
