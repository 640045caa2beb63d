import Bytes
import Protobuf

// The parts of google/protobuf/descriptor.proto and compiler/plugin.proto that the generator looks at. Field numbers
// are those files'. `protoc` has checked everything already, so a model takes what is there.

/// Calls `body` with each tag; it reads or skips the value.
func eachField(
  of bytes: Bytes, _ body: (UInt32, inout WireReader) throws(ProtobufError) -> Void
) throws(ProtobufError) {
  // The reader holds bare pointers into the bytes.
  defer { withExtendedLifetime(bytes) {} }
  var reader = WireReader(bytes)
  while let tag = try reader.tag() { try body(tag, &reader) }
}

/// The tag of a delimited field.
private func delimited(_ number: UInt32) -> UInt32 { number << 3 | WireType.delimited.rawValue }

/// The tag of a varint field.
private func varint(_ number: UInt32) -> UInt32 { number << 3 | WireType.varint.rawValue }

/// What `protoc` sends.
struct GeneratorRequest {
  var filesToGenerate: [String] = []
  var parameter = ""
  var files: [FileDescriptor] = []

  init(_ bytes: Bytes) throws(ProtobufError) {
    try eachField(of: bytes) { (tag, reader) throws(ProtobufError) in
      switch tag {
      case delimited(1): filesToGenerate.append(try StringField.read(&reader))
      case delimited(2): parameter = try StringField.read(&reader)
      case delimited(15): files.append(try FileDescriptor(try BytesField.read(&reader)))
      default: try reader.skip(tag)
      }
    }
  }
}

struct FileDescriptor {
  var name = ""
  var package = ""
  var dependencies: [String] = []
  var messages: [MessageDescriptor] = []
  var enums: [EnumDescriptor] = []
  var services: [ServiceDescriptor] = []
  var swiftPrefix = ""
  /// Leading comments by the path of what they belong to (field numbers and indices, as in SourceCodeInfo).
  var comments: [[Int32]: String] = [:]
  /// The serialized descriptor without source positions and comments, for reflection.
  var stripped: [UInt8] = []

  init(_ bytes: Bytes) throws(ProtobufError) {
    var kept = UnknownFields()
    try eachField(of: bytes) { (tag, reader) throws(ProtobufError) in
      if tag == delimited(9) {
        try readComments(try BytesField.read(&reader))
      } else {
        try reader.unknown(tag, into: &kept)
      }
    }
    stripped = kept.serialized
    try eachField(of: Bytes(stripped)) { (tag, reader) throws(ProtobufError) in
      switch tag {
      case delimited(1): name = try StringField.read(&reader)
      case delimited(2): package = try StringField.read(&reader)
      case delimited(3): dependencies.append(try StringField.read(&reader))
      case delimited(4): messages.append(try MessageDescriptor(try BytesField.read(&reader)))
      case delimited(5): enums.append(try EnumDescriptor(try BytesField.read(&reader)))
      case delimited(6): services.append(try ServiceDescriptor(try BytesField.read(&reader)))
      case delimited(8): try readOptions(try BytesField.read(&reader))
      default: try reader.skip(tag)
      }
    }
  }

  private mutating func readOptions(_ bytes: Bytes) throws(ProtobufError) {
    try eachField(of: bytes) { (tag, reader) throws(ProtobufError) in
      if tag == delimited(39) { swiftPrefix = try StringField.read(&reader) } else { try reader.skip(tag) }
    }
  }

  private mutating func readComments(_ bytes: Bytes) throws(ProtobufError) {
    try eachField(of: bytes) { (tag, reader) throws(ProtobufError) in
      guard tag == delimited(1) else { return try reader.skip(tag) }
      var path: [Int32] = []
      var leading = ""
      try eachField(of: try BytesField.read(&reader)) { (tag, reader) throws(ProtobufError) in
        switch tag {
        case delimited(1): try Int32Field.read(packedInto: &path, &reader)
        case delimited(3): leading = try StringField.read(&reader)
        default: try reader.skip(tag)
        }
      }
      if !leading.isEmpty { comments[path] = leading }
    }
  }
}

struct MessageDescriptor {
  var name = ""
  var fields: [FieldDescriptor] = []
  var messages: [MessageDescriptor] = []
  var enums: [EnumDescriptor] = []
  var oneofs: [String] = []
  var isMapEntry = false

