internal import GRPC
internal import Reactor

/// Why a file was not uploaded; the message is a sentence for people.
public struct UploadError: Error, Sendable, Hashable, CustomStringConvertible {
  public enum Code: Sendable, Hashable {
    /// The file of this machine can't be read.
    case file
    /// The file was changed while it was read: what was sent is of no use, and nothing was published.
    case changed
    /// No uploader answered, or none got anything done, for as long as the options allow.
    case unreachable
    /// Another session is uploading the file; `heldUntil` says for how long it has it.
    case heldByOther
    /// An uploader says no, and would say so again.
    case refused
    /// The server's MD5 isn't the file's.
    case mismatch
    /// The caller ended it; what is durable stays, and the same call goes on there.
    case stopped
  }

  public let code: Code
  public let message: String
  /// When the other session's hold ends unless it makes progress, in ms since the Unix epoch; nil where nobody has told.
  public let heldUntil: Int64?

  init(_ code: Code, _ message: String, heldUntil: Int64? = nil) {
    self.code = code
    self.message = message
    self.heldUntil = heldUntil
  }

  /// The server's word that the whole isn't what was declared; nil for everything else, also for what was damaged there and
  /// can be sent again, which the server asks for by saying when.
  init?(mismatch error: any Error) {
    guard let status = error as? Status, status.code == .dataLoss, status.retryAfter == nil else { return nil }
    self.init(.mismatch, status.message)
  }

  public var description: String { message }

  static let stopped = UploadError(.stopped, "The upload was stopped; the same command goes on where it is.")
}

/// What a broken call means for the upload.
enum Setback: Hashable {
  /// The same or another uploader may take it: try again, no sooner than `after`.
  case passing(after: Duration?)
  /// There is room for fewer streams than this.
  case crowded(UploadError)
  case final(UploadError)

  /// - Parameter now: ms since the epoch, for what a status tells as a time from now on.
  init(_ error: any Error, now: Int64) {
    if let error = error as? UploadError {
      self = .final(error)
      return
    }
    let status = Status(error)
    switch status.code {
    case .aborted where status.retryAfter != nil:
      let left = status.retryAfter ?? .zero
      self = .final(UploadError(.heldByOther, status.message, heldUntil: now + left.wholeMilliseconds))
    case .ok, .aborted, .unavailable, .cancelled, .deadlineExceeded, .internal, .dataLoss:
      self = .passing(after: status.retryAfter)
    case .resourceExhausted:
      self = status.retryAfter.map { .passing(after: $0) } ?? .crowded(UploadError(.refused, status.message))
    default:
      self = .final(UploadError(.refused, status.message.isEmpty ? status.description : status.message))
    }
  }
}
