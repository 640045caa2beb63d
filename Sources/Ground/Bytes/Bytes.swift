/// An immutable slice of reference-counted memory.
///
/// Slicing shares the memory, so a message that was received once can be queued on a thousand streams without a copy.
/// The memory lives as long as any slice of it; a short slice of a large buffer therefore keeps the whole buffer
/// (`compacted()` copies it out).
///
/// `@unchecked Sendable`: the memory is written only inside `init(capacity:_:)` and by `ByteWriter`, which both give it
/// away when they return; from then on it is only read, and the owner's count is atomic.
public struct Bytes: @unchecked Sendable {
  @usableFromInline let owner: ByteStorage?
  @usableFromInline let base: UnsafeRawPointer?
  /// The length in bytes.
  public let count: Int

  @inlinable
  init(owner: ByteStorage?, base: UnsafeRawPointer?, count: Int) {
    self.owner = owner
    self.base = base
    self.count = count
  }

  /// No bytes; allocates nothing.
  @inlinable
  public init() {
    self.init(owner: nil, base: nil, count: 0)
  }

  /// Allocates `capacity` bytes, lets `fill` write them and keeps the first ones, as many as it returns.
  ///
  /// - Precondition: `fill` returns 0 ... capacity.
  @inlinable
  public init<E: Error>(capacity: Int, _ fill: (UnsafeMutableRawBufferPointer) throws(E) -> Int) throws(E) {
    guard capacity > 0 else {
      self.init()
      return
    }
    let storage = ByteStorage.allocate(capacity)
    let memory = UnsafeMutableRawBufferPointer(start: storage.memory, count: capacity)
    let filled = try fill(memory)
    precondition(filled >= 0 && filled <= capacity, "filled more than the capacity")
    self.init(owner: storage, base: UnsafeRawPointer(storage.memory), count: filled)
  }

  /// Copies a buffer.
  @inlinable
  public init(copying source: UnsafeRawBufferPointer) {
    self.init(capacity: source.count) { memory in
      memory.copyMemory(from: source)
      return source.count
    }
  }

  /// Copies an array or any other contiguous or non-contiguous collection of bytes.
  @inlinable
  public init(_ source: some Collection<UInt8>) {
    self.init(capacity: source.count) { memory in
      memory.copyBytes(from: source)
      return source.count
    }
  }

  /// Copies the UTF-8 bytes of a string.
  @inlinable
  public init(_ string: String) {
    var string = string
    self = string.withUTF8 { Bytes(copying: UnsafeRawBufferPointer($0)) }
  }

  @inlinable
  public var isEmpty: Bool { count == 0 }

  /// The byte at a position, counted from the slice's own start.
  @inlinable
  public subscript(position: Int) -> UInt8 {
    precondition(position >= 0 && position < count, "position out of range")
    return base.unsafelyUnwrapped.load(fromByteOffset: position, as: UInt8.self)
  }

  /// The slice of a range, counted from this slice's own start; shares the memory.
  @inlinable
  public subscript(range: Range<Int>) -> Bytes {
    precondition(range.lowerBound >= 0 && range.upperBound <= count, "range out of bounds")
    guard !range.isEmpty else { return Bytes() }
    return Bytes(owner: owner, base: base.unsafelyUnwrapped + range.lowerBound, count: range.count)
  }

  /// What follows the first `length` bytes.
  @inlinable
  public func dropFirst(_ length: Int) -> Bytes { self[min(length, count)..<count] }

  /// The first `length` bytes, or all when there are fewer.
  @inlinable
  public func prefix(_ length: Int) -> Bytes { self[0..<min(length, count)] }

  /// Lends the memory. The pointer is valid inside `body` only.
  @inlinable
  public func withUnsafeBytes<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
    defer { withExtendedLifetime(owner) {} }
    return try body(UnsafeRawBufferPointer(start: base, count: count))
  }

  /// The memory itself, for a caller that keeps `self` alive as long as it uses the pointer (a queue of output).
  @inlinable
  public var unsafeMemory: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

  /// A copy in memory of its own, for a short slice that would keep a large buffer alive.
  public func compacted() -> Bytes { withUnsafeBytes { Bytes(copying: $0) } }

  /// A copy as an array.
  public var array: [UInt8] { withUnsafeBytes { Array($0) } }

  /// The bytes as a string, or nil when they are not valid UTF-8.
  public var string: String? {
    withUnsafeBytes { String(validating: $0.bindMemory(to: UInt8.self), as: UTF8.self) }
  }
}

extension Bytes: Hashable {
  public static func == (a: Bytes, b: Bytes) -> Bool {
    guard a.count == b.count else { return false }
    if a.base == b.base { return true }
    return a.withUnsafeBytes { x in b.withUnsafeBytes { y in x.elementsEqual(y) } }
  }

  public func hash(into hasher: inout Hasher) {
    withUnsafeBytes { hasher.combine(bytes: $0) }
  }
}

extension Bytes: CustomStringConvertible {
  public var description: String { "Bytes(\(count))" }
}

/// The memory behind `Bytes`: one allocation, header and bytes together.
@usableFromInline
final class ByteStorage: ManagedBuffer<Int, UInt8> {
  @usableFromInline
  static func allocate(_ capacity: Int) -> ByteStorage {
    unsafeDowncast(ByteStorage.create(minimumCapacity: capacity) { _ in capacity }, to: ByteStorage.self)
  }

  @usableFromInline
  var memory: UnsafeMutableRawPointer { withUnsafeMutablePointerToElements { UnsafeMutableRawPointer($0) } }
}
