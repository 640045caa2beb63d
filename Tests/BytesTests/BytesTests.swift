import Bytes
import Testing

@Suite struct BytesTests {
  @Test func slicesShareTheMemory() {
    let whole = Bytes([1, 2, 3, 4, 5])
    let slice = whole[1..<4]
    #expect(slice.array == [2, 3, 4])
    #expect(slice.unsafeMemory.baseAddress == whole.unsafeMemory.baseAddress.map { $0 + 1 })
    #expect(slice.dropFirst(1).array == [3, 4])
    #expect(slice.dropFirst(9).isEmpty)
    #expect(slice.prefix(2).array == [2, 3])
    #expect(slice.compacted() == slice)
  }

  @Test func equalityAndHashAreOfTheContents() {
    #expect(Bytes([1, 2]) == Bytes([0, 1, 2])[1..<3])
    #expect(Bytes([1, 2]) != Bytes([1, 3]))
    #expect(Set([Bytes("a"), Bytes("a"), Bytes("b")]).count == 2)
    #expect(Bytes() == Bytes([UInt8]()))
  }

  @Test func stringsAreValidated() {
    #expect(Bytes("grüße").string == "grüße")
    #expect(Bytes([0xFF, 0xFE]).string == nil)
    #expect(Bytes().string == "")
  }

  @Test func fillKeepsWhatItReturns() {
    let some = Bytes(capacity: 8) { memory in
      memory[0] = 7
      return 1
    }
    #expect(some.array == [7])
  }

  @Test func writerGrowsAndGivesItsMemoryAway() {
    var writer = ByteWriter(capacity: 1)
    for i in 0..<1000 { writer.append(UInt8(truncatingIfNeeded: i)) }
    writer.append(bigEndian: UInt32(0x0102_0304))
    writer.append("xy")
    withUnsafeBytes(of: UInt8(99)) { writer.replace(at: 0, with: $0) }
    let bytes = writer.finish()
    #expect(bytes.count == 1006)
    #expect(bytes[0] == 99)
    #expect(bytes[999] == UInt8(truncatingIfNeeded: 999))
    #expect(bytes[1000..<1004].array == [1, 2, 3, 4])
    #expect(bytes[1004..<1006].string == "xy")
  }
}
