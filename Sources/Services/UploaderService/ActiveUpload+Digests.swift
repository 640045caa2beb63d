internal import FileStore
internal import GRPC
internal import Reactor
internal import Safeguards
internal import Telemetry

/// Blocks of 20 MiB are digested when all of their bytes are durable, several at once where several are due; the whole-file
/// MD5 follows the blocks from the start of the file that have been. Both read what is in the page cache; nothing is held in
/// memory for them.
///
/// The order matters: a byte that goes bad before both readings, or between them, makes the whole-file MD5 differ from the
/// declared one. Read the other way round, the block's MD5 would be that of the bad byte, and the file pass for good.
extension ActiveUpload {
  /// Bytes that the whole-file MD5 has behind it.
  var digested: Int64 { digest.position }

  /// Lets the whole-file MD5 follow, a block at a time.
  func advanceDigest() {
    let index = Int(digested / Sidecar.blockSize)
    guard let file, ended == nil, !isDigesting, digested < state.size, blockMD5s[index] != nil else { return }
    isDigesting = true
    let end = BlockDigests.range(index, ofSize: state.size).upperBound
    let digest = self.digest
    node.loop.spawn {
      do {
        let checkpoints = try await self.using(self.node.digestPool) { try digest.advance(in: file, to: end) }
        FailPoint.reached(.prefixDigested)
        self.isDigesting = false
        // Unless a block below it was found damaged meanwhile.
        if digest === self.digest, let checkpoint = checkpoints.last {
          self.unwritten.checkpoint = checkpoint
          self.commit(after: self.node.limits.pauseBeforeJournal)
        }
        self.advanceDigest()
      } catch {
        self.isDigesting = false
        self.end(Status(storing: error))
      }
      self.changes.signal()
    }
  }

  /// Notes the blocks that have become whole.
  func noteCompleteBlocks(touching ranges: [Range<Int64>]) {
    for range in ranges {
      for index in BlockDigests.indices(touching: range)
      where blockMD5s[index] == nil && !blocksDue.contains(index)
        && state.durable.contains(BlockDigests.range(index, ofSize: state.size))
      {
        blocksToDigest.append(index)
        blocksDue.insert(index)
      }
    }
    if !blocksToDigest.isEmpty { commit(after: node.limits.pauseBeforeJournal) }
  }

  /// - Parameter all: also when there are fewer blocks than lanes.
  func digestBlocks(all: Bool) {
    guard let file, ended == nil, !isDigestingBlocks, !blocksToDigest.isEmpty else { return }
    guard all || blocksToDigest.count >= DigestLanes.width else { return }
    isDigestingBlocks = true
    let indices = Array(blocksToDigest.prefix(DigestLanes.width))
    blocksToDigest.removeFirst(indices.count)
    let ranges = indices.map { BlockDigests.range($0, ofSize: state.size) }
    node.loop.spawn {
      do {
        let digests = try await self.using(self.node.slowPool) { try BlockDigests.read(ranges, of: file) }
        FailPoint.reached(.blocksDigested)
        for (index, md5) in zip(indices, digests) {
          self.blocksDue.remove(index)
          self.blockMD5s[index] = md5
          self.unwritten.blocks[index] = md5
        }
        self.commit(after: self.node.limits.pauseBeforeJournal)
        self.advanceDigest()
      } catch {
        self.end(Status(storing: error))
      }
      self.isDigestingBlocks = false
      self.digestBlocks(all: all)
      self.changes.signal()
    }
  }

  /// Waits until the whole file and all of its blocks are digested.
  func digestToTheEnd() async throws -> FileDigests {
    while true {
      if let ended { throw ended }
      advanceDigest()
      digestBlocks(all: true)
      let count = BlockDigests.count(ofSize: state.size)
      if digested == state.size, !isDigesting, blockMD5s.count == count {
        return FileDigests(md5: digest.hex(), blockMD5s: (0..<count).map { blockMD5s[$0] ?? "" })
      }
      await changes.next()
    }
  }

  // MARK: Damage

  /// Compares blocks on the disk with their MD5s. Those that differ are dropped and will be asked for again.
  ///
  /// - Returns: the blocks that were damaged.
  func dropDamagedBlocks() async throws -> [Int] {
    guard let file, let journal else { return [] }
    let known = blockMD5s
    let size = state.size
    let damaged = try await using(node.slowPool) { try known.damaged(in: file, ofSize: size) }
    guard !damaged.isEmpty else { return [] }
    while isCommitting, ended == nil { await changes.next() }
    if let ended { throw ended }
    isCommitting = true
    defer { isCommitting = false }
    var step = UploadJournal.Step()
    step.damagedBlocks = damaged
    let now = node.clock()
    try await using(node.slowPool) { [step] in try journal.append(step, now: now) }
    let left = journal.state
    let written = try await node.records.record(
      id, pen, session: session, lease: node.limits.writerLease, chunks: left.sortedChunks, blocks: left.blocks,
      durable: left.durable.total, forgettingOthers: true)
    guard written == .ok else { throw Self.moved }
    forget(damaged)
    return damaged
  }

  private func forget(_ damaged: [Int]) {
    for index in damaged {
      state.damaged(BlockDigests.range(index, ofSize: state.size))
      blockMD5s[index] = nil
      unwritten.blocks[index] = nil
    }
    unwritten.checkpoint = nil
    // What was digested before the first of them can't be had back but from a checkpoint.
    digest = PrefixDigest(from: journal?.state.checkpoint)
    node.metrics.damagedBlocks.increment(by: damaged.count)
  }
}

extension [Int: String] {
  /// The blocks of a file whose bytes aren't those of the MD5s. Blocks.
  func damaged(in file: StoreFile, ofSize size: Int64) throws(FileStoreError) -> [Int] {
    let indices = keys.sorted()
    let digests = try BlockDigests.read(indices.map { BlockDigests.range($0, ofSize: size) }, of: file)
    return zip(indices, digests).filter { self[$0] != $1 }.map(\.0)
  }
}
