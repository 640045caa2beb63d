import Glibc

/// What /proc says of a process.
struct ProcessFigures {
  /// User and system time in seconds.
  let cpuSeconds: Double
  /// Resident memory in KiB.
  let residentKiB: Int

  /// - Throws: `BenchError` when there is no such process.
  init(of pid: Int) throws {
    let stat = try ProcessFigures.read("/proc/\(pid)/stat")
    // The second field is the program's name in parentheses, which may hold anything.
    let fields = stat[stat.index(after: stat.lastIndex(of: ")") ?? stat.startIndex)...].split(separator: " ")
    guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else {
      throw BenchError("/proc/\(pid)/stat has another form")
    }
    cpuSeconds = (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    let status = try ProcessFigures.read("/proc/\(pid)/status")
    guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS:") }),
      let kibibytes = Int(line.split(separator: " ").dropLast().last?.filter(\.isNumber) ?? "")
    else { throw BenchError("/proc/\(pid)/status has another form") }
    residentKiB = kibibytes
  }

  private static func read(_ path: String) throws -> String {
    guard let file = fopen(path, "r") else { throw BenchError("there is no process behind \(path)") }
    defer { fclose(file) }
    var buffer = [UInt8](repeating: 0, count: 16 * 1024)
    let count = fread(&buffer, 1, buffer.count, file)
    return String(decoding: buffer[..<count], as: UTF8.self)
  }
}

struct BenchError: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

func complain(_ line: String) {
  let text = Array((line + "\n").utf8)
  _ = write(STDERR_FILENO, text, text.count)
}

func exitProcess(_ code: Int32) -> Never { exit(code) }

/// The value at a fraction of the sorted list.
func percentile(_ sorted: [Double], _ fraction: Double) -> Double {
  sorted.isEmpty ? 0 : sorted[min(sorted.count - 1, Int(Double(sorted.count) * fraction))]
}

extension Double {
  /// With `places` decimals.
  func rounded(to places: Int) -> String {
    let scale = pow(10.0, Double(places))
    let whole = (self * scale).rounded() / scale
    let text = String(whole)
    guard let dot = text.firstIndex(of: ".") else { return text }
    let decimals = text.distance(from: dot, to: text.endIndex) - 1
    return places == 0 ? String(text[..<dot]) : text + String(repeating: "0", count: max(0, places - decimals))
  }
}
