import Bytes
import Protobuf

/// Bytes from hexadecimal digits; blanks are for the reader.
func hex(_ text: String) -> Bytes {
  var digits = text.filter { !$0.isWhitespace }[...]
  var bytes: [UInt8] = []
  while let byte = UInt8(digits.prefix(2), radix: 16) {
    bytes.append(byte)
    digits = digits.dropFirst(2)
  }
  return Bytes(bytes)
}

extension Bytes {
  var hex: String {
    array.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }
}

/// SplitMix64: the same numbers in every run with the same seed.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
    return value ^ value >> 31
  }
}

extension TestV1.Everything {
  /// Every kind of field, with numbers at the edges of their encodings.
  static func random(using generator: inout SeededGenerator, depth: Int = 0) -> Self {
    func number<T: FixedWidthInteger>(_: T.Type) -> T {
      let wide = T(truncatingIfNeeded: generator.next())
      return wide >> T.random(in: 0..<T(T.bitWidth - 1), using: &generator)
    }
    func text() -> String {
      let letters: [Character] = ["a", "Z", " ", "\0", "é", "ß", "中", "😀", "\u{7f}", "\u{800}", "\u{ffff}"]
      return String(
        (0..<Int.random(in: 0...40, using: &generator)).map { _ in letters.randomElement(using: &generator)! })
    }
    func data() -> Bytes {
      Bytes((0..<Int.random(in: 0...300, using: &generator)).map { _ in UInt8(truncatingIfNeeded: generator.next()) })
    }
    func coin() -> Bool { Bool.random(using: &generator) }
    func several<T>(_ make: () -> T) -> [T] { (0..<Int.random(in: 0...5, using: &generator)).map { _ in make() } }
    func inner() -> Inner {
      Inner(number: number(Int32.self), data: data(), inner: coin() ? Inner(number: 1) : nil, children: [Inner()])
    }

    var message = Self(
      fDouble: Double(bitPattern: generator.next() & ~(0x7ff << 52)), fFloat: coin() ? -0.0 : 1.5,
      fInt32: number(Int32.self), fInt64: number(Int64.self), fUint32: number(UInt32.self),
      fUint64: number(UInt64.self), fSint32: number(Int32.self), fSint64: number(Int64.self),
      fFixed32: number(UInt32.self), fFixed64: number(UInt64.self), fSfixed32: number(Int32.self),
      fSfixed64: number(Int64.self), fBool: coin(), fString: text(), fBytes: data(),
      fColour: coin() ? .infra : .unrecognized(number(Int32.self) | 64), fInner: coin() ? inner() : nil)
    message.fSize = coin() ? .large : .unknown
    message.oInt64 = coin() ? number(Int64.self) : nil
    message.oString = coin() ? text() : nil
    message.oDouble = coin() ? 0 : nil
    message.oBytes = coin() ? data() : nil
    message.rSint64 = several { number(Int64.self) }
    message.rDouble = several { Double(number(Int32.self)) }
    message.rBool = several(coin)
    message.rString = several(text)
    message.rBytes = several(data)
    message.rColour = several { coin() ? .vert : .infra }
    message.rInner = several(inner)
    message.uUint64 = several { number(UInt64.self) }
    message.uFixed32 = several { number(UInt32.self) }
    message.mSint32Sint64 = Dictionary(several { (number(Int32.self), number(Int64.self)) }) { $1 }
    message.mStringString = Dictionary(several { (text(), text()) }) { $1 }
    message.mSfixed32Inner = Dictionary(several { (number(Int32.self), inner()) }) { $1 }
    message.mBoolUint64 = Dictionary(several { (coin(), number(UInt64.self)) }) { $1 }
    let choices: [Choice?] = [nil, .cString(text()), .cSint32(0), .cInner(inner()), .cBool(false), .cBytes(data())]
    message.choice = choices.randomElement(using: &generator)!
    message.spread = coin() ? .first(number(Int32.self)) : .third(text())
    message.second = number(Int32.self)
    message.highest = number(Int32.self)
    message.afterTwoBytes = 1
    if depth < 3, coin() { message.child = random(using: &generator, depth: depth + 1) }
    if depth < 2, coin() { message.children = [random(using: &generator, depth: depth + 1)] }
    return message
  }
}
