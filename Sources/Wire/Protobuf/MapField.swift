/// `map<K, V>`: on the wire a repeated message of key (1) and value (2).
///
/// Keys are compared as Swift compares them: strings that are canonically equivalent in Unicode are one key.
public enum MapField<K: FieldKind, V: FieldKind> where K.Value: Hashable & MapKey {
  public typealias Entries = [K.Value: V.Value]

  /// Adds the entry at hand; the last one of a key counts. A missing key or value is the default.
  @inlinable
  public static func read(into entries: inout Entries, _ reader: inout WireReader) throws(ProtobufError) {
    let outerEnd = try reader.enter()
    var key = K.defaultValue
    var value = V.defaultValue
    while let tag = try reader.tag() {
      if tag == 8 | K.wireType.rawValue {
        key = try K.read(&reader)
      } else if tag == 16 | V.wireType.rawValue {
        value = try V.read(&reader)
      } else {
        try reader.skip(tag)
      }
    }
    reader.leave(to: outerEnd)
    entries[key] = value
  }

  @inlinable
  static func entrySize(_ key: K.Value, _ value: V.Value) -> Int {
    K.size(present: key, 1) + V.size(present: value, 2)
  }

  @inlinable
  public static func size(_ entries: Entries, _ number: UInt32) -> Int {
    var size = entries.count * WireSize.tag(number)
    for (key, value) in entries { size += WireSize.delimited(entrySize(key, value)) }
    return size
  }

  /// Writes the entries in the order of their keys, so that equal maps have equal bytes.
  @inlinable
  public static func write(_ entries: Entries, _ number: UInt32, to writer: inout WireWriter) {
    guard !entries.isEmpty else { return }
    for (key, value) in entries.sorted(by: { K.Value.precedes($1.key, $0.key) }) {
      let mark = writer.position
      V.write(present: value, 2, to: &writer)
      K.write(present: key, 1, to: &writer)
      writer.delimit(since: mark, number)
    }
  }
}

/// The order of a map's entries on the wire.
public protocol MapKey {
  static func precedes(_ a: Self, _ b: Self) -> Bool
}

extension MapKey where Self: Comparable {
  @inlinable public static func precedes(_ a: Self, _ b: Self) -> Bool { a < b }
}

extension Int32: MapKey {}
extension Int64: MapKey {}
extension UInt32: MapKey {}
extension UInt64: MapKey {}

extension Bool: MapKey {
  @inlinable public static func precedes(_ a: Bool, _ b: Bool) -> Bool { !a && b }
}

extension String: MapKey {
  @inlinable public static func precedes(_ a: String, _ b: String) -> Bool {
    a.utf8.lexicographicallyPrecedes(b.utf8)
  }
}
