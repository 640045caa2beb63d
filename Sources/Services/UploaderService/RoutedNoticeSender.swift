internal import Bytes
internal import Protobuf
public import Routing
internal import Schema
public import Telemetry

/// Sends notices the way all messages go: as a job to its targets, or without one to the channel `files`.
public final class RoutedNoticeSender: NoticeSender {
  /// Where notices go that no job asked for.
  public static let channel = "files"

  private let dispatch: JobDispatch
  private let publisher: Publisher
  private let log: Logger

  public init(dispatch: JobDispatch, publisher: Publisher, log: Logger) {
    self.dispatch = dispatch
    self.publisher = publisher
    self.log = log
  }

  public func send(_ notice: Notice) async throws -> String? {
    guard let announced = notice.file.notice else { return nil }
    guard var job = notice.file.job else {
      let message = PushV1.ServerMessage(payload: .fileNotice(announced), messageID: notice.messageID)
      try await publisher.broadcast(
        PushRecord(target: .channel(Self.channel), messageID: notice.messageID, message: message.serialized()))
      return nil
    }
    // Sent twice, it has to be the same job.
    if job.jobID.isEmpty { job.jobID = "file-\(notice.fileID)" }
    do throws(RoutingError) {
      return try await dispatch.submit(job, notice: announced).jobID
    } catch {
      guard error.code == .invalid || error.code == .conflict else { throw error }
      // It can't get better by being sent again; the file stands all the same.
      log.warning("the job of a file was refused", ["file": notice.fileID, "job": job.jobID, "error": error.message])
      return nil
    }
  }
}
