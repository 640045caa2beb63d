#if DEBUG
  internal import Glibc
  internal import Synchronization
#endif

/// A place in the life of an upload where a test lets the process die, in a debug build: `kill -9` by its own hand, when
/// `FLEETPUSH_FAIL_AT` names the place, as `name` for the first time that it is reached or `name:3` for the third.
///
/// They stand at every arrow between two things that a crash may separate. A release build has none of them.
public enum FailPoint: String, CaseIterable, Sendable {
  // A node becomes the writer.
  case claimed, partRenamed, journalRenamed, partCreated, journalCreated, stateMerged
  // Chunks become durable.
  case chunkChecked, chunkWritten, dataSynced, journalWritten, journalSynced, chunksRecorded
  // Their digests.
  case blocksDigested, prefixDigested, journalRewritten
  // Finalising.
  case noticeIndexed, finalisingBegun, wholeDigested, fileSynced, fileNamed, directoriesSynced, sidecarWritten
  case sidecarNamed, verified, noticeSent, published, journalRemoved

  #if DEBUG
    private static let target: (name: String, turn: Int)? = {
      guard let text = getenv("FLEETPUSH_FAIL_AT").map({ String(cString: $0) }), !text.isEmpty else { return nil }
      let parts = text.split(separator: ":")
      let name = String(parts[0])
      precondition(FailPoint(rawValue: name) != nil, "FLEETPUSH_FAIL_AT names no fail point: \(text)")
      return (name, parts.count > 1 ? Int(parts[1]) ?? 1 : 1)
    }()
    private static let turns = Atomic<Int>(0)
  #endif

  /// The place is reached. Any thread.
  @inlinable
  public static func reached(_ point: FailPoint) {
    #if DEBUG
      point.dieIfChosen()
    #endif
  }

  #if DEBUG
    @usableFromInline
    func dieIfChosen() {
      guard let target = FailPoint.target, target.name == rawValue else { return }
      guard FailPoint.turns.add(1, ordering: .relaxed).newValue == target.turn else { return }
      _ = kill(getpid(), SIGKILL)
      // The signal may come a moment later; nothing of this thread goes on.
      while true { _ = pause() }
    }
  #endif
}
