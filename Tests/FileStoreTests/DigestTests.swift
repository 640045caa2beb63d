import Bytes
import FileStore
import Testing

@Suite struct DigestTests {
  @Test(arguments: [
    ("", "d41d8cd98f00b204e9800998ecf8427e", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("abc", "900150983cd24fb0d6963f7d28e17f72", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
  ])
  func knownDigests(_ text: String, _ md5: String, _ sha256: String) {
    #expect(Digest.hex(of: text, .md5) == md5)
    #expect(Digest.hex(of: text, .sha256) == sha256)
  }

  @Test func piecesGiveTheSameAndItBeginsAnew() {
    var digest = Digest(.md5)
    for _ in 0..<2 {
      digest.update(Bytes("a"))
      digest.update(Bytes())
      digest.update(Bytes("bc"))
      #expect(digest.finishHex() == "900150983cd24fb0d6963f7d28e17f72")
    }
  }

  @Test func onlyAHexDigestIsOne() {
    #expect(Digest.normalised("900150983CD24FB0D6963F7D28E17F72", .md5) == "900150983cd24fb0d6963f7d28e17f72")
    for text in [
      "", "900150983cd24fb0d6963f7d28e17f7", "900150983cd24fb0d6963f7d28e17f7g", " 00150983cd24fb0d6963f7d28e17f72",
    ] {
      #expect(Digest.normalised(text, .md5) == nil)
    }
  }
}
