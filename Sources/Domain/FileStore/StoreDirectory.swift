internal import Bytes
internal import Glibc
internal import Safeguards
internal import Synchronization

/// The shared directory: `incoming/<id>.<fence>.part` and `.journal` for what is being uploaded (`IncomingFiles.swift`),
/// `files/<aa>/<id>` and its sidecar `<id>~.json` for what is finished.
///
/// Every path is opened below a directory handle, one component at a time, without following links. All calls block:
/// they belong on a `BlockingPool`; they may be made from several threads at once. Rename is atomic within the directory
/// (one file system or one NFS export), and a name counts only after its directory was synced.
public final class StoreDirectory: Sendable {
  let incoming: Int32
  private let files: Int32
  /// Folders below `files` whose own names this process has made safe.
  private let safeFolders = Mutex<Set<String>>([])

  /// Opens the directory, making it and what is in it where it is missing.
  public init(at path: String) throws(FileStoreError) {
    if mkdir(path, 0o755) < 0, errno != EEXIST { throw .system("make the store", errno: errno) }
    let root = try retrying("open the store") { Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
    defer { _ = close(root) }
    let incoming = try Self.directory("incoming", in: root)
    do throws(FileStoreError) {
      files = try Self.directory("files", in: root)
    } catch {
      _ = close(incoming)
      throw error
    }
    self.incoming = incoming
    try retrying("sync the store") { fsync(root) }
  }

  deinit {
    _ = close(incoming)
    _ = close(files)
  }

  // MARK: - Finished files

  /// Gives a part file that is whole and verified its final name, then writes its sidecar: both survive a power cut when
  /// this returns, and a crash in between leaves a file without a sidecar, which is invisible.
  ///
  /// - Parameter isNamed: the file has its final name from an attempt before: `openUnpublished` is how the caller got it.
  /// - Throws: `.notFound` when the part isn't at this fence any more: another node has taken it over.
  public func publish(
    _ id: FileID, fence: Int64, file: StoreFile, isNamed: Bool = false, sidecar: Sidecar
  ) throws(FileStoreError) {
    try file.sync()
    FailPoint.reached(.fileSynced)
    let folder = try safeFolder(of: id)
    defer { _ = close(folder) }
    if !isNamed {
      let part = IncomingFile(id, fence: fence, .part).name
      try retrying("give the file its final name") { renameat(incoming, part, folder, id.text) }
    }
    FailPoint.reached(.fileNamed)
    // One of the two directories of a rename is enough where a rename is one transaction, as it is on every file system
    // with a journal; this is the one that counts.
    try retrying("sync the file's directory") { fsync(folder) }
    FailPoint.reached(.directoriesSynced)
    try write(sidecar, of: id, fence: fence, in: folder)
  }

  private func safeFolder(of id: FileID) throws(FileStoreError) -> Int32 {
    let name = id.folder
    let folder = try Self.directory(name, in: files)
    guard !safeFolders.withLock({ $0.contains(name) }) else { return folder }
    if fsync(files) < 0 {
      let number = errno
      _ = close(folder)
      throw .system("sync the files directory", errno: number)
    }
    safeFolders.withLock { _ = $0.insert(name) }
    return folder
  }

  private func write(_ sidecar: Sidecar, of id: FileID, fence: Int64, in folder: Int32) throws(FileStoreError) {
    let temporary = IncomingFile(id, fence: fence, .tmp).name
    let descriptor = try retrying("create the file's record") {
      openat(incoming, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0o644)
    }
    let file = StoreFile(descriptor: descriptor)
    try file.write(sidecar.json(), at: 0)
    try file.sync()
    try file.close()
    FailPoint.reached(.sidecarWritten)
    try retrying("name the file's record") { renameat(incoming, temporary, folder, Self.sidecar(id)) }
    try retrying("sync the file's directory") { fsync(folder) }
    FailPoint.reached(.sidecarNamed)
  }

  /// The file under its final name, sidecar or not: for going on with a publication that was cut off.
  public func openUnpublished(_ id: FileID) throws(FileStoreError) -> StoreFile {
    let folder = try Self.openDirectory(id.folder, in: files)
    defer { _ = close(folder) }
    return try Self.openExisting(id.text, in: folder, O_RDONLY)
  }

  /// Removes a file that has its final name and turned out to be wrong; one that has a sidecar stays.
  public func removeUnpublished(_ id: FileID) throws(FileStoreError) {
    let folder = try Self.openDirectory(id.folder, in: files)
    defer { _ = close(folder) }
    if faccessat(folder, Self.sidecar(id), F_OK, 0) == 0 {
      throw FileStoreError(.exists, "The file is finished and stays as it is.")
    }
    if unlinkat(folder, id.text, 0) < 0, errno != ENOENT { throw .system("remove the file", errno: errno) }
  }

  /// The sidecar of a finished file.
  ///
  /// - Throws: `.notFound` when there is no finished file of that id.
  public func sidecar(of id: FileID) throws(FileStoreError) -> Sidecar {
    let folder = try Self.openDirectory(id.folder, in: files)
    defer { _ = close(folder) }
    let file = try Self.openExisting(Self.sidecar(id), in: folder, O_RDONLY)
    let length = min(Int(try file.size()), Sidecar.maximumBytes)
    return try Sidecar(json: file.read(at: 0, length: length))
  }

  /// A finished file and what is known about it.
  ///
  /// - Throws: `.notFound` without a sidecar; `.corrupt` when the file isn't as long as its sidecar says.
  public func open(_ id: FileID) throws(FileStoreError) -> (file: StoreFile, sidecar: Sidecar) {
    let sidecar = try sidecar(of: id)
    let file = try openUnpublished(id)
    let size = try file.size()
    guard size == sidecar.size else {
      throw FileStoreError(.corrupt, "The file has \(size) bytes on the disk, and should have \(sidecar.size).")
    }
    return (file, sidecar)
  }

  // MARK: - Names and handles

  // `~` is outside the alphabet of ids, so no id can be another one's sidecar.
  private static func sidecar(_ id: FileID) -> String { "\(id.text)~.json" }

  private static func directory(_ name: String, in parent: Int32) throws(FileStoreError) -> Int32 {
    if mkdirat(parent, name, 0o755) < 0, errno != EEXIST { throw .system("make a directory", errno: errno) }
    return try openDirectory(name, in: parent)
  }

  private static func openDirectory(_ name: String, in parent: Int32) throws(FileStoreError) -> Int32 {
    try retrying("open a directory") { openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) }
  }

