public import Bytes
internal import Glibc
internal import Safeguards
internal import Schema

/// A file below `incoming`, as its name tells.
public struct IncomingFile: Sendable, Hashable {
  public enum Kind: String, Sendable, Hashable, CaseIterable {
    /// The bytes.
    case part
    /// What is known about them.
    case journal
    /// A journal or sidecar that is being written.
    case tmp
  }

  public let id: FileID
  public let fence: Int64
  public let kind: Kind

  public init(_ id: FileID, fence: Int64, _ kind: Kind) {
    self.id = id
    self.fence = fence
    self.kind = kind
  }

  /// `<id>.<fence>.<kind>`; ids may have dots.
  init?(name: String) {
    let words = name.split(separator: ".", omittingEmptySubsequences: false)
    guard words.count >= 3, let kind = Kind(rawValue: String(words[words.count - 1])),
      let fence = Int64(words[words.count - 2]), fence >= 0,
      let id = try? FileID(words.dropLast(2).joined(separator: "."))
    else { return nil }
    self.init(id, fence: fence, kind)
  }

  var name: String { "\(id.text).\(fence).\(kind.rawValue)" }
}

extension StoreDirectory {
  // MARK: - Beginning, and going on

  /// Makes a part file of the upload's size (sparse) and its journal; both names are safe when this returns.
  public func begin(
    _ id: FileID, fence: Int64, _ state: JournalState, now: Int64
  ) throws(FileStoreError) -> (part: StoreFile, journal: UploadJournal) {
    let part = try create(IncomingFile(id, fence: fence, .part))
    try part.truncate(to: state.size)
    FailPoint.reached(.partCreated)
    let journal = try makeJournal(id, fence: fence, state, now: now)
    return (part, journal)
  }

  /// Brings what an earlier writer left under a new fence: the part is renamed first, so that a writer of the old fence
  /// can't finish it any more should it live after all; the journal is written anew, so that it can't write into it.
  ///
  /// - Parameter state: what Redis knows of the upload, which goes in beside what the journal says.
  /// - Returns: nil where there is no part file.
  public func takeOver(
    _ id: FileID, fence: Int64, adding state: JournalState, now: Int64
  ) throws(FileStoreError) -> (part: StoreFile, journal: UploadJournal)? {
    let left = try incoming(of: id)
    if let higher = left.first(where: { $0.fence > fence }) {
      throw FileStoreError(.exists, "The upload is at fence \(higher.fence) already, above \(fence).")
    }
    guard let part = left.filter({ $0.kind == .part }).max(by: { $0.fence < $1.fence }) else { return nil }
    if part.fence != fence { try renamePart(id, from: part.fence, to: fence) }
    FailPoint.reached(.partRenamed)
    let merged = try journalState(among: left).map { state.merged(into: $0) } ?? state
    let journal = try makeJournal(id, fence: fence, merged, now: now)
    FailPoint.reached(.journalRenamed)
    for file in left where file.fence < fence && file != part { try remove(file) }
    let file = try openPart(id, fence: fence)
    try file.truncate(to: merged.size)
    return (file, journal)
  }

  /// Writes a journal under a new fence for an upload whose file has its final name already, and removes older ones.
  public func beginJournal(
    _ id: FileID, fence: Int64, _ state: JournalState, now: Int64
  ) throws(FileStoreError) -> UploadJournal {
    let journal = try makeJournal(id, fence: fence, state, now: now)
    try removeIncoming(id, upTo: fence - 1)
    return journal
  }

  /// What the journal of an upload says; nil without one that can be read.
  public func journalState(of id: FileID) throws(FileStoreError) -> JournalState? {
    try journalState(among: incoming(of: id))
  }

  private func journalState(among files: [IncomingFile]) throws(FileStoreError) -> JournalState? {
    guard let newest = files.filter({ $0.kind == .journal }).max(by: { $0.fence < $1.fence }) else { return nil }
    do {
      let file = try Self.openExisting(newest.name, in: incoming, O_RDONLY)
      return try UploadJournal.read(file).state
    } catch  where error.code == .notFound {
      // Its writer has finished, or another one has taken over.
      return nil
    }
  }

  /// - Precondition: no other writer has this fence.
  private func makeJournal(
    _ id: FileID, fence: Int64, _ state: JournalState, now: Int64
  ) throws(FileStoreError) -> UploadJournal {
    let frame = UploadJournal.frame(state.step(at: now))
    let file = try replaceJournal(id, fence: fence, with: frame)
    FailPoint.reached(.journalCreated)
    return UploadJournal(self, id, fence: fence, file: file, length: Int64(frame.count), state: state)
  }

