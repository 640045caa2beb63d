internal import FileStore
internal import GRPC
internal import Redis

extension Status {
  init(_ refusal: Upload.Refusal) {
    let code: StatusCode =
      switch refusal.code {
      case .invalidArgument: .invalidArgument
      case .failedPrecondition: .failedPrecondition
      case .dataLoss: .dataLoss
      case .resourceExhausted: .resourceExhausted
      }
    self.init(code, refusal.message)
  }

  /// The status of whatever went wrong while a file was stored or read.
  init(storing error: any Error) {
    switch error {
    case let status as Status: self = status
    case let refusal as Upload.Refusal: self.init(refusal)
    case let error as FileStoreError:
      let code: StatusCode =
        switch error.code {
        case .invalid: .invalidArgument
        case .notFound: .notFound
        case .exists: .failedPrecondition
        case .full: .resourceExhausted
        case .corrupt: .dataLoss
        case .io: .unavailable
        }
      self.init(code, error.message, retryAfter: error.code == .io ? .milliseconds(200) : nil)
    case is RedisError:
      self.init(
        .unavailable, "The store of upload records doesn't answer; try again.", retryAfter: .milliseconds(500))
    case is CancellationError: self.init(.cancelled, "The call was cancelled.")
    default: self.init(.internal, "Something went wrong here: \(error).")
    }
  }
}
