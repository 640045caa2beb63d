/// How one field looks in Swift.
struct Field {
  enum Shape {
    /// Without presence of its own.
    case plain
    /// An optional: explicit `optional`, or a message.
    case optional
    /// A message in memory of its own.
    case boxed
    case repeated
    case packed
    case map(key: String, value: String, type: String)
    /// A case of an enum with payloads.
    case member(oneof: Int)
  }

  let descriptor: FieldDescriptor
  let index: Int
  let name: String
  /// The type of one value.
  let element: String
  /// The `FieldKind` of one value.
  let kind: String
  let shape: Shape
  /// A oneof's payload in memory of its own.
  let isIndirect: Bool

  var number: UInt32 { descriptor.number }

  init(_ descriptor: FieldDescriptor, index: Int, owner: String, _ catalogue: Catalogue) {
    self.descriptor = descriptor
    self.index = index
    name = propertyName(descriptor.name)
    (element, kind) = Field.types(descriptor, catalogue)
    let isMessage = descriptor.kind == .message
    let isBoxed = isMessage && !descriptor.isRepeated && catalogue.isBoxed(descriptor, in: owner)
    isIndirect = isBoxed
    if let (key, value) = catalogue.mapEntry(descriptor) {
      let (keyType, keyKind) = Field.types(key, catalogue)
      let (valueType, valueKind) = Field.types(value, catalogue)
      shape = .map(key: keyKind, value: valueKind, type: "[\(keyType): \(valueType)]")
    } else if descriptor.isRepeated {
      let packable = !isMessage && descriptor.kind != .string && descriptor.kind != .bytes
      shape = packable && descriptor.packedOption != false ? .packed : .repeated
    } else if let oneof = descriptor.oneofIndex, !descriptor.isProto3Optional {
      shape = .member(oneof: oneof)
    } else if isMessage {
      shape = isBoxed ? .boxed : .optional
    } else {
      shape = descriptor.isProto3Optional ? .optional : .plain
    }
  }

  private static func types(_ field: FieldDescriptor, _ catalogue: Catalogue) -> (element: String, kind: String) {
    let named = catalogue.swiftName(field.typeName)
    switch field.kind {
    case .double: return ("Double", "DoubleField")
    case .float: return ("Float", "FloatField")
    case .int64: return ("Int64", "Int64Field")
    case .uint64: return ("UInt64", "UInt64Field")
    case .int32: return ("Int32", "Int32Field")
    case .fixed64: return ("UInt64", "Fixed64Field")
    case .fixed32: return ("UInt32", "Fixed32Field")
    case .bool: return ("Bool", "BoolField")
    case .string: return ("String", "StringField")
    case .bytes: return ("Bytes", "BytesField")
    case .uint32: return ("UInt32", "UInt32Field")
    case .sfixed32: return ("Int32", "SFixed32Field")
    case .sfixed64: return ("Int64", "SFixed64Field")
    case .sint32: return ("Int32", "SInt32Field")
    case .sint64: return ("Int64", "SInt64Field")
    case .enum: return (named, "EnumField<\(named)>")
    case .message, .group: return (named, "MessageField<\(named)>")
    }
  }

  /// The property's type; not for members of a oneof.
  var type: String {
    switch shape {
    case .plain, .member: element
    case .optional, .boxed: "\(element)?"
    case .repeated, .packed: "[\(element)]"
    case .map(_, _, let type): type
    }
  }

  var defaultValue: String {
    switch shape {
    case .optional, .boxed: return "nil"
    case .repeated, .packed: return "[]"
    case .map: return "[:]"
    case .plain, .member:
      switch descriptor.kind {
      case .bool: return "false"
      case .string: return "\"\""
      case .bytes: return "Bytes()"
      case .enum, .message, .group: return "\(element)()"
      default: return "0"
      }
    }
  }

  /// The tag that announces the field on the wire.
  var tag: UInt32 { number << 3 | wireType }

  /// The tag of the field as one delimited block of elements.
  var packedTag: UInt32 { number << 3 | 2 }

  /// Whether elements may also come packed, whatever the schema says.
  var isPackable: Bool { descriptor.isRepeated && wireType != 2 }

  private var wireType: UInt32 {
    switch descriptor.kind {
    case .string, .bytes, .message, .group: 2
    case .double, .fixed64, .sfixed64: 1
    case .float, .fixed32, .sfixed32: 5
    default: 0
    }
  }
}
