internal import Bytes
internal import Reactor
internal import Redis

/// Redis as this module uses it: pipelines of commands and scripts, and errors of this module.
struct Store {
  /// Requests that are under way at once at most: well within the client's own limit, so that a long list doesn't take
  /// the room of everybody else.
  static let pipelineLength = 1000

  enum Request {
    case command([RedisArgument])
    case script(RedisScript, keys: [RedisArgument], [RedisArgument])

    static func command(_ words: [String]) -> Request { .command(words.map { .string($0) }) }

    static func script(_ script: RedisScript, keys: [String], _ arguments: [String]) -> Request {
      .script(script, keys: keys.map { .string($0) }, arguments.map { .string($0) })
    }
  }

  let redis: RedisClient

  init(_ redis: RedisClient) { self.redis = redis }

  func one(_ request: Request) async throws(RoutingError) -> RedisValue {
    try await all([request])[0].get()
  }

  /// One answer each, in order.
  ///
  /// - Parameter atOnce: how many are under way at the same time. Redis does one after the other: what stands before a
  ///   command of somebody else is how long that one waits, so long scripts go in short pipelines.
  func all(_ requests: [Request], atOnce: Int = pipelineLength) async -> [Result<RedisValue, RoutingError>] {
    var answers: [Result<RedisValue, RoutingError>] = []
    answers.reserveCapacity(requests.count)
    var rest = requests[...]
    while !rest.isEmpty {
      answers += await begin(rest.prefix(atOnce)).all()
      rest = rest.dropFirst(atOnce)
    }
    return answers
  }

  /// Sends requests at once, `pipelineLength` at most; what goes to Redis later is answered later. So what is asked beside
  /// another call costs no round trip of its own.
  func begin(_ requests: some Collection<Request>) -> Answers {
    let answers = Answers(count: requests.count)
    for (index, request) in requests.enumerated() {
      send(request) { answers.set(index, $0.mapError(RoutingError.init)) }
    }
    return answers
  }

  /// Sends without waiting; `then` is called on the loop.
  func send(_ request: Request, then: @escaping (Result<RedisValue, RedisError>) -> Void) {
    switch request {
    case .command(let words): redis.send(words, then: then)
    case .script(let script, let keys, let arguments): redis.run(script, keys: keys, arguments: arguments, then: then)
    }
  }

  /// The answers of one pipeline, which may come out of order: a script that Redis didn't know is sent again.
  final class Answers {
    private var values: [Result<RedisValue, RoutingError>]
    private var missing: Int
    private var then: (([Result<RedisValue, RoutingError>]) -> Void)?

    fileprivate init(count: Int) {
      values = Array(repeating: .success(.null), count: count)
      missing = count
    }

    fileprivate func set(_ index: Int, _ value: Result<RedisValue, RoutingError>) {
      values[index] = value
      missing -= 1
      if missing == 0 { then?(values) }
    }

    /// Calls `then` on the loop with one answer each, in order; for one caller, as `all` is.
    func whenAll(_ then: @escaping ([Result<RedisValue, RoutingError>]) -> Void) {
      if missing == 0 { then(values) } else { self.then = then }
    }

    func all() async -> [Result<RedisValue, RoutingError>] {
      await withUnsafeContinuation { continuation in whenAll { continuation.resume(returning: $0) } }
    }
  }
}

extension RoutingError {
  init(_ error: RedisError) {
    self.init(error.code == .reply ? .corrupt : .unavailable, "Redis: \(error.message)")
  }
}

/// Answers of known shape: what has another one reads as empty, as a missing record does.
extension RedisValue {
  var number: Int64 { asInteger ?? 0 }
  var text: String { asString ?? "" }
  var elements: [RedisValue] { asArray ?? [] }

  /// The fields of a hash.
  var pairs: [(name: String, value: RedisValue)] {
    let all = elements
    return stride(from: 0, to: all.count - 1, by: 2).map { (all[$0].text, all[$0 + 1]) }
  }
}
