import Bytes
import FileStore
import Foundation
import Testing

@Suite struct StoreDirectoryTests {
  /// A directory of its own for a test, removed afterwards.
  final class Place {
    let path: String
    init() {
      path = FileManager.default.temporaryDirectory.appending(path: "fleetpush-store-\(UUID().uuidString)").path
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }
  }

  func pattern(_ count: Int) -> Bytes { Bytes((0..<count).lazy.map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }) }

  @Test func aFileGoesThroughItsLife() throws {
    let place = Place()
    let store = try StoreDirectory(at: place.path)
    let id = try FileID("file-1")
    let content = pattern(3_000_000)
    let size = Int64(content.count)
    let part = try store.createPart(id, fence: 1, size: size)
    try part.write(content[2_000_000..<3_000_000], at: 2_000_000)
    try part.write(content[0..<2_000_000], at: 0)
    try part.syncData()
    #expect(throws: FileStoreError.self) { try store.open(id) }

    let digest = PrefixDigest()
    try digest.advance(in: part, to: 1_500_000)
    #expect(digest.position == 1_500_000)
    try digest.advance(in: part, to: size)
    let digests = try FileDigests.read(part, size: size)
    #expect(digest.hex() == digests.md5)
    #expect(digests.md5 == Digest.hex(of: content, .md5))
    #expect(digests.blockMD5s == [digests.md5])

    let sidecar = Sidecar(name: "a.bin", size: size, digests: digests, publishedAt: 12)
    try store.publish(id, fence: 1, file: part, sidecar: sidecar)
    try part.close()
    let opened = try store.open(id)
    #expect(opened.sidecar == sidecar)
    #expect(try opened.file.read(at: 0, length: content.count + 10) == content)
    #expect(try opened.file.read(at: size, length: 10).isEmpty)
    // Once more, as after a crash between the rename and what follows.
    try store.publish(id, fence: 1, file: store.openUnpublished(id), isNamed: true, sidecar: sidecar)
    let error = #expect(throws: FileStoreError.self) { try store.openPart(id, fence: 1) }
    #expect(error?.code == .notFound)
  }

  @Test func blocksOfTwentyMebibytes() throws {
    let place = Place()
    let store = try StoreDirectory(at: place.path)
    let id = try FileID("blocks")
    let block = Bytes(Array(repeating: 0xA5, count: Int(Sidecar.blockSize)))
    let part = try store.createPart(id, fence: 1, size: Sidecar.blockSize + 5)
    try part.write(block, at: 0)
    try part.write(Bytes("abcde"), at: Sidecar.blockSize)
    let digests = try FileDigests.read(part, size: Sidecar.blockSize + 5)
    #expect(digests.blockMD5s == [Digest.hex(of: block, .md5), Digest.hex(of: "abcde", .md5)])
    let digest = PrefixDigest()
    let error = #expect(throws: FileStoreError.self) { try digest.advance(in: part, to: Sidecar.blockSize + 6) }
    #expect(error?.code == .corrupt)
  }

  @Test func aFileWithoutSidecarIsInvisible() throws {
    let place = Place()
    let store = try StoreDirectory(at: place.path)
    let id = try FileID("half")
    let part = try store.createPart(id, fence: 3, size: 4)
    try part.write(Bytes("abcd"), at: 0)
    let digests = FileDigests(md5: "", blockMD5s: [])
    try store.publish(id, fence: 3, file: part, sidecar: Sidecar(name: "n", size: 5, digests: digests, publishedAt: 0))
    let corrupt = #expect(throws: FileStoreError.self) { try store.open(id) }
    #expect(corrupt?.code == .corrupt)
    let folder = String(Digest.hex(of: "half", .md5).prefix(2))
    #expect(unlink("\(place.path)/files/\(folder)/half~.json") == 0)
    let absent = #expect(throws: FileStoreError.self) { try store.open(id) }
    #expect(absent?.code == .notFound)
  }

  @Test func linksAreNotFollowed() throws {
    let place = Place()
    let store = try StoreDirectory(at: place.path)
    #expect(symlink("/etc/hostname", "\(place.path)/incoming/x.1.part") == 0)
    #expect(throws: FileStoreError.self) { try store.openPart(FileID("x"), fence: 1) }
    #expect(throws: FileStoreError.self) { try store.createPart(FileID("x"), fence: 1, size: 3) }
  }

  @Test func aNewFenceTakesThePartAway() throws {
    let place = Place()
    let store = try StoreDirectory(at: place.path)
    let id = try FileID("f")
    let part = try store.createPart(id, fence: 1, size: 4)
    try store.renamePart(id, from: 1, to: 2)
    let digests = FileDigests(md5: "", blockMD5s: [])
    let sidecar = Sidecar(name: "n", size: 4, digests: digests, publishedAt: 0)
    #expect(throws: FileStoreError.self) { try store.publish(id, fence: 1, file: part, sidecar: sidecar) }
    try store.publish(id, fence: 2, file: part, sidecar: sidecar)
    #expect(try store.sidecar(of: id) == sidecar)
    try store.remove(IncomingFile(id, fence: 9, .part))
  }

  @Test func aPartKeepsItsBytesWhenOpenedAgain() throws {
    let place = Place()
    let store = try StoreDirectory(at: place.path)
    let id = try FileID("again")
    try store.createPart(id, fence: 1, size: 8).write(Bytes("abcd"), at: 2)
    #expect(try store.createPart(id, fence: 1, size: 8).read(at: 0, length: 99) == Bytes("\0\0abcd\0\0"))
    #expect(try store.openPart(id, fence: 1).size() == 8)
  }
}