  static func openExisting(_ name: String, in parent: Int32, _ mode: Int32) throws(FileStoreError) -> StoreFile {
    let flags = mode | O_NOFOLLOW | O_CLOEXEC
    let descriptor = openat(parent, name, flags)
    if descriptor >= 0 { return StoreFile(descriptor: descriptor) }
    guard errno == ENOENT || errno == EINTR else { throw .system("open the file", errno: errno) }
    // An NFS client may have cached that the name is absent; reading the directory brings its cache up to date.
    readThrough(parent)
    return StoreFile(descriptor: try retrying("open the file") { openat(parent, name, flags) })
  }

  private static func readThrough(_ directory: Int32) { _ = try? names(in: directory) }

  /// The names in a directory, without `.` and `..`; a new look at it, past what an NFS client remembers.
  static func names(in directory: Int32) throws(FileStoreError) -> [String] {
    // fdopendir(3) takes the descriptor over, and shares its position: so an own one, opened anew.
    let own = try retrying("open a directory") { openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
    guard let stream = fdopendir(own) else {
      let number = errno
      _ = close(own)
      throw .system("read a directory", errno: number)
    }
    defer { _ = closedir(stream) }
    var names: [String] = []
    while true {
      // readdir(3): "If the end of the directory stream is reached, NULL is returned and errno is not changed."
      errno = 0
      guard let entry = readdir(stream) else { break }
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
    }
    guard errno == 0 else { throw .system("read a directory", errno: errno) }
    return names
  }
}
