public import Glibc
internal import Synchronization

/// A server that a test starts, on a port of its own, and stops by its pid.
///
/// `@unchecked Sendable`: one test has it, and uses it from one place at a time.
public final class ServerProcess: @unchecked Sendable {
  public let pid: pid_t
  private let output: Int32
  private let leash: Int32
  private let sentry: pid_t
  private var text = ""
  private var status: Int32?

  public struct Failure: Error, CustomStringConvertible {
    public let description: String
  }

  /// - Parameter executable: a path, or a name that is looked for in PATH.
  public init(_ executable: String, _ arguments: [String], environment: [String: String] = [:]) throws {
    let out = try ServerProcess.pipe()
    defer { close(out.write) }
    pid = try ServerProcess.spawn(executable, arguments, environment, output: out.write)
    output = out.read
    let leash = try ServerProcess.pipe()
    defer { close(leash.read) }
    self.leash = leash.write
    // A run of tests that ends in whatever way takes its servers with it: the shell's `read` fails when we are gone.
    sentry = try ServerProcess.spawn("sh", ["-c", "read over || kill -9 \(pid)"], [:], input: leash.read)
  }

  deinit {
    if status == nil { kill() }
    close(output)
  }

  private static func pipe() throws -> (read: Int32, write: Int32) {
    var ends: [Int32] = [-1, -1]
    try spawning.withLock { _ in
      guard Glibc.pipe(&ends) == 0 else { throw Failure(description: "pipe: errno \(errno)") }
      for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    }
    return (ends[0], ends[1])
  }

  /// Held so that no child starts between a pipe and its FD_CLOEXEC: it would keep the leash of another.
  private static let spawning = Mutex(())

  /// The child gets stdin, stdout and stderr, and nothing else that is open here.
  private static func spawn(
    _ executable: String, _ arguments: [String], _ environment: [String: String], input: Int32 = STDIN_FILENO,
    output: Int32 = STDOUT_FILENO
  ) throws -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO)
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO)
    var words = ([executable] + arguments).map { strdup($0) } + [nil]
    var variables = ServerProcess.environment(with: environment).map { strdup($0) } + [nil]
    defer { for word in words + variables { free(word) } }
    var pid: pid_t = 0
    let result = spawning.withLock { _ in posix_spawnp(&pid, executable, &actions, nil, &words, &variables) }
    guard result == 0 else {
      throw Failure(description: "can't start \(executable): \(String(cString: strerror(result)))")
    }
    return pid
  }

  private static func environment(with additions: [String: String]) -> [String] {
    var result = additions.map { "\($0.key)=\($0.value)" }
    var next = environ
    while let variable = next.pointee {
      let text = String(cString: variable)
      if additions[String(text.prefix { $0 != "=" })] == nil { result.append(text) }
      next += 1
    }
    return result
  }

  /// The first line of its output that contains `text`, within the time.
  public func line(containing text: String, within seconds: Int = 10) throws -> String {
    let deadline = time(nil) + seconds
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
      let lines = self.text.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
      if let line = lines.first(where: { $0.contains(text) }) { return String(line) }
      var descriptor = pollfd(fd: output, events: Int16(POLLIN), revents: 0)
      let left = Int32(clamping: (deadline - time(nil)) * 1000)
      guard left > 0, poll(&descriptor, 1, left) > 0 else {
        throw Failure(description: "no line with '\(text)' in \(seconds) s; the output was: \(self.text)")
      }
      let count = read(output, &buffer, buffer.count)
      guard count > 0 else { throw Failure(description: "the process ended; its output was: \(self.text)") }
      self.text += String(decoding: buffer[..<count], as: UTF8.self)
    }
  }

  public func signal(_ number: Int32) { if status == nil { Glibc.kill(pid, number) } }

  /// SIGTERM, and SIGKILL when that doesn't end it within the time. Returns its exit code, 128 + n after a signal n.
  @discardableResult
  public func stop(within seconds: Int = 10) -> Int32 {
    signal(SIGCONT)
    signal(SIGTERM)
    let deadline = time(nil) + seconds
    while status == nil, time(nil) <= deadline {
      if !reap(WNOHANG) { usleep(5000) }
    }
    return status ?? kill()
  }

  /// SIGKILL.
  @discardableResult
  public func kill() -> Int32 {
    signal(SIGKILL)
    while status == nil, !reap(0) {}
    return status ?? -1
  }

  private func reap(_ options: Int32) -> Bool {
    var raw: Int32 = 0
    let result = waitpid(pid, &raw, options)
    if result == pid { status = raw & 0x7F == 0 ? (raw >> 8) & 0xFF : 128 + (raw & 0x7F) }
    if result < 0, errno == ECHILD { status = -1 }
    if status != nil { loosen() }
    return status != nil
  }

  /// The pid is free for others from now on: the sentry ends without a kill.
  private func loosen() {
    _ = write(leash, "\n", 1)
    close(leash)
    waitpid(sentry, nil, 0)
  }
}

private let givenPorts = Mutex(Set<UInt16>())

/// A TCP port of 127.0.0.1 that was free a moment ago, another at each call; below those that the kernel gives to
/// connections, so that none of them takes it meanwhile.
public func freePort() -> UInt16 {
  for _ in 0..<1000 {
    let port = UInt16.random(in: 15_000..<32_000)
    guard givenPorts.withLock({ $0.insert(port).inserted }) else { continue }
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    address.sin_port = port.bigEndian
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    if result == 0 { return port }
  }
  return 0
}

/// Starts a server on a free port, and on another one where it fails: somebody else may have bound that port meanwhile.
func onFreePort<Server>(_ start: (UInt16) throws -> Server) throws -> (UInt16, Server) {
  for _ in 0..<4 {
    let port = freePort()
    if let server = try? start(port) { return (port, server) }
  }
  let port = freePort()
  return (port, try start(port))
}

/// A new directory below the system's temporary one; whoever makes it removes it.
public func temporaryDirectory(_ name: String) throws -> String {
  let base = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
  var template = Array("\(base)/fleetpush-\(name)-XXXXXX".utf8CString)
  guard let path = mkdtemp(&template) else { throw ServerProcess.Failure(description: "mkdtemp: errno \(errno)") }
  return String(cString: path)
}

/// Removes a directory and the files in it.
public func removeDirectory(_ path: String) {
  _ = try? ServerProcess("rm", ["-rf", "--", path]).wait()
}

extension ServerProcess {
  /// Waits for it to end by itself; its exit code.
  public func wait() -> Int32 {
    while status == nil, !reap(0) {}
    return status ?? -1
  }
}

/// The directory of the executables that were built with these tests.
public func builtProducts() -> String {
  var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
  let count = readlink("/proc/self/exe", &buffer, buffer.count)
  let path = String(decoding: buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
  return path.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" }
}
