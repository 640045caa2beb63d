public import Bytes
internal import Schema

/// What a journal says: the sum of its records. Without I/O.
///
/// Order doesn't matter between records but for damage, which takes back what was said before it, and for what can be
/// declared only once: the first word stands.
public struct JournalState: Sendable, Hashable {
  public var size: Int64
  public var declaredMD5: String?
  public var name: String?
  public var sha256: String?
  /// An encoded `push.v1.Job`.
  public var job: Bytes?
  /// Of the newest record, ms since the epoch.
  public private(set) var writtenAt: Int64 = 0
  /// The durable chunks as they came: lengths by offset; no overlaps.
  public private(set) var chunks: [Int64: Int64] = [:]
  /// MD5s of durable blocks.
  public private(set) var blocks: [Int: String] = [:]
  /// The digest of a durable prefix.
  public private(set) var checkpoint: DigestCheckpoint?

  public init(size: Int64) { self.size = size }

  /// The durable bytes.
  public var durable: ByteRanges { ByteRanges(sortedChunks) }
  /// The chunks in the order of their offsets.
  public var sortedChunks: [Range<Int64>] {
    chunks.sorted { $0.key < $1.key }.map { $0.key..<($0.key + $0.value) }
  }

  /// Adds chunks that are durable; one that was there before stays once.
  public mutating func add(_ ranges: some Sequence<Range<Int64>>) {
    for range in ranges where !range.isEmpty { chunks[range.lowerBound] = Int64(range.count) }
  }

  public mutating func add(block index: Int, md5: String) { blocks[index] = md5 }

  public mutating func add(_ checkpoint: DigestCheckpoint) {
    if checkpoint.position > self.checkpoint?.position ?? 0 { self.checkpoint = checkpoint }
  }

  /// Takes a block's bytes and digests back; what a chunk has outside of it stays.
  public mutating func drop(block index: Int) {
    let block = BlockDigests.range(index, ofSize: size)
    for (offset, length) in chunks where offset < block.upperBound && offset + length > block.lowerBound {
      chunks[offset] = nil
      if offset < block.lowerBound { chunks[offset] = block.lowerBound - offset }
      if offset + length > block.upperBound { chunks[block.upperBound] = offset + length - block.upperBound }
    }
    blocks[index] = nil
    if let checkpoint, checkpoint.position > block.lowerBound { self.checkpoint = nil }
  }
}

extension JournalState {
  /// The sum of records; nil when none of them says what the upload is.
  init?(_ steps: [InternalV1.UploadStep]) {
    guard let size = steps.lazy.compactMap(\.declaration).first?.size, size >= 0, size <= Upload.maximumSize else {
      return nil
    }
    self.init(size: size)
    for step in steps { apply(step) }
  }

  mutating func apply(_ step: InternalV1.UploadStep) {
    writtenAt = max(writtenAt, step.writtenAtMs)
    for index in step.damagedBlocks where index >= 0 { drop(block: Int(index)) }
    if let declared = step.declaration {
      declaredMD5 = declaredMD5 ?? (declared.md5.isEmpty ? nil : declared.md5)
      name = name ?? (declared.name.isEmpty ? nil : declared.name)
      sha256 = sha256 ?? (declared.sha256.isEmpty ? nil : declared.sha256)
      job = job ?? (declared.job.isEmpty ? nil : declared.job)
    }
    // A range outside of the file is no chunk of it, whoever wrote it down.
    for (offset, length) in zip(step.offsets, step.lengths)
    where offset >= 0 && length > 0 && offset <= size && length <= size - offset { chunks[offset] = length }
    for block in step.blocks where block.index >= 0 && block.md5.count == 16 {
      blocks[Int(block.index)] = block.md5.withUnsafeBytes { Digest.hex($0.bindMemory(to: UInt8.self)) }
    }
    if let digest = step.digest, let checkpoint = DigestCheckpoint(position: digest.position, words: digest.words) {
      add(checkpoint)
    }
  }

  /// Everything in one record.
  func step(at now: Int64) -> InternalV1.UploadStep {
    var step = InternalV1.UploadStep(writtenAtMs: now, declaration: declaration)
    for range in sortedChunks {
      step.offsets.append(range.lowerBound)
      step.lengths.append(Int64(range.count))
    }
    step.blocks = blocks.sorted { $0.key < $1.key }.map { InternalV1.UploadBlock(index: $0.key, md5: $0.value) }
    step.digest = checkpoint.map { InternalV1.UploadDigest(position: $0.position, words: $0.words) }
    return step
  }

  private var declaration: InternalV1.UploadDeclaration {
    .init(size: size, md5: declaredMD5 ?? "", name: name ?? "", sha256: sha256 ?? "", job: job ?? Bytes())
  }
}

extension InternalV1.UploadBlock {
  init(index: Int, md5 hex: String) {
    let digits = hex.utf8.map { UInt8($0 > UInt8(ascii: "9") ? $0 - UInt8(ascii: "a") + 10 : $0 - UInt8(ascii: "0")) }
    let bytes = stride(from: 0, to: digits.count - 1, by: 2).map { digits[$0] << 4 | digits[$0 + 1] & 15 }
    self.init(index: Int32(clamping: index), md5: Bytes(bytes))
  }
}
