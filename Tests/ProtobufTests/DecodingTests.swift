import Bytes
import Protobuf
import Testing

@Suite struct DecodingTests {
  typealias Everything = TestV1.Everything

  /// Bytes that are no message, and why.
  static let malformed: [(String, ProtobufError.Code)] = [
    ("18", .truncated),
    ("18 80", .truncated),
    ("18 ffffffffffffffffff", .truncated),
    ("18 ffffffffffffffffffff01", .malformed),
    ("80", .truncated),
    ("00", .malformed),
    ("07 00", .malformed),
    ("0e 00", .malformed),
    ("0f 00", .malformed),
    ("8080808010 00", .malformed),
    ("988080808000 00", .malformed),
    ("09 00000000000000", .truncated),
    ("4d 000000", .truncated),
    ("72 01", .truncated),
    ("72 02 61", .truncated),
    ("72 ffffffff07", .truncated),
    ("72 ffffffffffffffff7f", .truncated),
    ("72 feffffffffffffffff01", .truncated),
    ("7a ffffffffffffffff7f 00", .truncated),
    ("8a01 ffffffffffffffffff01", .truncated),
    ("da02 ffffffffffffffff7f", .truncated),
    ("72 01 ff", .invalidUTF8),
    ("72 02 c080", .invalidUTF8),
    ("72 03 eda080", .invalidUTF8),
    ("b203 01 80", .invalidUTF8),
    ("da02 02 01 80", .truncated),
    ("ca02 07 00000000000000", .truncated),
    ("8a05 03 08 01 12", .truncated),
    ("8a01 02 08", .truncated),
    ("8a01 02 12 01 00", .truncated),
    ("c33e", .truncated),
    ("c33e 08 01", .truncated),
    ("c43e", .malformed),
    ("c33e cc3e", .malformed),
    ("c33e cb3e c43e cc3e", .malformed),
  ]

  @Test(arguments: malformed.indices)
  func malformedInputIsAnError(row: Int) {
    let (input, code) = Self.malformed[row]
    #expect { try Everything(serialized: hex(input)) } throws: { ($0 as? ProtobufError)?.code == code }
  }

  @Test func everyTruncationIsAnErrorOrAShorterMessage() throws {
    var generator = SeededGenerator(state: 11)
    let bytes = Everything.random(using: &generator).serialized()
    for length in 0..<bytes.count {
      // A copy in memory of its own, so that a read past the end is one past the allocation.
      let part = bytes.prefix(length).compacted()
      guard let message = try? Everything(serialized: part) else { continue }
      #expect(message.serialized().count <= length)
      _ = try? TestV1.Older(serialized: part)
    }
  }

  @Test func noFieldIsAcceptedInPart() {
    for (message, _) in EncodingTests.single {
      let whole = message.serialized()
      for length in 1..<whole.count {
        #expect(throws: ProtobufError.self) { try Everything(serialized: whole.prefix(length).compacted()) }
      }
    }
  }

