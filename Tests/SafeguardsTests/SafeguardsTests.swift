import Testing

@testable import Safeguards

@Suite struct SafeguardsTests {
  @Test func everySafeguardHasANameAndIsOneOfAll() {
    #expect(Safeguards.names.values.reduce(Safeguards()) { $0.union($1) } == .all)
    #expect(Set(Safeguards.names.values.map(\.rawValue)).count == Safeguards.names.count)
  }

  #if DEBUG
    @Test func whatIsNamedIsLeftOut() {
      let left = Safeguards.all.without("dedupe,sweep")
      #expect(!left.contains(.dedupe) && !left.contains(.sweep) && left.contains(.replay))
      #expect(Safeguards.all.without("") == .all)
    }
  #endif
}
