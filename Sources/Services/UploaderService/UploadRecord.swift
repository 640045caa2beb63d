internal import Bytes
internal import FileStore
internal import GRPC

/// What Redis knows of an upload, which all nodes share. It lags the journal on the disk and never leads it.
struct UploadRecord: Sendable {
  /// The life of a file: every arrow is one Lua call that compares the fence.
  enum State: String, Sendable {
    case uploading, finalising, verified, published
  }

  var state: State
  var size: Int64
  /// Goes up whenever somebody takes the part file over; it is part of that file's name.
  var fence: Int64
  var durableBytes: Int64
  var declaredMD5: String?
  /// The server's digest, once verified.
  var md5: String?
  var name: String?
  var sha256: String?
  /// Encoded `push.v1.Job`: whom the notice is for.
  var job: Bytes?
  /// Encoded `filetransfer.v1.PublishedFile`, once verified.
  var notice: Bytes?
  /// The node that writes the file: a name of this life of its process, where others reach it, and until when it may be
  /// silent (ms since the epoch). Without one any node may be the next.
  var writer: String?
  var address: String?
  var leaseEnd: Int64
  /// ms since the epoch.
  var updatedAt: Int64
  /// The durable chunks as they came, in the order of their offsets; no overlaps.
  var chunks: [Range<Int64>] = []
  /// MD5s of durable blocks.
  var blocks: [Int: String] = [:]

  var isDone: Bool { state == .verified || state == .published }
  var isComplete: Bool { durableBytes == size }

  /// From the fields of the hash; nil when there is no record.
  init?(fields: [String: Bytes]) {
    func text(_ name: String) -> String? { fields[name]?.string.flatMap { $0.isEmpty ? nil : $0 } }
    func number(_ name: String) -> Int64? { text(name).flatMap { Int64($0) } }
    guard let state = text("state").flatMap(State.init(rawValue:)), let size = number("size"),
      let fence = number("fence")
    else { return nil }
    self.state = state
    self.size = size
    self.fence = fence
    durableBytes = number("durable") ?? 0
    declaredMD5 = text("declared_md5")
    md5 = text("md5")
    name = text("name")
    sha256 = text("sha256")
    job = fields["job"].flatMap { $0.isEmpty ? nil : $0 }
    notice = fields["notice"].flatMap { $0.isEmpty ? nil : $0 }
    writer = text("writer")
    address = text("address")
    leaseEnd = number("lease_end") ?? 0
    updatedAt = number("updated") ?? 0
  }
}

extension UploadRecord {
  /// The record of an upload that is known by its journal alone.
  init(journal: JournalState) {
    state = .uploading
    size = journal.size
    fence = 0
    durableBytes = journal.durable.total
    declaredMD5 = journal.declaredMD5
    name = journal.name
    sha256 = journal.sha256
    job = journal.job
    leaseEnd = 0
    updatedAt = journal.writtenAt
    chunks = journal.sortedChunks
    blocks = journal.blocks
  }

  /// What a journal is to say of it.
  var journalState: JournalState {
    var state = JournalState(size: size)
    state.declaredMD5 = declaredMD5
    state.name = name
    state.sha256 = sha256
    state.job = job
    state.add(chunks)
    for (index, md5) in blocks { state.add(block: index, md5: md5) }
    return state
  }
}

/// What a client says of a whole file, checked: the size, and what it may tell besides.
struct Declaration: Sendable {
  var size: Int64?
  var md5: String?
  var name: String?
  var sha256: String?
  var job: Bytes?
}

extension UploadRecord {
  /// The record of a file that is known by its sidecar alone.
  init(finished sidecar: Sidecar) {
    state = .published
    size = sidecar.size
    fence = 0
    durableBytes = sidecar.size
    md5 = sidecar.md5
    name = sidecar.name
    sha256 = sidecar.sha256
    leaseEnd = 0
    updatedAt = sidecar.publishedAt
    chunks = sidecar.size > 0 ? [0..<sidecar.size] : []
    for (index, md5) in sidecar.blockMD5s.enumerated() { blocks[index] = md5 }
  }
}

extension Declaration {
  /// What was declared before this one, as its journal has it, goes before what is said now.
  ///
  /// - Throws: FAILED_PRECONDITION when they contradict each other.
  mutating func continueFrom(_ journal: JournalState) throws(Status) {
    if let size, size != journal.size { throw .otherSize(journal.size) }
    if let md5, let before = journal.declaredMD5, md5 != before { throw .otherMD5(before) }
    size = journal.size
    md5 = journal.declaredMD5 ?? md5
    name = journal.name ?? name
    sha256 = journal.sha256 ?? sha256
    job = journal.job ?? job
  }
}
