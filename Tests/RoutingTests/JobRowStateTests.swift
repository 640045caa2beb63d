import Routing
import Testing

@Suite struct JobRowStateTests {
  /// Rows are `from`, columns `to`, both in the order of the numbers: + for every kind, f for a file, m for a message.
  static let table: [(JobRowState, String)] = [
    (.accepted, "++++ff++"),
    (.routed, "--++ff++"),
    (.written, "---+ff++"),
    (.acknowledged, "----ffff"),
    (.downloading, "----ffff"),
    (.verified, "--------"),
    (.failed, "---m-f--"),
    (.expired, "---m-f--"),
  ]

  @Test(arguments: table) func stepsAreThoseOfTheTable(_ from: JobRowState, _ steps: String) {
    for (to, step) in zip(JobRowState.allCases, steps) {
      // A message's rows never come to the states of a file; there the table says nothing.
      if from != .downloading {
        #expect(from.canBecome(to, of: .message) == (step == "+" || step == "m"), "message: \(from) to \(to)")
      }
      #expect(from.canBecome(to, of: .file) == (step == "+" || step == "f"), "file: \(from) to \(to)")
    }
  }

  @Test func noStepLeadsBackFromAnEndButToTheGoodOne() {
    for kind in JobKind.allCases {
      for from in JobRowState.allCases where from.isEnd(of: kind) {
        let next = JobRowState.allCases.filter { from.canBecome($0, of: kind) }
        #expect(next.allSatisfy { $0.isGoodEnd(of: kind) })
      }
    }
  }

  @Test func aJobsStateFollowsFromItsRows() {
    func state(_ counts: [JobRowState: Int], _ kind: JobKind = .message, cancelled: Bool = false) -> JobState {
      JobState(counts: counts, kind: kind, isCancelled: cancelled)
    }
    #expect(state([.accepted: 1]) == .running)
    #expect(state([.acknowledged: 2, .written: 1]) == .running)
    #expect(state([.acknowledged: 2]) == .succeeded)
    #expect(state([.acknowledged: 2], .file) == .running)
    #expect(state([.verified: 2], .file) == .succeeded)
    #expect(state([.verified: 2, .failed: 1], .file) == .failed)
    #expect(state([.acknowledged: 2, .expired: 1]) == .failed)
    #expect(state([.written: 2], cancelled: true) == .cancelled)
    #expect(state([.accepted: 0, .acknowledged: 1]) == .succeeded)
  }
}
