internal import FileStore
internal import GRPC
internal import Reactor

extension ActiveUpload {
  func resetDigest() {
    digest = PrefixDigest()
    wholeDigests = nil
    digested = 0
    isDigesting = false
    hasForeignBytes = false
  }

  /// Lets the digest follow the durable prefix, a block at a time.
  func advanceDigest() {
    let prefix = state.durable.contiguousPrefix
    guard let file, !isDigesting, !hasForeignBytes, prefix > digested else { return }
    isDigesting = true
    let end = min(prefix, digested + Sidecar.blockSize)
    let digest = self.digest
    node.loop.spawn {
      do {
        try await self.node.slowPool.run { try digest.advance(in: file, to: end) }
        guard digest === self.digest else { return }
        self.digested = end
        self.isDigesting = false
        self.advanceDigest()
      } catch {
        guard digest === self.digest else { return }
        self.fail(Status(storing: error))
        // From the start, when the next reason comes.
        self.resetDigest()
      }
      self.changes.signal()
    }
  }
}
