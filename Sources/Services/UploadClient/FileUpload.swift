internal import Bytes
internal import FileStore
internal import GRPC
internal import Reactor
internal import Schema

/// The upload of one file. Belongs to its loop.
///
/// A round sends what is missing over several streams, all but the last chunk; when their answers are in, that chunk goes
/// with the file's MD5. The server's answer to it is the result, or names what is missing still (what a dead uploader took
/// with it): that is the next round. A stream that breaks is opened again, at the next uploader when this one has gone.
final class FileUpload {
  let loop: EventLoop
  let options: UploadOptions
  let source: SourceFile
  let id: FileID
  let session: String
  private(set) var choice: UploaderChoice
  private var schedule: RetrySchedule
  private var failure: UploadError?
  private let changes = Changes()
  private var streams: [ObjectIdentifier: UploadStream] = [:]
  private var supply: ChunkSupply?
  let telling: ProgressTelling
  /// Bytes of chunks that were handed to the network, repeats too.
  private(set) var bytesSent: Int64 = 0
  private var bytesKnown: Int64 = 0
  /// Whether the server says that the whole file is there under an id that only an unchanged file gets.
  private let trustsID: Bool

  /// - Parameters:
  ///   - id: nil for the one that follows from the file.
  ///   - progress: called on the loop.
  init(
    _ source: SourceFile, id: FileID?, addresses: [HostPort], options: UploadOptions, loop: EventLoop,
    progress: @escaping (UploadProgress) -> Void
  ) throws(UploadError) {
    self.loop = loop
    self.options = options
    self.source = source
    trustsID = id == nil
    do throws(FileStoreError) {
      if let id { self.id = id } else { self.id = try FileID(source.derivedID) }
    } catch {
      throw UploadError(.refused, error.message)
    }
    session = source.derivedSession
    choice = UploaderChoice(addresses, for: self.id.text)
    schedule = RetrySchedule(options)
    telling = ProgressTelling(total: source.size, interval: options.progressInterval, loop: loop, tell: progress)
  }

  /// Ends the upload as soon as possible; `run` throws `.stopped`. What is durable stays.
  func stop() { fail(.stopped) }

  func run() async throws -> UploadResult {
    let began = loop.now
    telling.start { [unowned self] in checkStalls() }
    defer {
      telling.stop()
      for stream in streams.values { stream.close() }
    }
    let answer = try await rounds()
    telling.ended()
    return UploadResult(
      fileID: id.text, name: source.name, size: source.size, md5: answer.md5.isEmpty ? answer.message : answer.md5,
      bytesSent: bytesSent, bytesKnown: bytesKnown, duration: .nanoseconds(loop.now - began))
  }

  // MARK: Rounds

  private func rounds() async throws -> FileTransferV1.UploadStatus {
    let known = try await known()
    bytesKnown = known.there.total
    let isThere = trustsID && known.isWhole
    var missing = isThere ? ByteRanges() : ByteRanges(known.there.gaps(upTo: source.size))
    telling.began(there: source.size - missing.total)
    var md5: String?
    var round = 1
    var hasStartedAgain = false
    while true {
      let supply = ChunkSupply(source, wanted: missing, isDigesting: round == 1 && !isThere, loop: loop)
      self.supply = supply
      defer { supply.stop(.stopped) }
      supply.start()
      let leader = try await send(supply, bytes: missing.total)
      md5 = try await supply.wholeMD5() ?? md5
      do throws(UploadError) {
        let answer = try await conclude(leader, supply.last, md5)
        if answer.success {
          if let md5, !answer.md5.isEmpty, answer.md5 != md5 { throw mismatch(answer.md5, md5) }
          return answer
        }
        guard !answer.missing.isEmpty else { throw UploadError(.refused, answer.message) }
        missing = ByteRanges(answer.missing.map { $0.offset..<($0.offset + max(0, $0.length)) })
      } catch {
        // What was there under this id from before isn't this file: the server has dropped it, and takes it anew.
        guard error.code == .mismatch, bytesKnown > 0, !hasStartedAgain else { throw error }
        hasStartedAgain = true
        missing = ByteRanges([0..<source.size])
      }
      telling.began(there: source.size - missing.total)
      round += 1
    }
  }

