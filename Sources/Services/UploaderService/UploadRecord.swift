internal import Bytes
internal import FileStore

/// What Redis knows of an upload: the truth that all nodes share. It lags what is on the disk and never leads it.
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
  /// Until when the finaliser may be silent, ms since the epoch.
  var finaliserLeaseEnd: Int64
  /// ms since the epoch.
  var updatedAt: Int64
  /// The durable chunks as they came, in the order of their offsets; no overlaps.
  var chunks: [Range<Int64>] = []

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
    finaliserLeaseEnd = number("lease_end") ?? 0
    updatedAt = number("updated") ?? 0
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
    finaliserLeaseEnd = 0
    updatedAt = sidecar.publishedAt
    chunks = sidecar.size > 0 ? [0..<sidecar.size] : []
  }
}