  init(_ bytes: Bytes) throws(ProtobufError) {
    try eachField(of: bytes) { (tag, reader) throws(ProtobufError) in
      switch tag {
      case delimited(1): name = try StringField.read(&reader)
      case delimited(2): fields.append(try FieldDescriptor(try BytesField.read(&reader)))
      case delimited(3): messages.append(try MessageDescriptor(try BytesField.read(&reader)))
      case delimited(4): enums.append(try EnumDescriptor(try BytesField.read(&reader)))
      case delimited(7): isMapEntry = try flag(7, in: try BytesField.read(&reader)) ?? false
      case delimited(8): oneofs.append(try firstString(in: try BytesField.read(&reader)))
      default: try reader.skip(tag)
      }
    }
  }
}

struct FieldDescriptor {
  /// FieldDescriptorProto.Type.
  enum Kind: UInt64 {
    case double = 1
    case float, int64, uint64, int32, fixed64, fixed32, bool, string, group, message, bytes, uint32, `enum`
    case sfixed32, sfixed64, sint32, sint64
  }

  var name = ""
  var number: UInt32 = 0
  var isRepeated = false
  var kind = Kind.group
  /// With a leading dot; for messages and enums.
  var typeName = ""
  var oneofIndex: Int?
  var isProto3Optional = false
  /// The `packed` option, where it is written.
  var packedOption: Bool?

  init(_ bytes: Bytes) throws(ProtobufError) {
    try eachField(of: bytes) { (tag, reader) throws(ProtobufError) in
      switch tag {
      case delimited(1): name = try StringField.read(&reader)
      case varint(3): number = try UInt32Field.read(&reader)
      case varint(4): isRepeated = try reader.varint() == 3
      case varint(5): kind = Kind(rawValue: try reader.varint()) ?? .group
      case delimited(6): typeName = try StringField.read(&reader)
      case delimited(8): packedOption = try flag(2, in: try BytesField.read(&reader))
      case varint(9): oneofIndex = Int(try Int32Field.read(&reader))
      case varint(17): isProto3Optional = try BoolField.read(&reader)
      default: try reader.skip(tag)
      }
    }
  }
}

struct EnumDescriptor {
  var name = ""
  var values: [(name: String, number: Int32)] = []

  init(_ bytes: Bytes) throws(ProtobufError) {
    try eachField(of: bytes) { (tag, reader) throws(ProtobufError) in
      switch tag {
      case delimited(1): name = try StringField.read(&reader)
      case delimited(2):
        var value = (name: "", number: Int32(0))
        try eachField(of: try BytesField.read(&reader)) { (tag, reader) throws(ProtobufError) in
          switch tag {
          case delimited(1): value.name = try StringField.read(&reader)
          case varint(2): value.number = try Int32Field.read(&reader)
          default: try reader.skip(tag)
          }
        }
        values.append(value)
      default: try reader.skip(tag)
      }
    }
  }
}

struct ServiceDescriptor {
  struct MethodDescriptor {
    var name = ""
    var input = ""
    var output = ""
    var clientStreaming = false
    var serverStreaming = false
  }

  var name = ""
  var methods: [MethodDescriptor] = []

  init(_ bytes: Bytes) throws(ProtobufError) {
    try eachField(of: bytes) { (tag, reader) throws(ProtobufError) in
      switch tag {
      case delimited(1): name = try StringField.read(&reader)
      case delimited(2): methods.append(try ServiceDescriptor.method(try BytesField.read(&reader)))
      default: try reader.skip(tag)
      }
    }
  }

  private static func method(_ bytes: Bytes) throws(ProtobufError) -> MethodDescriptor {
    var method = MethodDescriptor()
    try eachField(of: bytes) { (tag, reader) throws(ProtobufError) in
      switch tag {
      case delimited(1): method.name = try StringField.read(&reader)
      case delimited(2): method.input = try StringField.read(&reader)
      case delimited(3): method.output = try StringField.read(&reader)
      case varint(5): method.clientStreaming = try BoolField.read(&reader)
      case varint(6): method.serverStreaming = try BoolField.read(&reader)
      default: try reader.skip(tag)
      }
    }
    return method
  }
}

/// The first field of a message that has its name there.
private func firstString(in bytes: Bytes) throws(ProtobufError) -> String {
  var value = ""
  try eachField(of: bytes) { (tag, reader) throws(ProtobufError) in
    if tag == delimited(1) { value = try StringField.read(&reader) } else { try reader.skip(tag) }
  }
  return value
}

/// A bool among options, or nil when it isn't written.
private func flag(_ number: UInt32, in bytes: Bytes) throws(ProtobufError) -> Bool? {
  var value: Bool?
  try eachField(of: bytes) { (tag, reader) throws(ProtobufError) in
    if tag == varint(number) { value = try BoolField.read(&reader) } else { try reader.skip(tag) }
  }
  return value
}