  private func mismatch(_ theirs: String, _ ours: String) -> UploadError {
    UploadError(.mismatch, "the server's file has MD5 \(theirs), and \(source.path) has \(ours)")
  }

  /// What is durable at the server.
  private func known() async throws -> (there: ByteRanges, isWhole: Bool) {
    let answer = try await repeating { [id, loop] address in
      let channel = Channel(loop: loop, target: address, options: .uploads)
      defer { channel.close() }
      return try await FileTransferV1.FileTransferServiceClient(channel).queryUploadedChunks(
        .init(fileID: id.text), options: .routed(by: id.text, timeout: UploadOptions.answerLimit))
    }
    let isWhole = answer.state == .verified || answer.state == .published
    let there = ByteRanges(zip(answer.offsets, answer.lengths).map { $0..<($0 + max(0, $1)) })
    // Of another size: the declaration will be refused with the server's words.
    return answer.totalSize == source.size || answer.totalSize == 0 ? (there, isWhole) : (ByteRanges(), false)
  }

  // MARK: Streams

  /// Sends everything but the last chunk.
  ///
  /// - Returns: the leader, when its stream stands.
  private func send(_ supply: ChunkSupply, bytes: Int64) async throws -> UploadStream? {
    let count = max(1, min(Int64(options.streams), bytes / UploadOptions.bytesPerStream))
    var running = Int(count)
    var leader: UploadStream?
    for index in 0..<running {
      loop.spawn {
        let stream = await self.runStream(supply, isLeader: index == 0)
        if index == 0 { leader = stream }
        running -= 1
        self.changes.signal()
      }
    }
    while running > 0 { await changes.next() }
    if let failure { throw failure }
    return leader
  }

  /// Takes chunks as long as there are any, over one stream after the other. A follower ends with the server's answer: then
  /// what it carried has arrived.
  private func runStream(_ supply: ChunkSupply, isLeader: Bool) async -> UploadStream? {
    var stream: UploadStream?
    var inHand: Chunk?
    while failure == nil {
      do {
        inHand = try await supply.next()
        guard let chunk = inHand else { break }
        let open: UploadStream
        if let stream { open = stream } else { open = try await self.open(isLeader: isLeader) }
        stream = open
        try await open.send(message(chunk))
        inHand = nil
        supply.sent(chunk)
        count(chunk)
      } catch {
        // Others may take it while this one waits.
        if let chunk = inHand { supply.giveBack(chunk) }
        inHand = nil
        let address = stream?.address ?? choice.current
        if let stream { close(stream) }
        stream = nil
        guard await mayTryAgain(error, address, canLeave: !isLeader && streams.count > 0) else { return nil }
      }
    }
    guard !isLeader, let last = stream else { return stream }
    // When it breaks now, the final answer tells what didn't arrive.
    do { _ = try await last.finish() } catch {
      if case .final(let error) = Setback(error, now: EventLoop.wallClockMilliseconds()) { fail(error) }
    }
    close(last)
    return nil
  }

  private func open(isLeader: Bool) async throws -> UploadStream {
    let address = choice.current
    let first = FileTransferV1.FileChunk(
      fileID: id.text, totalSize: source.size, isLast: source.size == 0, meta: meta(md5: nil))
    do {
      let stream = try await UploadStream.open(
        to: address, loop: loop, first: first, told: isLeader ? { [weak self] in self?.take($0) } : nil)
      if let failure {
        stream.close()
        throw failure
      }
      streams[ObjectIdentifier(stream)] = stream
      return stream
    } catch {
      choice.leave(address)
      throw error
    }
  }

  private func close(_ stream: UploadStream) {
    streams[ObjectIdentifier(stream)] = nil
    stream.close()
  }

