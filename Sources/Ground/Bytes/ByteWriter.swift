/// A growing buffer with one writer, which becomes `Bytes` without a copy.
public struct ByteWriter: ~Copyable {
  @usableFromInline var storage: ByteStorage
  @usableFromInline var memory: UnsafeMutableRawPointer
  @usableFromInline var capacity: Int
  /// The number of bytes written so far.
  public private(set) var count: Int

  /// - Parameter capacity: the expected length in bytes; more is allocated, doubling, when it doesn't suffice.
  public init(capacity: Int = 256) {
    self.capacity = max(capacity, 16)
    storage = ByteStorage.allocate(self.capacity)
    memory = storage.memory
    count = 0
  }

  /// Makes room for `length` more bytes.
  public mutating func reserve(_ length: Int) {
    guard count + length > capacity else { return }
    var larger = capacity * 2
    while larger < count + length { larger *= 2 }
    let replacement = ByteStorage.allocate(larger)
    let target = replacement.memory
    target.copyMemory(from: memory, byteCount: count)
    storage = replacement
    memory = target
    capacity = larger
  }

  public mutating func append(_ byte: UInt8) {
    reserve(1)
    memory.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
    count += 1
  }

  public mutating func append(_ source: UnsafeRawBufferPointer) {
    guard let base = source.baseAddress, source.count > 0 else { return }
    reserve(source.count)
    (memory + count).copyMemory(from: base, byteCount: source.count)
    count += source.count
  }

  public mutating func append(_ bytes: Bytes) {
    bytes.withUnsafeBytes { append($0) }
  }

  public mutating func append(_ string: String) {
    var string = string
    string.withUTF8 { append(UnsafeRawBufferPointer($0)) }
  }

  /// An integer in network byte order.
  public mutating func append(bigEndian value: some FixedWidthInteger) {
    withUnsafeBytes(of: value.bigEndian) { append($0) }
  }

  /// Appends up to `length` bytes that `fill` writes in place; it returns how many.
  public mutating func append<E: Error>(
    upTo length: Int, _ fill: (UnsafeMutableRawBufferPointer) throws(E) -> Int
  ) throws(E) {
    reserve(length)
    let filled = try fill(UnsafeMutableRawBufferPointer(start: memory + count, count: length))
    precondition(filled >= 0 && filled <= length, "filled more than was reserved")
    count += filled
  }

  /// Overwrites bytes that were written before.
  public mutating func replace(at position: Int, with source: UnsafeRawBufferPointer) {
    precondition(position >= 0 && position + source.count <= count, "range out of bounds")
    if let base = source.baseAddress { (memory + position).copyMemory(from: base, byteCount: source.count) }
  }

  /// The bytes written; the writer is gone.
  public consuming func finish() -> Bytes {
    Bytes(owner: storage, base: UnsafeRawPointer(memory), count: count)
  }
}
