public import Bytes
internal import Protobuf
internal import Safeguards
internal import Schema

/// The journal of an upload: `incoming/<id>.<fence>.journal`, an append-only file of checksummed records.
///
/// A record is a length (4 bytes, big-endian), the first 8 digits of the MD5 of what follows, and an
/// `internal.v1.UploadStep`. A step is written and synced after the data that it speaks of, and before Redis hears of it:
/// so the journal never leads the disk, and Redis never leads the journal. Records behind the first one that is cut off
/// or doesn't match its sum don't count; they were not synced, so nobody was told of them.
///
/// `@unchecked Sendable`: calls are made by one thread at a time; the owner starts the next after the last has returned.
public final class UploadJournal: @unchecked Sendable {
  /// A journal that is longer than this, and than twice what a rewrite would leave, is rewritten with one record.
  public static let rewriteAbove: Int64 = 1 << 20
  /// The longest record that is read: all chunks of the largest file, with room.
  static let maximumRecordBytes = 64 << 20

  private let store: StoreDirectory
  private let id: FileID
  private let fence: Int64
  private var file: StoreFile
  private var length: Int64
  private var lengthWhenRewritten: Int64
  /// What the journal says, the newest step included.
  public private(set) var state: JournalState

  init(_ store: StoreDirectory, _ id: FileID, fence: Int64, file: StoreFile, length: Int64, state: JournalState) {
    self.store = store
    self.id = id
    self.fence = fence
    self.file = file
    self.length = length
    lengthWhenRewritten = length
    self.state = state
  }

  /// What is written in one go.
  public struct Step: Sendable {
    public var chunks: [Range<Int64>] = []
    public var blocks: [Int: String] = [:]
    public var checkpoint: DigestCheckpoint?
    public var damagedBlocks: [Int] = []
    public var declared = Declared()

    public init() {}

    public var isEmpty: Bool {
      chunks.isEmpty && blocks.isEmpty && checkpoint == nil && damagedBlocks.isEmpty && declared.isEmpty
    }
  }

  /// What was declared later than with the first chunk.
  public struct Declared: Sendable {
    var md5: String?
    var name: String?
    var sha256: String?
    var job: Bytes?

    public mutating func add(md5: String?, name: String?, sha256: String?, job: Bytes?) {
      self.md5 = self.md5 ?? md5
      self.name = self.name ?? name
      self.sha256 = self.sha256 ?? sha256
      self.job = self.job ?? job
    }

    public var isEmpty: Bool { md5 == nil && name == nil && sha256 == nil && job == nil }
  }

  /// Appends a step and syncs it. Blocks.
  ///
  /// - Parameter now: ms since the epoch.
  /// - Throws: when it may not be safe; the journal takes nothing more then, and has to be opened anew.
  public func append(_ step: Step, now: Int64) throws(FileStoreError) {
    var record = InternalV1.UploadStep(writtenAtMs: now)
    record.damagedBlocks = step.damagedBlocks.map { Int32(clamping: $0) }
    for range in step.chunks {
      record.offsets.append(range.lowerBound)
      record.lengths.append(Int64(range.count))
    }
    record.blocks = step.blocks.sorted { $0.key < $1.key }.map { .init(index: $0.key, md5: $0.value) }
    record.digest = step.checkpoint.map { .init(position: $0.position, words: $0.words) }
    if !step.declared.isEmpty {
      let declared = step.declared
      record.declaration = .init(
        size: state.size, md5: declared.md5 ?? "", name: declared.name ?? "", sha256: declared.sha256 ?? "",
        job: declared.job ?? Bytes())
    }
    try append(record)
  }

  private func append(_ record: InternalV1.UploadStep) throws(FileStoreError) {
    let frame = Self.frame(record)
    try file.write(frame, at: length)
    FailPoint.reached(.journalWritten)
    try file.syncData()
    length += Int64(frame.count)
    state.apply(record)
    if length > max(Self.rewriteAbove, 2 * lengthWhenRewritten) { try rewrite(now: record.writtenAtMs) }
  }

  /// Writes a new journal with one record and gives it the old one's name.
  func rewrite(now: Int64) throws(FileStoreError) {
    let frame = Self.frame(state.step(at: now))
    file = try store.replaceJournal(id, fence: fence, with: frame)
    length = Int64(frame.count)
    lengthWhenRewritten = length
    FailPoint.reached(.journalRewritten)
  }

  public func close() throws(FileStoreError) { try file.close() }

  // MARK: Records

  private static let headerBytes = 12

  static func frame(_ record: InternalV1.UploadStep) -> Bytes {
    let payload = record.serialized()
    var writer = ByteWriter(capacity: headerBytes + payload.count)
    writer.append(bigEndian: UInt32(payload.count))
    writer.append(sum(payload))
    writer.append(payload)
    return writer.finish()
  }

  private static func sum(_ payload: Bytes) -> Substring.UTF8View { Digest.hex(of: payload, .md5).utf8.prefix(8) }

  /// What a journal says, as far as it is whole.
  ///
  /// - Returns: the state, nil when no record says what the upload is; and how many bytes are whole.
  static func read(_ file: StoreFile) throws(FileStoreError) -> (state: JournalState?, length: Int64) {
    var steps: [InternalV1.UploadStep] = []
    var position: Int64 = 0
    while true {
      let header = try file.read(at: position, length: headerBytes)
      guard header.count == headerBytes else { break }
      let count = (0..<4).reduce(0) { $0 << 8 | Int(header[$1]) }
      guard count <= maximumRecordBytes else { break }
      let payload = try file.read(at: position + Int64(headerBytes), length: count)
      guard payload.count == count, header[4..<12].array.elementsEqual(sum(payload)),
        let step = try? InternalV1.UploadStep(serialized: payload)
      else { break }
      steps.append(step)
      position += Int64(headerBytes + count)
    }
    return (JournalState(steps), position)
  }
}

extension ByteWriter {
  fileprivate mutating func append(_ characters: Substring.UTF8View) {
    for byte in characters { append(byte) }
  }
}
