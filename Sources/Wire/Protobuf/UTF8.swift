/// Whether memory is well-formed UTF-8 (Unicode's table 3-7: no surrogates, no overlong forms, nothing past U+10FFFF).
///
/// By hand, because `String(validating:as:)` takes the standard library's unspecialised path, which costs more than all
/// else about a short string.
@usableFromInline
func isUTF8(_ memory: UnsafeRawBufferPointer) -> Bool {
  guard let base = memory.baseAddress else { return true }
  let count = memory.count
  var index = 0
  while index < count {
    // Eight bytes of ASCII at a time.
    while index + 8 <= count, base.loadUnaligned(fromByteOffset: index, as: UInt64.self) & 0x8080_8080_8080_8080 == 0 {
      index += 8
    }
    guard index < count else { return true }
    let lead = base.load(fromByteOffset: index, as: UInt8.self)
    index += 1
    if lead < 0x80 { continue }
    // What the second byte may be, and how many bytes follow the first.
    let second: ClosedRange<UInt8>
    let following: Int
    switch lead {
    case 0xc2...0xdf: (second, following) = (0x80...0xbf, 1)
    case 0xe0: (second, following) = (0xa0...0xbf, 2)
    case 0xed: (second, following) = (0x80...0x9f, 2)
    case 0xe1...0xef: (second, following) = (0x80...0xbf, 2)
    case 0xf0: (second, following) = (0x90...0xbf, 3)
    case 0xf1...0xf3: (second, following) = (0x80...0xbf, 3)
    case 0xf4: (second, following) = (0x80...0x8f, 3)
    default: return false
    }
    guard index + following <= count, second.contains(base.load(fromByteOffset: index, as: UInt8.self)) else {
      return false
    }
    let end = index + following
    index += 1
    while index < end {
      guard base.load(fromByteOffset: index, as: UInt8.self) & 0xc0 == 0x80 else { return false }
      index += 1
    }
  }
  return true
}
