/// Fields that the schema at hand doesn't know: kept as they came, tags included, and written again behind the others.
public struct UnknownFields: Sendable, Equatable {
  /// Whole fields, one after the other, in the binary format.
  public private(set) var serialized: [UInt8] = []

  @inlinable
  public init() {}

  @inlinable
  public var isEmpty: Bool { serialized.isEmpty }

  /// The length in bytes.
  @inlinable
  public var count: Int { serialized.count }

  @usableFromInline
  mutating func append(_ field: UnsafeRawBufferPointer) {
    serialized.append(contentsOf: field)
  }
}