  /// Puts a new journal in the old one's place, at once.
  func replaceJournal(_ id: FileID, fence: Int64, with content: Bytes) throws(FileStoreError) -> StoreFile {
    let temporary = IncomingFile(id, fence: fence, .tmp)
    let file = try create(temporary)
    try file.truncate(to: 0)
    try file.write(content, at: 0)
    try file.syncData()
    let name = IncomingFile(id, fence: fence, .journal).name
    try retrying("name the journal") { renameat(incoming, temporary.name, incoming, name) }
    try retrying("sync the incoming directory") { fsync(incoming) }
    return file
  }

  private func create(_ file: IncomingFile) throws(FileStoreError) -> StoreFile {
    let descriptor = try retrying("create the \(file.kind) file") {
      openat(incoming, file.name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o644)
    }
    return StoreFile(descriptor: descriptor)
  }

  // MARK: - Part files

  /// Makes a part file with all of its bytes, for a file that is published at once: its name needn't be safe.
  public func createWhole(_ id: FileID, fence: Int64, _ content: Bytes) throws(FileStoreError) -> StoreFile {
    let file = try create(IncomingFile(id, fence: fence, .part))
    try file.write(content, at: 0)
    try file.truncate(to: Int64(content.count))
    return file
  }

  /// Makes an empty part file of the upload's size (sparse).
  public func createPart(_ id: FileID, fence: Int64, size: Int64) throws(FileStoreError) -> StoreFile {
    let file = try create(IncomingFile(id, fence: fence, .part))
    try file.truncate(to: size)
    try retrying("sync the incoming directory") { fsync(incoming) }
    return file
  }

  /// Opens a part file that has to be there.
  ///
  /// - Throws: `.notFound`, after looking into the directory itself: an NFS client may remember for a while that a name
  ///   was absent.
  public func openPart(_ id: FileID, fence: Int64) throws(FileStoreError) -> StoreFile {
    try Self.openExisting(IncomingFile(id, fence: fence, .part).name, in: incoming, O_RDWR)
  }

  /// Renames a part file to a new fence, so that a writer of the old one can no longer finish it.
  public func renamePart(_ id: FileID, from old: Int64, to new: Int64) throws(FileStoreError) {
    let (before, after) = (IncomingFile(id, fence: old, .part).name, IncomingFile(id, fence: new, .part).name)
    try retrying("rename the part file") { renameat(incoming, before, incoming, after) }
    try retrying("sync the incoming directory") { fsync(incoming) }
  }

  // MARK: - What there is

  /// The files of one upload, whatever their fence.
  public func incoming(of id: FileID) throws(FileStoreError) -> [IncomingFile] {
    let prefix = id.text + "."
    return try Self.names(in: incoming).compactMap { name in
      guard name.hasPrefix(prefix), let file = IncomingFile(name: name), file.id == id else { return nil }
      return file
    }
  }

  /// Everything below `incoming`, for the sweeper.
  public func allIncoming() throws(FileStoreError) -> [IncomingFile] {
    try Self.names(in: incoming).compactMap { IncomingFile(name: $0) }
  }

  /// When a file was last written to, ms since the epoch; nil when it isn't there.
  public func lastWritten(_ file: IncomingFile) throws(FileStoreError) -> Int64? {
    var status = stat()
    if fstatat(incoming, file.name, &status, AT_SYMLINK_NOFOLLOW) < 0 {
      if errno == ENOENT { return nil }
      throw .system("look at a file", errno: errno)
    }
    return Int64(status.st_mtim.tv_sec) * 1000 + Int64(status.st_mtim.tv_nsec) / 1_000_000
  }

  /// Removes a file; one that isn't there is fine.
  public func remove(_ file: IncomingFile) throws(FileStoreError) {
    if unlinkat(incoming, file.name, 0) < 0, errno != ENOENT { throw .system("remove a file", errno: errno) }
  }

  /// Removes what an upload has below `incoming` up to a fence.
  public func removeIncoming(_ id: FileID, upTo fence: Int64) throws(FileStoreError) {
    for file in try incoming(of: id) where file.fence <= fence { try remove(file) }
  }
}

extension JournalState {
  /// What Redis knows, added to what the journal says. Redis lags the journal, so this adds something only where a journal
  /// is damaged or lost; and what Redis has was safe on disk before Redis had it.
  func merged(into journal: JournalState) -> JournalState {
    guard journal.size == size else { return self }
    var merged = journal
    let known = journal.durable
    merged.add(sortedChunks.filter { !known.overlaps($0) })
    for (index, md5) in blocks where merged.blocks[index] == nil { merged.add(block: index, md5: md5) }
    merged.declaredMD5 = declaredMD5 ?? journal.declaredMD5
    merged.name = name ?? journal.name
    merged.sha256 = sha256 ?? journal.sha256
    merged.job = job ?? journal.job
    return merged
  }
}
