internal import FileStore
internal import GRPC
internal import Reactor
internal import Redis

/// What a node that wants to write a file is told.
enum UploadClaim {
  /// The file is finished.
  case done(UploadRecord)
  /// This node is its writer, and has it open.
  case here(UploadRecord)
  /// This node is its writer from now on, at a new fence; what earlier writers left has to be taken over.
  case taken(UploadRecord)
  /// Another node is its writer, until the lease ends (ms since the epoch).
  case elsewhere(HostPort?, leaseEnd: Int64)
}

/// What stands on the disk of an upload that Redis doesn't know, or whose writer is gone.
private struct Findings: Sendable {
  var highestFence: Int64 = 0
  var sidecar: Sidecar?
  var journal: JournalState?
}

extension UploadNode {
  private static let script = RedisScript(UploadScripts.claim)

  /// Asks to write a file: opens its record or adds to what is declared, takes the session's lock and the writer's lease.
  ///
  /// - Parameters:
  ///   - session: nil for a step that no client asked for: the lock isn't looked at.
  ///   - openFence: what this node has the file open at.
  /// - Throws: `Status` when the declaration contradicts what stands, another session holds the file, or there is no size.
  func claim(
    _ id: FileID, _ declaration: Declaration, _ session: SessionLock?, openFence: Int64? = nil
  ) async throws -> UploadClaim {
    var declaration = declaration
    var found: Findings?
    while true {
      let reply = try await records.call(
        Self.script, id, arguments(declaration, session, highestFence: found?.highestFence, openFence: openFence))
      switch reply.word {
      case "look":
        let isKnown = reply.number(1) == 1
        let findings = try await look(for: id, wholly: !isKnown)
        if let sidecar = findings.sidecar { return .done(try Self.finished(sidecar, declaration)) }
        if let journal = findings.journal { try declaration.continueFrom(journal) }
        found = findings
        // Also where the disk forgot it: a fence is never given twice to one life of a process.
        if let openFence { found?.highestFence = max(openFence, findings.highestFence) }
      case "absent": throw Status(.invalidArgument, "The first chunk of a file has to tell its total size.")
      case "size": throw Status.otherSize(reply.number(1))
      case "md5": throw Status.otherMD5(reply.text(1))
      case "locked": throw Status.locked(for: .milliseconds(max(0, reply.number(1) - clock())))
      case "elsewhere": return .elsewhere(HostPort(reply.text(1)), leaseEnd: reply.number(2))
      case "done": return .done(try UploadRecords.record(reply.dropFirst()))
      case "here": return .here(try UploadRecords.record(reply.dropFirst()))
      default: return .taken(try UploadRecords.record(reply.dropFirst()))
      }
    }
  }

  private func arguments(
    _ declaration: Declaration, _ session: SessionLock?, highestFence: Int64?, openFence: Int64?
  ) -> [RedisArgument] {
    [
      RedisArgument(declaration.size ?? -1), .string(declaration.md5 ?? ""), .string(declaration.name ?? ""),
      .string(declaration.sha256 ?? ""), declaration.job.map { .bytes($0) } ?? "", .string(session?.token ?? ""),
      RedisArgument(session?.lifetime.wholeMilliseconds ?? 1), .string(instance), .string(address.description),
      RedisArgument(limits.writerLease.wholeMilliseconds), RedisArgument(highestFence ?? -1),
      RedisArgument(openFence ?? -1),
    ]
  }

  /// - Parameter wholly: Redis knows nothing: also whether the file is finished, and what its journal says.
  private func look(for id: FileID, wholly: Bool) async throws -> Findings {
    let oldest = clock() - limits.recordLifetime.wholeMilliseconds
    return try await pool.run { [store] in
      var findings = Findings()
      findings.highestFence = try store.incoming(of: id).map(\.fence).max() ?? 0
      guard wholly else { return findings }
      findings.sidecar = try store.sidecarIfFinished(id)
      if findings.highestFence > 0, let journal = try store.journalState(of: id), journal.writtenAt > oldest {
        findings.journal = journal
      }
      return findings
    }
  }

  /// A file that was finished before the record of its upload expired is complete, and stays as it is.
  private static func finished(_ sidecar: Sidecar, _ declaration: Declaration) throws(Status) -> UploadRecord {
    if let size = declaration.size, size != sidecar.size {
      throw Status(.failedPrecondition, "The file id belongs to a finished file of \(sidecar.size) bytes.")
    }
    if let md5 = declaration.md5, md5 != sidecar.md5 {
      throw Status(.failedPrecondition, "The file id belongs to a finished file with MD5 \(sidecar.md5).")
    }
    return UploadRecord(finished: sidecar)
  }
}

extension StoreDirectory {
  func sidecarIfFinished(_ id: FileID) throws -> Sidecar? {
    do throws(FileStoreError) {
      return try sidecar(of: id)
    } catch {
      guard error.code == .notFound else { throw error }
      return nil
    }
  }
}

extension Status {
  static func otherSize(_ size: Int64) -> Status {
    Status(.failedPrecondition, "The file was begun with \(size) bytes, and is declared with another size now.")
  }

  static func otherMD5(_ md5: String) -> Status {
    Status(.failedPrecondition, "The file was declared with MD5 \(md5), and is declared with another one now.")
  }

  static func locked(for rest: Duration) -> Status {
    Status(
      .aborted,
      "Another session uploads this file, and holds it for \(rest.wholeMilliseconds) ms more unless it goes on.",
      retryAfter: rest)
  }
}
