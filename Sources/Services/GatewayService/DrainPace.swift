internal import Reactor
internal import Routing

/// How many clients a drain may send away by now. A value without I/O: the time goes in, in monotonic ns.
struct DrainPace {
  /// What a loop that was busy may make up for at once.
  static let longestDebt: Duration = .milliseconds(200)

  private var rate: Rate
  private var deadline: Int64
  private var lastAsked: Int64
  private var allowance = 1.0

  init(rate: Rate, within limit: Duration, now: Int64) {
    self.rate = rate
    deadline = EventLoop.deadline(after: limit, from: now)
    lastAsked = now
  }

  /// Goes on with another rate and another deadline.
  mutating func change(rate: Rate, within limit: Duration, now: Int64) {
    self = DrainPace(rate: rate, within: limit, now: now)
  }

  func hasEnded(now: Int64) -> Bool { now >= deadline }

  /// How many may go now; the caller lets that many go, or all that there are.
  mutating func due(now: Int64) -> Int {
    let elapsed = min(now - lastAsked, DrainPace.longestDebt.nanoseconds)
    lastAsked = now
    allowance += Double(elapsed) * rate.perSecond / 1e9
    let whole = allowance.rounded(.down)
    allowance -= whole
    return Int(whole)
  }
}

/// The gateways that the clients of a drained one are sent to: always the one that has the fewest, by its own word or by
/// what it was sent since. A value without I/O.
struct DrainGoals {
  private struct Goal {
    var address: String
    /// What its record says.
    var reported: Int64
    /// What its record said when it was seen first, and what it was sent since.
    var expected: Int64

    var load: Int64 { max(reported, expected) }
  }

  private var goals: [String: Goal] = [:]

  /// The nodes as the registry has them; those that drain themselves are no goals.
  mutating func read(_ nodes: [NodeRecord], except own: String) {
    var next: [String: Goal] = [:]
    for node in nodes where node.id != own && !node.isDraining {
      var goal = goals[node.id] ?? Goal(address: "", reported: 0, expected: node.clientCount)
      goal.address = node.address
      goal.reported = node.clientCount
      next[node.id] = goal
    }
    goals = next
  }

  /// Where the next client goes: HOST:PORT; nil when there is no other gateway.
  mutating func next() -> String? {
    // Of nodes alike the one whose name comes first: the order of a dictionary isn't the same twice.
    guard let best = goals.min(by: { ($0.value.load, $0.key) < ($1.value.load, $1.key) })?.key else { return nil }
    goals[best]?.expected += 1
    return goals[best]?.address
  }
}
