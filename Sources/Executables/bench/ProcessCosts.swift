import Reactor
import Settings

/// CPU of named processes over a stretch of time.
struct ProcessCosts {
  private let processes: [(name: String, pid: Int)]
  private var start: [Double] = []
  private(set) var startedAt = EventLoop.monotonicNanoseconds()

  /// - Parameter named: names and pids, as the flag `--process` has them.
  /// - Throws: `BenchError` when a pid is none.
  init(_ named: [KeyValue]) throws {
    processes = try named.map { pair in
      guard let pid = Int(pair.value) else { throw BenchError("--process \(pair.key): \(pair.value) is no pid") }
      return (pair.key, pid)
    }
    try restart()
  }

  mutating func restart() throws {
    start = try processes.map { try ProcessFigures(of: $0.pid).cpuSeconds }
    startedAt = EventLoop.monotonicNanoseconds()
  }

  var seconds: Double { Double(EventLoop.monotonicNanoseconds() - startedAt) / 1e9 }

  /// CPU seconds since the start, by name.
  func spent() throws -> [(name: String, seconds: Double)] {
    try zip(processes, start).map { ($0.name, try ProcessFigures(of: $0.pid).cpuSeconds - $1) }
  }
}

/// One line of JSON of numbers and of objects of numbers.
func jsonLine(_ fields: [(String, String)]) -> String {
  "{" + fields.map { "\"\($0)\": \($1)" }.joined(separator: ", ") + "}"
}

func jsonObject(_ values: [(name: String, seconds: Double)]) -> String {
  jsonLine(values.map { ($0.name, $0.seconds.rounded(to: 3)) })
}
