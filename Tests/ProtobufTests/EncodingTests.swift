import Bytes
import Protobuf
import Testing

@Suite struct EncodingTests {
  typealias Everything = TestV1.Everything

  /// Values and their bytes, as protobuf's own documentation and its Python library give them.
  static let table = single + several

  /// One field on the wire.
  static let single: [(Everything, String)] = [
    (Everything(fInt32: 150), "18 9601"),
    (Everything(fInt32: -1), "18 ffffffffffffffffff01"),
    (Everything(fInt64: .min), "20 80808080808080808001"),
    (Everything(fInt64: 127), "20 7f"),
    (Everything(fInt64: 128), "20 8001"),
    (Everything(fUint32: .max), "28 ffffffff0f"),
    (Everything(fUint64: .max), "30 ffffffffffffffffff01"),
    (Everything(fUint64: 1 << 63 - 1), "30 ffffffffffffffff7f"),
    (Everything(fSint32: -1), "38 01"),
    (Everything(fSint32: .min), "38 ffffffff0f"),
    (Everything(fSint64: .max), "40 feffffffffffffffff01"),
    (Everything(fFixed32: 1), "4d 01000000"),
    (Everything(fSfixed64: -2), "61 feffffffffffffff"),
    (Everything(fDouble: 1), "09 000000000000f03f"),
    (Everything(fFloat: -0.0), "15 00000080"),
    (Everything(fBool: true), "68 01"),
    (Everything(fString: "testing"), "72 07 74657374696e67"),
    (Everything(fBytes: hex("00ff")), "7a 02 00ff"),
    (Everything(fColour: .infra), "8001 f9ffffffffffffffff01"),
    (Everything(fInner: Everything.Inner()), "8a01 00"),
    (Everything(oInt32: 0), "b801 00"),
    (Everything(rInt32: [3, 270, 86942]), "da02 06 03 8e02 9ea705"),
    (Everything(choice: .cInt32(0)), "b806 00"),
  ]

  static let several: [(Everything, String)] = [
    (Everything(), ""),
    (Everything(rString: ["", "a"]), "b203 00 b203 01 61"),
    (Everything(uInt32: [1, 0]), "f803 01 f803 00"),
    (Everything(mInt32String: [2: "b", 1: "a"]), "8a05 05 08 01 12 01 61 8a05 05 08 02 12 01 62"),
    (Everything(mBoolUint64: [true: 0, false: 1]), "da05 04 08 00 10 01 da05 04 08 01 10 00"),
    (Everything(spread: .third("x"), second: 1), "e808 01 f208 01 78"),
    (Everything(beforeTwoBytes: 1, afterTwoBytes: 1, highest: 1), "f87f 01 808001 01 f8ffffff0f 01"),
  ]

  @Test(arguments: table.indices)
  func bytesAreThoseOfTheFormat(row: Int) throws {
    let (message, expected) = Self.table[row]
    #expect(message.serialized() == hex(expected), "\(message.serialized().hex)")
    #expect(message.encodedSize == hex(expected).count)
    #expect(try Everything(serialized: hex(expected)) == message)
  }

  @Test func randomMessagesComeBack() throws {
    for seed in 0..<200 as Range<UInt64> {
      var generator = SeededGenerator(state: seed)
      let message = Everything.random(using: &generator)
      let bytes = message.serialized()
      #expect(bytes.count == message.encodedSize)
      let again = try Everything(serialized: bytes)
      #expect(again == message, "seed \(seed)")
      #expect(again.serialized() == bytes, "seed \(seed)")
    }
  }

  @Test func prefixStandsInFrontOfTheMessage() {
    let message = Everything(fInt32: 150)
    let framed = message.serialized(prefix: 5) { memory, length in
      memory.storeBytes(of: UInt32(length).bigEndian, toByteOffset: 1, as: UInt32.self)
      memory[0] = 0
    }
    #expect(framed == hex("00 00000003 189601"))
    #expect(TestV1.Nothing().serialized(prefix: 1) { memory, _ in memory[0] = 7 } == hex("07"))
  }

  @Test func namesFollowSwift() {
    #expect(TestV1.Colour.vert == .green)
    #expect(TestV1.Colour.infra.name == "COLOUR_INFRA")
    #expect(TestV1.Colour(rawValue: 9) == .unrecognized(9))
    #expect("\(TestV1.Colour.unrecognized(9))" == "9")
    #expect(TestV1.Everything.Inner.fullName == "test.v1.Everything.Inner")
    let message = Everything(default: 1, self_: 2, size: 3, tag: 4, reader: 5, writer: 6, value: 7)
    #expect(message.default + message.self_ + message.size + message.value == 13)
  }
}