  /// Sends the last chunk with the digest and gives the server's word on the whole file.
  private func conclude(
    _ leader: UploadStream?, _ last: Chunk?, _ md5: String?
  ) async throws(UploadError) -> FileTransferV1.UploadStatus {
    var standing = leader
    while true {
      if let failure { throw failure }
      do {
        let stream: UploadStream
        if let leader = standing { stream = leader } else { stream = try await open(isLeader: true) }
        standing = stream
        var message =
          last.map { self.message($0) } ?? .init(fileID: id.text, offset: source.size, totalSize: source.size)
        message.isLast = true
        message.meta = meta(md5: md5)
        try await stream.send(message)
        let answer = try await stream.finish()
        if let last { count(last) }
        close(stream)
        return answer
      } catch {
        let address = standing?.address ?? choice.current
        if let standing { close(standing) }
        standing = nil
        if let error = UploadError(mismatch: error) { throw error }
        guard await mayTryAgain(error, address, canLeave: false) else { throw failure ?? .stopped }
      }
    }
  }

  private func meta(md5: String?) -> FileTransferV1.FileMeta {
    .init(fileName: source.name, totalSize: source.size, fileMD5: md5 ?? "", sessionID: session)
  }

  private func message(_ chunk: Chunk) -> FileTransferV1.FileChunk {
    .init(
      fileID: id.text, offset: chunk.offset, totalSize: source.size, data: chunk.data, chunkMD5: chunk.md5,
      isLast: chunk.range.upperBound == source.size)
  }

  // MARK: Progress and setbacks

  private func count(_ chunk: Chunk) {
    bytesSent += Int64(chunk.data.count)
    telling.progress.sent += Int64(chunk.data.count)
  }

  private func take(_ event: FileTransferV1.UploadEvent.Event) {
    let before = telling.progress
    switch event {
    case .received(let received): telling.progress.received = received.bytes
    case .durable(let durable): telling.progress.durable = durable.bytes
    case .verifying(let verifying):
      telling.progress.phase = .verifying
      telling.progress.verified = verifying.bytes
    case .done: break
    }
    if telling.progress != before { schedule.progressed() }
  }

  private func fail(_ error: UploadError) {
    guard failure == nil else { return }
    failure = error
    supply?.stop(error)
    for stream in streams.values { stream.close() }
    changes.signal()
  }

  /// Waits until it is time to try again.
  ///
  /// - Returns: false when the upload has failed, or when there is no room for this stream beside the others.
  private func mayTryAgain(_ error: any Error, _ address: HostPort, canLeave: Bool) async -> Bool {
    if failure != nil { return false }
    let pause: Duration?
    switch Setback(error, now: EventLoop.wallClockMilliseconds()) {
    case .final(let error):
      fail(error)
      return false
    case .crowded(let error):
      if !canLeave { fail(error) }
      return false
    case .passing(let after): pause = after
    }
    choice.leave(address)
    switch schedule.failed(now: EventLoop.monotonicNanoseconds(), askedFor: pause) {
    case .giveUp:
      fail(UploadError(.unreachable, "no uploader takes the file: \(Status(error).message)"))
      return false
    case .wait(let nanoseconds): await self.pause(nanoseconds)
    }
    return failure == nil
  }

  /// Ends early when the upload fails.
  private func pause(_ nanoseconds: Int64) async {
    var isOver = false
    let timer = loop.schedule(after: .nanoseconds(nanoseconds)) { [changes] in
      isOver = true
      changes.signal()
    }
    defer { timer.cancel() }
    while !isOver, failure == nil { await changes.next() }
  }

  /// Makes a call that may be repeated, at the next uploader when one breaks.
  private func repeating<T>(_ body: (HostPort) async throws -> T) async throws -> T {
    while true {
      if let failure { throw failure }
      let address = choice.current
      do { return try await body(address) } catch {
        guard await mayTryAgain(error, address, canLeave: false) else { throw failure ?? .stopped }
      }
    }
  }

  /// A server that takes nothing and says nothing is left.
  private func checkStalls() {
    let limit = loop.now - options.stallLimit.nanoseconds
    for stream in streams.values where (stream.waitingSince ?? .max) < limit {
      choice.leave(stream.address)
      stream.close()
    }
  }
}
