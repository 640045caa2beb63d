internal import Bytes
internal import COpenSSL

/// A Lua script, known to Redis by the SHA-1 of its text.
public struct RedisScript: Sendable {
  public let source: String
  /// 40 hexadecimal digits, as EVALSHA takes them.
  public let sha1: String

  public init(_ source: String) {
    self.source = source
    sha1 = RedisScript.sha1(of: source)
  }

  private static func sha1(of text: String) -> String {
    var text = text
    var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
    var length: UInt32 = 0
    // Returns 0 only where SHA-1 is switched off (FIPS): the digest is empty then, and each run goes through EVAL.
    _ = text.withUTF8 { EVP_Digest($0.baseAddress, $0.count, &digest, &length, EVP_sha1(), nil) }
    let digits = Array("0123456789abcdef".utf8)
    return String(
      decoding: digest.prefix(Int(length)).flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
  }
}

extension RedisClient {
  /// Runs a script by its digest, and with its text when Redis doesn't know it (NOSCRIPT: then nothing was executed).
  ///
  /// A script that is sent with its text comes after what was sent meanwhile.
  public func run(
    _ script: RedisScript, keys: [RedisArgument], arguments: [RedisArgument] = [], then: @escaping Completion
  ) {
    let rest = [RedisArgument(keys.count)] + keys + arguments
    send(["EVALSHA", .string(script.sha1)] + rest) { [weak self] result in
      guard case .failure(let error) = result, error.replyKind == "NOSCRIPT", let self else {
        return then(RedisClient.scriptResult(result))
      }
      send(["EVAL", .string(script.source)] + rest) { then(RedisClient.scriptResult($0)) }
    }
  }

  /// Runs a script and returns its answer. - Throws: `RedisError`; what the script returns with `redis.error_reply` is
  /// `.reply`.
  public func run(
    _ script: RedisScript, keys: [RedisArgument], arguments: [RedisArgument] = []
  ) async throws(RedisError) -> RedisValue {
    let result: Result<RedisValue, RedisError> = await withUnsafeContinuation { continuation in
      run(script, keys: keys, arguments: arguments) { continuation.resume(returning: $0) }
    }
    return try result.get()
  }

  /// A script that ends with an error keeps what it wrote before.
  private static func scriptResult(_ result: Result<RedisValue, RedisError>) -> Result<RedisValue, RedisError> {
    result.mapError { error in
      guard error.code == .reply, error.replyKind != "NOSCRIPT" else { return error }
      return RedisError(code: .reply, message: error.message, mayHaveExecuted: true)
    }
  }
}
