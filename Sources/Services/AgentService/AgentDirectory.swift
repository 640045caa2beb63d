internal import Bytes
internal import FileStore
internal import FoundationEssentials
internal import Glibc

/// The directory that files are delivered to, and `.fleetpush` in it: `<file id>~.part` for what is coming in,
/// `<file id>~.json` for its record, `agent.json`, and a lock that keeps a second agent out.
///
/// All calls block: they belong on a `BlockingPool`. Names are opened below directory handles and never followed when
/// they are links, so no notice can reach outside of the directory.
final class AgentDirectory: Sendable {
  static let stateName = ".fleetpush"
  /// A larger record is not read.
  static let maximumRecordBytes = 1 << 20
  /// How long the record of a file that has ended is kept, milliseconds.
  static let endedRecordAge: Int64 = 7 * 24 * 3600 * 1000
  /// How many records of ended files are kept; of more the oldest go.
  static let maximumEndedRecords = 1000

  /// The absolute path.
  let path: String
  private let root: Int32
  private let state: Int32
  private let lock: Int32

  /// Opens the directory, making it where it is missing, and locks it.
  init(at path: String) throws(AgentError) {
    if mkdir(path, 0o755) < 0, errno != EEXIST { throw .system("make \(path)", errno: errno) }
    guard let absolute = realpath(path, nil) else { throw .system("find \(path)", errno: errno) }
    self.path = String(cString: absolute)
    free(absolute)
    root = try checked("open \(path)") { open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
    do throws(AgentError) {
      state = try Self.openState(in: root)
    } catch {
      close(root)
      throw error
    }
    do throws(AgentError) {
      lock = try Self.takeLock(in: state)
    } catch {
      close(root)
      close(state)
      throw error
    }
  }

  deinit {
    close(lock)
    close(state)
    close(root)
  }

  private static func openState(in root: Int32) throws(AgentError) -> Int32 {
    if mkdirat(root, stateName, 0o700) < 0, errno != EEXIST { throw .system("make \(stateName)", errno: errno) }
    return try checked("open \(stateName)") {
      openat(root, stateName, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    }
  }

  private static func takeLock(in state: Int32) throws(AgentError) -> Int32 {
    let file = try checked("open the lock") { openat(state, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600) }
    guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
      close(file)
      throw AgentError(.locked, "another agent works in this directory")
    }
    return file
  }

  /// Lets another agent in, when this one is done with everything.
  func unlock() { flock(lock, LOCK_UN) }

  /// The name that a notice's file is delivered under: the last component of what it says, and never a hidden file, which
  /// could be this directory's own state or something that a program runs.
  static func deliveryName(_ announced: String) throws(AgentError) -> String {
    let name: FileName
    do throws(FileStoreError) {
      name = try FileName(lastComponentOf: announced)
    } catch {
      throw AgentError(.badNotice, error.message)
    }
    guard !name.text.hasPrefix(".") else { throw AgentError(.badNotice, "The file name begins with a dot.") }
    return name.text
  }

  // MARK: Part files

  func openPart(_ id: FileID) throws(AgentError) -> PartFile {
    let file = try checked("open the part file") {
      openat(state, "\(id)~.part", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o644)
    }
    return PartFile(descriptor: file)
  }

  func removePart(_ id: FileID) { unlinkat(state, "\(id)~.part", 0) }

  /// Renames a finished part file into place, over what stands there, and makes that safe.
  /// - Returns: the absolute path.
  func place(_ id: FileID, as name: String) throws(AgentError) -> String {
    try checked("rename the file to '\(name)'") { renameat(state, "\(id)~.part", root, name) }
    try checked("sync the directory") { fsync(root) }
    return "\(path)/\(name)"
  }

  /// The path and MD5 of a delivered file, when it is a plain file of this size.
  func delivered(_ name: String, size: Int64) throws(AgentError) -> (path: String, md5: String)? {
    let file = openat(root, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
    guard file >= 0 else { return nil }
    let part = PartFile(descriptor: file)
    guard try part.plainSize() == size, try part.digest(upTo: size) == size else { return nil }
    return ("\(path)/\(name)", part.finishDigest())
  }

  // MARK: Records

  /// - Parameter durably: whether it has to survive a loss of power.
  func save(_ record: DownloadRecord, durably: Bool) throws(AgentError) {
    try replace("\(record.fileID)~.json", with: encodeJSON(record), durably: durably)
  }

  func save(_ agent: AgentState) throws(AgentError) {
    try replace("agent.json", with: encodeJSON(agent), durably: false)
  }

  /// The state of an earlier run; nil when there is none, or another client id wrote it.
  func loadState(clientID: String) -> AgentState? {
    guard let bytes = read("agent.json"), let state = decodeJSON(AgentState.self, bytes) else { return nil }
    return state.clientID == clientID ? state : nil
  }

  /// All records; those of files that ended long ago are removed. A record that can't be read is passed over: its notice
  /// comes again or the file is pushed again.
  func loadRecords(now: Int64) -> [DownloadRecord] {
    var records: [DownloadRecord] = []
    for name in names() where name.hasSuffix("~.json") {
      guard let bytes = read(name), let record = decodeJSON(DownloadRecord.self, bytes),
        "\(record.fileID)~.json" == name
      else { continue }
      records.append(record)
    }
    let ended = records.filter { $0.ending != nil }.sorted { endedAt($0) > endedAt($1) }
    let stale = ended.enumerated().filter {
      $0.offset >= Self.maximumEndedRecords || now - endedAt($0.element) > Self.endedRecordAge
    }
    for (_, record) in stale { unlinkat(state, "\(record.fileID)~.json", 0) }
    let gone = Set(stale.map(\.element.fileID))
    return records.filter { !gone.contains($0.fileID) }
  }

  private func endedAt(_ record: DownloadRecord) -> Int64 { record.ending?.endedAt ?? 0 }

  private func names() -> [String] {
    // fdopendir(3) takes the descriptor over: it gets one of its own.
    let copy = openat(state, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard copy >= 0, let directory = fdopendir(copy) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      names.append(
        withUnsafePointer(to: &entry.pointee.d_name) { pointer in
          pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        })
    }
    return names
  }

  private func read(_ name: String) -> [UInt8]? {
    let file = openat(state, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
    guard file >= 0 else { return nil }
    defer { close(file) }
    var bytes: [UInt8] = []
    while bytes.count < Self.maximumRecordBytes {
      let chunk = [UInt8](unsafeUninitializedCapacity: 64 * 1024) { memory, count in
        count = max(0, Glibc.read(file, memory.baseAddress, memory.count))
      }
      if chunk.isEmpty { return bytes }
      bytes += chunk
    }
    return nil
  }

  /// Replaces a small file as a whole: a reader, or the next run, sees the old one or the new one.
  private func replace(_ name: String, with bytes: [UInt8], durably: Bool) throws(AgentError) {
    let temporary = "\(name).new"
    let file = try checked("write a record") {
      openat(state, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0o600)
    }
    defer { close(file) }
    try Bytes(bytes).withUnsafeBytes { (source) throws(AgentError) in try writeAll(file, source, at: 0) }
    if durably { try checked("sync a record") { fdatasync(file) } }
    try checked("rename a record") { renameat(state, temporary, state, name) }
    if durably { try checked("sync the state directory") { fsync(state) } }
  }
}

func writeAll(_ file: Int32, _ source: UnsafeRawBufferPointer, at offset: Int64) throws(AgentError) {
  var done = 0
  while done < source.count {
    let rest = UnsafeRawBufferPointer(rebasing: source[done...])
    // pwrite(2) may write less than asked for; 0 would be no progress, which a regular file doesn't give.
    let count = try checked("write") { pwrite(file, rest.baseAddress, rest.count, off_t(offset) + done) }
    guard count > 0 else { throw AgentError(.io, "the file took no more bytes") }
    done += count
  }
}
