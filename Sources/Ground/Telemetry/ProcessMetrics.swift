internal import Glibc

extension MetricsRegistry {
  /// Adds the process's own figures under the names that Prometheus' client libraries use: memory, CPU, descriptors,
  /// start time. They are read from /proc when `render()` is called.
  public func addProcessMetrics() {
    let start = ProcessStatus.startTimeSeconds()
    gauge("process_start_time_seconds", "Start time of the process since the epoch, in seconds.") { start }
    counter("process_cpu_seconds_total", "User and system CPU time spent, in seconds.") { ProcessStatus.cpuSeconds() }
    gauge("process_resident_memory_bytes", "Resident memory size in bytes.") { ProcessStatus.residentBytes() }
    gauge("process_resident_memory_max_bytes", "Largest resident memory size so far, in bytes.") {
      ProcessStatus.peakResidentBytes()
    }
    gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.") { ProcessStatus.virtualBytes() }
    gauge("process_open_fds", "Number of open file descriptors.") { ProcessStatus.openDescriptors() }
    gauge("process_max_fds", "Maximum number of open file descriptors.") { ProcessStatus.maximumDescriptors() }
  }
}

enum ProcessStatus {
  static func cpuSeconds() -> Double {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) * 1e-6 }
    return seconds(usage.ru_utime) + seconds(usage.ru_stime)
  }

  /// `ru_maxrss` counts KiB on Linux.
  static func peakResidentBytes() -> Double {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return Double(usage.ru_maxrss) * 1024
  }

  static func residentBytes() -> Double { pages(field: 1) }

  static func virtualBytes() -> Double { pages(field: 0) }

  static func openDescriptors() -> Double {
    guard let directory = opendir("/proc/self/fd") else { return .nan }
    defer { closedir(directory) }
    var count = 0
    while readdir(directory) != nil { count += 1 }
    return Double(count - 3)  // without ".", ".." and the directory's own descriptor
  }

  static func maximumDescriptors() -> Double {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return .nan }
    return Double(limit.rlim_cur)
  }

  /// The boot time (`btime`) and field 22 of /proc/self/stat, in clock ticks after it.
  static func startTimeSeconds() -> Double {
    // The second field is the program's name in parentheses and may hold spaces: count from the last ")".
    let afterName = read("/proc/self/stat").split(separator: ")").last ?? ""
    let fields = afterName.split(separator: " ")
    let boot = read("/proc/stat").split(separator: "\n").first { $0.hasPrefix("btime ") }
    guard fields.count > 19, let ticks = Double(fields[19]), let boot = boot.flatMap({ Double($0.dropFirst(6)) })
    else { return .nan }
    return boot + ticks / Double(sysconf(Int32(_SC_CLK_TCK)))
  }

  private static func pages(field: Int) -> Double {
    let fields = read("/proc/self/statm").split(separator: " ")
    guard fields.count > field, let pages = Double(fields[field]) else { return .nan }
    return pages * Double(sysconf(Int32(_SC_PAGESIZE)))
  }

  /// The first 256 KiB of a file of /proc; empty when it can't be read.
  private static func read(_ path: String) -> String {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return "" }
    defer { close(file) }
    var bytes: [UInt8] = []
    while bytes.count < 256 * 1024 {
      let chunk = [UInt8](unsafeUninitializedCapacity: 16 * 1024) { memory, count in
        count = max(0, Glibc.read(file, memory.baseAddress, memory.count))
      }
      if chunk.isEmpty { break }
      bytes += chunk
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