  @Test func noiseNeverTraps() {
    var generator = SeededGenerator(state: 5)
    let whole = Everything.random(using: &generator).serialized().array
    for _ in 0..<3_000 {
      var bytes = whole
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        bytes[Int.random(in: bytes.indices, using: &generator)] = UInt8(truncatingIfNeeded: generator.next())
      }
      guard let message = try? Everything(serialized: Bytes(bytes)) else { continue }
      // What was accepted has one form.
      let form = message.serialized()
      #expect((try? Everything(serialized: form))?.serialized() == form)
    }
  }

  @Test func bytesFieldsShareTheInput() throws {
    let input = Everything(fBytes: Bytes([UInt8](repeating: 7, count: 1_000))).serialized()
    let message = try Everything(serialized: input)
    let whole = input.unsafeMemory
    let field = message.fBytes.unsafeMemory
    #expect(field.baseAddress! >= whole.baseAddress! && field.baseAddress! + 1_000 <= whole.baseAddress! + whole.count)
  }

  @Test func unknownFieldsAreKeptAndComeLast() throws {
    // A varint, a group with a group and a string inside, 32 and 64 bits; then a known field.
    let unknown = "c03e 05 c33e 0801 cb3e 1201 61 cc3e c43e c53e 01020304 c13e 0102030405060708"
    let message = try Everything(serialized: hex(unknown + "18 05"))
    #expect(message.fInt32 == 5)
    #expect(message.serialized() == hex("18 05" + unknown))
    // A known number with another wire type is unknown too.
    let other = try Everything(serialized: hex("1a 01 61 75 01000000"))
    #expect(other.fInt32 == 0 && other.fString.isEmpty)
    #expect(other.unknownFields.serialized == hex("1a 01 61 75 01000000").array)
    #expect(try TestV1.Nothing(serialized: hex(unknown)).serialized() == hex(unknown))
  }

  @Test func repetitionsMergeAsTheFormatSays() throws {
    #expect(try Everything(serialized: hex("18 01 18 02")).fInt32 == 2)
    // Messages merge; lists grow.
    let inner = try Everything(serialized: hex("8a01 02 08 05 8a01 03 12 01 ff 8a01 02 2200 8a01 02 2200")).fInner
    #expect(inner == Everything.Inner(number: 5, data: hex("ff"), children: [.init(), .init()]))
    // The same member of a oneof merges, another one replaces it.
    let same = try Everything(serialized: hex("aa07 02 08 05 aa07 03 12 01 ff"))
    #expect(same.choice == .cInner(.init(number: 5, data: hex("ff"))))
    let other = try Everything(serialized: hex("aa07 02 08 05 b806 00 aa07 03 12 01 ff"))
    #expect(other.choice == .cInner(.init(data: hex("ff"))))
    // Packed or not, whatever the schema says.
    #expect(try Everything(serialized: hex("d802 01 da02 02 02 03 d802 04")).rInt32 == [1, 2, 3, 4])
    #expect(try Everything(serialized: hex("fa03 02 01 02")).uInt32 == [1, 2])
    // The last entry of a key counts; what is missing is the default.
    #expect(try Everything(serialized: hex("8a05 04 08 01 22 00 8a05 00")).mInt32String == [1: "", 0: ""])
    #expect(try Everything(serialized: hex("8a05 05 08 01 12 01 61 8a05 05 08 01 12 01 62")).mInt32String == [1: "b"])
  }

  @Test func nestingIsLimited() throws {
    func nested(_ levels: Int) -> Bytes {
      var message = Everything.Inner(number: 1)
      for _ in 1..<levels { message = .init(inner: message) }
      return Everything(fInner: message).serialized()
    }
    #expect(try Everything(serialized: nested(WireReader.depthLimit)).fInner != nil)
    #expect { try Everything(serialized: nested(WireReader.depthLimit + 1)) } throws: {
      ($0 as? ProtobufError)?.code == .tooDeep
    }
    func groups(_ levels: Int) -> Bytes {
      hex(String(repeating: "c33e", count: levels) + String(repeating: "c43e", count: levels))
    }
    #expect(try Everything(serialized: groups(WireReader.depthLimit)).unknownFields.count == 400)
    #expect { try Everything(serialized: groups(100_000)) } throws: { ($0 as? ProtobufError)?.code == .tooDeep }
  }

  @Test func overlongVarintsAreNumbers() throws {
    #expect(try Everything(serialized: hex("18 81808080808080808000")).fInt32 == 1)
    #expect(try Everything(serialized: hex("9880808000 01")).fInt32 == 1)
    #expect(try Everything(serialized: hex("18 ffffffffffffffffff01")).fInt32 == -1)
    #expect(try Everything(serialized: hex("18 ffffffffffffffffff7f")).fInt32 == -1)
    #expect(try Everything(serialized: hex("68 8002")).fBool)
  }

  /// Every lead with every second byte, and the edges of the longer forms, as the standard library judges them.
  @Test func stringsAreUTF8() throws {
    func agrees(_ content: [UInt8]) -> Bool {
      let field = Bytes([UInt8(content.count)] + content)
      defer { withExtendedLifetime(field) {} }
      var reader = WireReader(field)
      return (try? StringField.read(&reader)) == String(validating: content, as: UTF8.self)
    }
    var differing: [[UInt8]] = []
    for lead in 0...255 as ClosedRange<UInt8> {
      for second in 0...255 as ClosedRange<UInt8> {
        var contents = [[], [0x80], [0xbf, 0x80], [0x80, 0xc0], [0x7f]].map { [lead, second] + $0 }
        if lead > 0xbf { contents.append(Array("01234567".utf8) + [lead, second, 0x80]) }
        differing += contents.filter { !agrees($0) }
      }
    }
    #expect(differing.isEmpty)
  }

  @Test func base64() throws {
    for length in 0..<70 {
      let bytes = (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 37) }
      #expect(try Base64.decode(Base64.encode(bytes)).array == bytes)
    }
    #expect(Base64.encode(Array("foobar".utf8)) == "Zm9vYmFy")
    #expect(throws: ProtobufError.self) { try Base64.decode("a*b=") }
  }
}
