import FileStore
import Testing

@Suite struct NamesTests {
  @Test(arguments: [
    "a", "0", "d41d8cd98f00b204e9800998ecf8427e", "report-2.final_v3.pdf", "a..b", String(repeating: "x", count: 128),
  ])
  func idIsTaken(_ text: String) throws {
    #expect(try FileID(text).text == text)
  }

  @Test(arguments: [
    "", ".", "..", "../x", "a/b", "/a", "a\\b", ".hidden", "-x", "_x", "a b", "a\0", "a\n", "é", "a{b}", "a:b", "a~b",
    String(repeating: "x", count: 129),
  ])
  func idIsRefused(_ text: String) {
    let error = #expect(throws: FileStoreError.self) { try FileID(text) }
    #expect(error?.code == .invalid)
    #expect(error?.message.hasSuffix(".") == true)
  }

  @Test(arguments: [
    ("a.txt", "a.txt"), ("/etc/passwd", "passwd"), ("../../x", "x"), ("C:\\dir\\setup.exe", "setup.exe"),
    ("dir/", "dir"),
    ("名前.bin", "名前.bin"), (" a b ", " a b "),
  ])
  func nameIsTheLastComponent(_ path: String, _ name: String) throws {
    #expect(try FileName(lastComponentOf: path).text == name)
  }

  @Test(arguments: ["", "/", "..", "a/..", ".", "a\0b", "a\u{1B}[0m", "a\nb", String(repeating: "x", count: 256)])
  func nameIsRefused(_ path: String) {
    let error = #expect(throws: FileStoreError.self) { try FileName(lastComponentOf: path) }
    #expect(error?.code == .invalid)
  }
}
