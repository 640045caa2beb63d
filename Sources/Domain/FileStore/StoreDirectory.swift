internal import Bytes
internal import Glibc

/// The shared directory: `incoming/<id>.<fence>.part` for what is being uploaded, `files/<aa>/<id>` and its sidecar
/// `<id>~.json` for what is finished.
///
/// Every path is opened below a directory handle, one component at a time, without following links. All calls block:
/// they belong on a `BlockingPool`; they may be made from several threads at once. Rename is atomic within the directory
/// (one file system or one NFS export), and a name counts only after its directory was synced.
public final class StoreDirectory: Sendable {
  private let incoming: Int32
  private let files: Int32

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

  // MARK: - Part files

  /// Makes an empty part file of the upload's size (sparse), or opens the one that another stream has made.
  public func createPart(_ id: FileID, fence: Int64, size: Int64) throws(FileStoreError) -> StoreFile {
    let name = Self.part(id, fence)
    let descriptor = try retrying("create the part file") {
      openat(incoming, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o644)
    }
    let file = StoreFile(descriptor: descriptor)
    try retrying("size the part file") { ftruncate(descriptor, off_t(size)) }
    try retrying("sync the incoming directory") { fsync(incoming) }
    return file
  }

  /// Opens a part file that has to be there.
  ///
  /// - Throws: `.notFound`, after looking into the directory itself: an NFS client may remember for a while that a name
  ///   was absent.
  public func openPart(_ id: FileID, fence: Int64) throws(FileStoreError) -> StoreFile {
    try Self.openExisting(Self.part(id, fence), in: incoming, O_RDWR)
  }

  /// Renames a part file to a new fence, so that a writer of the old one can no longer finish it.
  public func renamePart(_ id: FileID, from old: Int64, to new: Int64) throws(FileStoreError) {
    try retrying("rename the part file") { renameat(incoming, Self.part(id, old), incoming, Self.part(id, new)) }
    try retrying("sync the incoming directory") { fsync(incoming) }
  }

  /// Removes a part file; one that isn't there is fine.
  public func removePart(_ id: FileID, fence: Int64) throws(FileStoreError) {
    if unlinkat(incoming, Self.part(id, fence), 0) < 0, errno != ENOENT {
      throw .system("remove the part file", errno: errno)
    }
  }

  // MARK: - Finished files

  /// Gives a part file that is whole and verified its final name, then writes its sidecar: both survive a power cut when
  /// this returns, and a crash in between leaves a file without a sidecar, which is invisible.
  ///
  /// Calling it again after a crash goes on where it stopped.
  public func publish(_ id: FileID, fence: Int64, file: StoreFile, sidecar: Sidecar) throws(FileStoreError) {
    try file.sync()
    let folder = try Self.directory(id.folder, in: files)
    defer { _ = close(folder) }
    try retrying("sync the files directory") { fsync(files) }
    // ENOENT: an earlier attempt has already renamed it; `openUnpublished` is how the caller got the file then.
    if renameat(incoming, Self.part(id, fence), folder, id.text) < 0 {
      let number = errno
      guard number == ENOENT, faccessat(folder, id.text, F_OK, 0) == 0 else {
        throw .system("give the file its final name", errno: number)
      }
    }
    try retrying("sync the file's directory") { fsync(folder) }
    try retrying("sync the incoming directory") { fsync(incoming) }
    try write(sidecar, of: id, fence: fence, in: folder)
  }

  private func write(_ sidecar: Sidecar, of id: FileID, fence: Int64, in folder: Int32) throws(FileStoreError) {
    let temporary = "\(id.text)~\(fence).tmp"
    let descriptor = try retrying("create the file's record") {
      openat(folder, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0o644)
    }
    let file = StoreFile(descriptor: descriptor)
    try file.write(sidecar.json(), at: 0)
    try file.sync()
    try file.close()
    try retrying("name the file's record") { renameat(folder, temporary, folder, Self.sidecar(id)) }
    try retrying("sync the file's directory") { fsync(folder) }
  }

  /// The file under its final name, sidecar or not: for going on with a publication that was cut off.
  public func openUnpublished(_ id: FileID) throws(FileStoreError) -> StoreFile {
    let folder = try Self.openDirectory(id.folder, in: files)
    defer { _ = close(folder) }
    return try Self.openExisting(id.text, in: folder, O_RDONLY)
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

  private static func part(_ id: FileID, _ fence: Int64) -> String { "\(id.text).\(fence).part" }
  // `~` is outside the alphabet of ids, so no id can be another one's sidecar.
  private static func sidecar(_ id: FileID) -> String { "\(id.text)~.json" }

  private static func directory(_ name: String, in parent: Int32) throws(FileStoreError) -> Int32 {
    if mkdirat(parent, name, 0o755) < 0, errno != EEXIST { throw .system("make a directory", errno: errno) }
    return try openDirectory(name, in: parent)
  }

  private static func openDirectory(_ name: String, in parent: Int32) throws(FileStoreError) -> Int32 {
    try retrying("open a directory") { openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) }
  }

  private static func openExisting(_ name: String, in parent: Int32, _ mode: Int32) throws(FileStoreError) -> StoreFile
  {
    let flags = mode | O_NOFOLLOW | O_CLOEXEC
    let descriptor = openat(parent, name, flags)
    if descriptor >= 0 { return StoreFile(descriptor: descriptor) }
    guard errno == ENOENT || errno == EINTR else { throw .system("open the file", errno: errno) }
    // An NFS client may have cached that the name is absent; reading the directory brings its cache up to date.
    readThrough(parent)
    return StoreFile(descriptor: try retrying("open the file") { openat(parent, name, flags) })
  }

  private static func readThrough(_ directory: Int32) {
    // fdopendir(3) takes the descriptor over, and shares its position: so an own one, opened anew.
    let own = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard own >= 0 else { return }
    guard let stream = fdopendir(own) else {
      _ = close(own)
      return
    }
    while readdir(stream) != nil {}
    _ = closedir(stream)
  }
}
