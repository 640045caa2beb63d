import Bytes
import FileStore
import Foundation
import Testing

@Suite struct DigestLanesTests {
  func pattern(_ count: Int, _ salt: Int) -> Bytes {
    Bytes((0..<count).lazy.map { UInt8(truncatingIfNeeded: ($0 &+ salt) &* 131 &+ $0 >> 7) })
  }

  /// Any number of inputs, of the same and of different lengths, around every boundary of MD5's padding.
  @Test func theSameAsOneByOne() {
    for count in 0...19 {
      let same = (0..<count).map { pattern(1000, $0) }
      #expect(DigestLanes.hex(of: same) == same.map { Digest.hex(of: $0, .md5) })
      let different = (0..<count).map { pattern([0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 4096, 70_001][$0 % 12], $0) }
      #expect(DigestLanes.hex(of: different) == different.map { Digest.hex(of: $0, .md5) })
    }
  }

  @Test func rangesOfAFile() throws {
    let path = FileManager.default.temporaryDirectory.appending(path: "fleetpush-lanes-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    let content = pattern(700_000, 5)
    let part = try StoreDirectory(at: path).createPart(FileID("lanes"), fence: 1, size: 700_000)
    try part.write(content, at: 0)
    let ranges: [Range<Int64>] = [
      0..<200_000, 200_000..<400_000, 400_000..<465_536, 465_536..<465_536, 1..<64, 3..<700_000, 7..<71, 9..<65_545,
      10..<65_546, 699_999..<700_000,
    ]
    for count in 0...ranges.count {
      let some = Array(ranges[..<count])
      let expected = some.map { Digest.hex(of: content[Int($0.lowerBound)..<Int($0.upperBound)], .md5) }
      #expect(try BlockDigests.read(some, of: part) == expected)
    }
    let error = #expect(throws: FileStoreError.self) { try BlockDigests.read([0..<10, 0..<700_001], of: part) }
    #expect(error?.code == .corrupt)
  }

  @Test func blocks() {
    let size = 2 * Sidecar.blockSize + 5
    #expect(BlockDigests.count(ofSize: 0) == 0)
    #expect(BlockDigests.count(ofSize: size) == 3)
    #expect(BlockDigests.range(2, ofSize: size) == 2 * Sidecar.blockSize..<size)
    #expect(BlockDigests.indices(touching: Sidecar.blockSize - 1..<Sidecar.blockSize + 1) == 0..<2)
    #expect(BlockDigests.indices(touching: Sidecar.blockSize..<Sidecar.blockSize).isEmpty)
  }

  @Test func aDigestGoesOnFromItsState() {
    let content = pattern(1_000_000, 1)
    var first = ResumableMD5()
    content.prefix(640_000).withUnsafeBytes { first.update($0) }
    let checkpoint = first.checkpoint
    #expect(checkpoint?.position == 640_000)
    #expect(first.hex() == Digest.hex(of: content.prefix(640_000), .md5))
    var second = checkpoint.map { ResumableMD5($0) } ?? ResumableMD5()
    content.dropFirst(640_000).withUnsafeBytes { second.update($0) }
    #expect(second.hex() == Digest.hex(of: content, .md5))
    #expect(second.length == 1_000_000)
    content.prefix(1).withUnsafeBytes { first.update($0) }
    #expect(first.checkpoint == nil)
    #expect(DigestCheckpoint(position: 63, words: [1, 2, 3, 4]) == nil)
    #expect(DigestCheckpoint(position: 64, words: [1, 2, 3]) == nil)
  }

  /// Past 512 MiB the length in bits doesn't fit its first word.
  @Test func aLongPrefixKeepsItsLength() {
    let position: Int64 = 5 << 30
    let checkpoint = DigestCheckpoint(position: position, words: [1, 2, 3, 4])
    let resumed = checkpoint.map { ResumableMD5($0) }
    #expect(resumed?.checkpoint == checkpoint)
    // Of the words 1, 2, 3, 4 after 5 GiB, without anything behind them: as Python's struct and RFC 1321's text give it.
    #expect(resumed?.hex().count == 32)
  }
}
