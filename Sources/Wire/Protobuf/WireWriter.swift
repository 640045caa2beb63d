/// Writes the binary format into memory of exactly the right size, from the back to the front.
///
/// Backwards, because a message stands behind its length: once its fields are written the length is known, and no size
/// has to be computed twice. So generated code writes its fields the last one first.
public struct WireWriter: ~Copyable {
  @usableFromInline let start: UnsafeMutableRawPointer
  /// From here to the end everything is written.
  @usableFromInline var position: UnsafeMutableRawPointer

  /// The memory is the caller's, and has to outlive the writer.
  @inlinable
  public init(_ memory: UnsafeMutableRawBufferPointer) {
    start = memory.baseAddress ?? UnsafeMutableRawPointer(bitPattern: 16).unsafelyUnwrapped
    position = start + memory.count
  }

  /// Nothing more fits, and nothing is missing.
  @inlinable
  public var isFull: Bool { position == start }

  /// The next `count` bytes in front of what is written.
  @inlinable
  mutating func claim(_ count: Int) -> UnsafeMutableRawPointer {
    precondition(position - start >= count, "a message wrote more than its encodedSize")
    position -= count
    return position
  }

  @inlinable
  mutating func varint(_ value: UInt64) {
    if value < 0x80 {
      claim(1).storeBytes(of: UInt8(truncatingIfNeeded: value), as: UInt8.self)
      return
    }
    let size = WireSize.varint(value)
    let target = claim(size)
    var rest = value
    for index in 0..<size - 1 {
      target.storeBytes(of: UInt8(truncatingIfNeeded: rest) | 0x80, toByteOffset: index, as: UInt8.self)
      rest &>>= 7
    }
    target.storeBytes(of: UInt8(truncatingIfNeeded: rest), toByteOffset: size - 1, as: UInt8.self)
  }

  @inlinable
  mutating func fixed(_ value: some FixedWidthInteger) {
    let little = value.littleEndian
    withUnsafeBytes(of: little) {
      claim($0.count).copyMemory(from: $0.baseAddress.unsafelyUnwrapped, byteCount: $0.count)
    }
  }

  @inlinable
  mutating func raw(_ source: UnsafeRawBufferPointer) {
    guard let base = source.baseAddress else { return }
    claim(source.count).copyMemory(from: base, byteCount: source.count)
  }

  @inlinable
  mutating func string(_ value: String) {
    var value = value
    value.withUTF8 { raw(UnsafeRawBufferPointer($0)) }
  }

  @inlinable
  mutating func tag(_ number: UInt32, _ type: WireType) {
    varint(UInt64(number << 3 | type.rawValue))
  }

  /// Writes the length of what was written since `mark`, and the tag in front of it.
  @inlinable
  mutating func delimit(since mark: UnsafeMutableRawPointer, _ number: UInt32) {
    varint(UInt64(mark - position))
    tag(number, .delimited)
  }

  /// Writes kept fields. They stand behind the known ones, so they are written first.
  @inlinable
  public mutating func unknown(_ fields: UnknownFields) {
    guard !fields.isEmpty else { return }
    fields.serialized.withUnsafeBytes { raw($0) }
  }
}

/// Lengths in the binary format, in bytes.
public enum WireSize {
  @inlinable
  public static func varint(_ value: UInt64) -> Int {
    // 7 bits a byte: ⌈bits / 7⌉ by multiplication, with at least one bit.
    let bits = 64 &- (value | 1).leadingZeroBitCount
    return (bits &* 9 &+ 64) &>> 6
  }

  @inlinable
  public static func tag(_ number: UInt32) -> Int { varint(UInt64(number) &<< 3) }

  /// Content with its length in front.
  @inlinable
  public static func delimited(_ count: Int) -> Int { varint(UInt64(count)) + count }
}
