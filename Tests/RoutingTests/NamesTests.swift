import Routing
import Testing

@Suite struct NamesTests {
  @Test(arguments: ["a", "client-1", "x.y_z:9@h+t=1", String(repeating: "n", count: 128), "~!#$%&()*,;<>?[]^|"])
  func takesPrintableNames(_ name: String) throws {
    try Name.validate(name, as: "client id")
    #expect(Name.isValid(name))
  }

  @Test(arguments: [
    "", " ", "a b", "a/b", "../x", "{a}", "a}", "a\\b", "a\"b", "a'b", "a`b", "a\n", "a\u{7F}", "ä", "\u{0}",
    String(repeating: "n", count: 129),
  ])
  func refusesOthers(_ name: String) {
    #expect(!Name.isValid(name))
    let error = #expect(throws: RoutingError.self) { try Name.validate(name, as: "client id") }
    #expect(error?.code == .invalid)
  }

  @Test func randomNamesAreNamesAndDiffer() {
    let names = (0..<100).map { _ in Name.random() }
    #expect(names.allSatisfy { Name.isValid($0) && $0.utf8.count == 32 })
    #expect(Set(names).count == 100)
  }

  @Test func messageIDsReadAsTheyAreWritten() {
    let one = MessageID(job: "j1", client: "c1")
    #expect(one.description == "j1/c1")
    #expect(MessageID("j1/c1") == one)
    #expect(MessageID("j1") == MessageID(job: "j1", client: nil))
    for text in ["", "/", "j/", "/c", "j/c/d", "j /c"] { #expect(MessageID(text) == nil) }
  }
}
