internal import Reactor

/// Someone who waits for a connection.
final class ConnectWaiter {
  var continuation: UnsafeContinuation<Result<Void, RedisError>, Never>?
  var timer: LoopTimer?

  func end(_ result: Result<Void, RedisError>) {
    timer?.cancel()
    continuation?.resume(returning: result)
    continuation = nil
  }
}

/// The answers of one pipeline.
final class PipelineAnswers {
  private var values: [RedisValue] = []
  private var failure: RedisError?
  private var missing: Int
  var continuation: UnsafeContinuation<Result<[RedisValue], RedisError>, Never>?

  init(missing: Int) { self.missing = missing }

  func add(_ answer: Result<RedisValue, RedisError>) {
    switch answer {
    case .success(let value): values.append(value)
    case .failure(let error) where error.code == .reply: values.append(.error(error.message))
    case .failure(let error): failure = failure ?? error
    }
    missing -= 1
    guard missing == 0 else { return }
    continuation?.resume(returning: failure.map { .failure($0) } ?? .success(values))
    continuation = nil
  }
}
