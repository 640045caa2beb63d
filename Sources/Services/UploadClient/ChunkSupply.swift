internal import Bytes
internal import FileStore
internal import Reactor

/// Deals the chunks of a file out to its streams: one reader in order feeds the digest of the whole file and the queue
/// that the streams take from. Belongs to its loop.
///
/// Memory: the reader waits while `UploadOptions.unsentBytes` are read and not sent, or `undigestedBytes` are not digested.
/// The last wanted chunk of the file is held back (`last`): it goes together with the digest, when all else has arrived, so
/// that the server doesn't have the whole file before it knows what it should be.
final class ChunkSupply {
  private let source: SourceFile
  private let wanted: ByteRanges
  private let loop: EventLoop
  private let isDigesting: Bool
  private let digest = RunningDigest()
  private var queue: [Chunk] = []
  private var head = 0
  private var unsent: Int64 = 0
  private var undigested: Int64 = 0
  private var hasReadAll = false
  private var failure: UploadError?
  private let changes = Changes()
  /// The last wanted chunk, once everything is read.
  private(set) var last: Chunk?

  /// The whole-file digest, which one thread takes forward; others read, and take the chunks' own digests.
  private static let digestPool = BlockingPool(threads: 2, name: "digest")

  /// - Parameters:
  ///   - wanted: what is to be sent.
  ///   - isDigesting: whether the whole file is read for its MD5; else only what is wanted is read.
  init(_ source: SourceFile, wanted: ByteRanges, isDigesting: Bool, loop: EventLoop) {
    self.source = source
    self.wanted = wanted
    self.isDigesting = isDigesting
    self.loop = loop
  }

  /// Begins to read. The supply lives until the reader has ended.
  func start() {
    loop.spawn {
      do {
        try await self.readAll()
        if self.isDigesting {
          while self.undigested > 0 { await self.changes.next() }
          try await BlockingPool.shared.run { [source = self.source] in try source.checkUnchanged() }
        }
      } catch {
        self.failure = self.failure ?? error as? UploadError ?? UploadError(.file, "\(error)")
      }
      self.hasReadAll = true
      self.changes.signal()
    }
  }

  /// Ends the reader; who waits for a chunk gets `error`.
  func stop(_ error: UploadError) {
    failure = failure ?? error
    changes.signal()
  }

  /// The next chunk to send; nil when every one but the last has been taken. The taker says `sent` or `giveBack`.
  func next() async throws -> Chunk? {
    while true {
      if let failure { throw failure }
      if head < queue.count {
        let chunk = queue[head]
        head += 1
        if head == queue.count {
          queue.removeAll(keepingCapacity: true)
          head = 0
        }
        return chunk
      }
      if hasReadAll { return nil }
      await changes.next()
    }
  }

  func sent(_ chunk: Chunk) {
    unsent -= Int64(chunk.data.count)
    changes.signal()
  }

  /// The chunk goes back to the queue's end, for whoever comes next.
  func giveBack(_ chunk: Chunk) {
    queue.append(chunk)
    changes.signal()
  }

  /// The MD5 of the whole file, when `isDigesting`, and the file is still what it was.
  func wholeMD5() async throws -> String? {
    while !hasReadAll { await changes.next() }
    if let failure { throw failure }
    return isDigesting ? digest.md5 : nil
  }

  // MARK: The reader

  private func readAll() async throws {
    var position: Int64 = 0
    while position < source.size, failure == nil {
      let end = min(source.size, position + UploadOptions.batchBytes)
      let pieces = wanted.pieces(of: position..<end, length: UploadOptions.chunkBytes)
      guard isDigesting || !pieces.isEmpty else {
        position = end
        continue
      }
      while unsent > UploadOptions.unsentBytes || undigested > UploadOptions.undigestedBytes, failure == nil {
        await changes.next()
      }
      let batch = try await BlockingPool.shared.run { [source, isDigesting, position] in
        try ReadBatch(source, position..<end, pieces, all: isDigesting)
      }
      if isDigesting { takeForward(batch.read) }
      queueUp(batch.chunks)
      position = end
    }
  }

  private func takeForward(_ bytes: [Bytes]) {
    let count = bytes.reduce(0) { $0 + Int64($1.count) }
    undigested += count
    digest.enter(bytes)
    guard !digest.isRunning else { return }
    digest.isRunning = true
    loop.spawn {
      while let next = self.digest.takeEntered() {
        await Self.digestPool.run { [digest = self.digest] in digest.update(next) }
        self.undigested -= next.reduce(0) { $0 + Int64($1.count) }
        self.changes.signal()
      }
      self.digest.isRunning = false
    }
  }

  /// Read, and not taken yet.
  var queuedBytes: Int64 { queue[head...].reduce(Int64(last?.data.count ?? 0)) { $0 + Int64($1.data.count) } }

  private func queueUp(_ chunks: [Chunk]) {
    guard let newest = chunks.last else { return }
    if let last { queue.append(last) }
    queue += chunks.dropLast()
    last = newest
    unsent += chunks.reduce(0) { $0 + Int64($1.data.count) }
    changes.signal()
  }
}

/// What one read brought. Made on a pool.
private struct ReadBatch: Sendable {
  /// Everything, in order, in pieces of a chunk's length; empty unless asked for.
  var read: [Bytes] = []
  var chunks: [Chunk] = []

  init(_ source: SourceFile, _ range: Range<Int64>, _ pieces: [Range<Int64>], all: Bool) throws {
    var datas: [Bytes] = []
    if all {
      for start in stride(from: range.lowerBound, to: range.upperBound, by: Int(UploadOptions.chunkBytes)) {
        read.append(try source.read(start..<min(range.upperBound, start + UploadOptions.chunkBytes)))
      }
      datas = pieces.map { piece in
        let index = Int((piece.lowerBound - range.lowerBound) / UploadOptions.chunkBytes)
        let start = Int((piece.lowerBound - range.lowerBound) % UploadOptions.chunkBytes)
        return read[index][start..<(start + piece.count)]
      }
    } else {
      for piece in pieces { datas.append(try source.read(piece)) }
    }
    let sums = DigestLanes.hex(of: datas)
    chunks = pieces.indices.map { Chunk(offset: pieces[$0].lowerBound, data: datas[$0], md5: sums[$0]) }
  }
}

/// The whole-file MD5 and what waits to go into it.
///
/// `@unchecked Sendable`: `update` runs on one pool thread at a time, while `isRunning`; all else is the loop's, and reads
/// `md5` only when nothing runs any more.
private final class RunningDigest: @unchecked Sendable {
  var isRunning = false
  private var entered: [Bytes] = []
  private var whole = Digest(.md5)

  func enter(_ bytes: [Bytes]) { entered += bytes }

  func takeEntered() -> [Bytes]? {
    defer { entered = [] }
    return entered.isEmpty ? nil : entered
  }

  func update(_ bytes: [Bytes]) { for bytes in bytes { whole.update(bytes) } }

  var md5: String { whole.finishHex() }
}

extension ByteRanges {
  /// What of `range` is in the set, cut at every multiple of `length`.
  func pieces(of range: Range<Int64>, length: Int64) -> [Range<Int64>] {
    var pieces: [Range<Int64>] = []
    for member in ranges where member.overlaps(range) {
      var start = max(member.lowerBound, range.lowerBound)
      let end = min(member.upperBound, range.upperBound)
      while start < end {
        let next = min(end, (start / length + 1) * length)
        pieces.append(start..<next)
        start = next
      }
    }
    return pieces
  }
}
