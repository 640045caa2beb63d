internal import Bytes
internal import CHiredis

/// hiredis's reader, which makes `RedisValue`s without replies of its own in between. The only owner of the
/// `redisReader`.
///
/// The reader goes through a reply depth first and calls one of four functions for each value; it keeps what they return
/// only to hand it back, so they return a token, and `ReplyBuilder` keeps the tree.
final class RedisReplyReader {
  private let reader: UnsafeMutablePointer<redisReader>
  private let builder = ReplyBuilder()

  init() throws(RedisError) {
    guard let reader = redisReaderCreateWithFunctions(&builder.functions.pointee) else {
      throw RedisError(code: .protocolViolation, message: "no memory for a Redis reader")
    }
    reader.pointee.privdata = Unmanaged.passUnretained(builder).toOpaque()
    self.reader = reader
  }

  deinit { redisReaderFree(reader) }

  /// Takes what has arrived; it is copied.
  func feed(_ bytes: UnsafeRawBufferPointer) throws(RedisError) {
    guard redisReaderFeed(reader, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count) == REDIS_OK
    else {
      throw failure
    }
  }

  /// The next whole reply, nil when more bytes are needed.
  func next() throws(RedisError) -> RedisValue? {
    // "REDIS_OK with a NULL reply: the reply is not complete." After an error the reader is of no use any more.
    var token: UnsafeMutableRawPointer?
    guard redisReaderGetReply(reader, &token) == REDIS_OK else { throw failure }
    return token == nil ? nil : builder.take()
  }

  private var failure: RedisError {
    let text = withUnsafeBytes(of: reader.pointee.errstr) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    return RedisError(code: .protocolViolation, message: "not a reply of Redis: \(text)")
  }
}

/// Puts the values of one reply together: a stack of the arrays that are not full yet.
private final class ReplyBuilder {
  private struct Level {
    var missing: Int
    var elements: [RedisValue]
  }

  /// The reader keeps the address.
  let functions = UnsafeMutablePointer<redisReplyObjectFunctions>.allocate(capacity: 1)
  private var levels: [Level] = []
  private var root: RedisValue?

  init() {
    functions.initialize(
      to: redisReplyObjectFunctions(
        createString: createString, createArray: createArray, createInteger: createInteger, createNil: createNil,
        freeObject: freeObject))
  }

  deinit { functions.deallocate() }

  func add(_ value: RedisValue) {
    var value = value
    while let top = levels.indices.last {
      levels[top].elements.append(value)
      levels[top].missing -= 1
      guard levels[top].missing == 0 else { return }
      value = .array(levels.removeLast().elements)
    }
    root = value
  }

  func open(_ count: Int) {
    guard count > 0 else { return add(.array([])) }
    var elements: [RedisValue] = []
    // The count is the peer's word: memory is reserved for what is likely, not for what it says.
    elements.reserveCapacity(min(count, 1024))
    levels.append(Level(missing: count, elements: elements))
  }

  func take() -> RedisValue? {
    defer { root = nil }
    return root
  }

  static func of(_ task: UnsafePointer<redisReadTask>?) -> ReplyBuilder? {
    task?.pointee.privdata.map { Unmanaged<ReplyBuilder>.fromOpaque($0).takeUnretainedValue() }
  }
}

/// What the reader gets for a value: anything but NULL, which it takes for "no memory".
private var token: UnsafeMutableRawPointer? { UnsafeMutableRawPointer(bitPattern: 1) }

private func createString(
  _ task: UnsafePointer<redisReadTask>?, _ text: UnsafeMutablePointer<CChar>?, _ length: Int
) -> UnsafeMutableRawPointer? {
  let bytes = UnsafeRawBufferPointer(start: text, count: length)
  let value: RedisValue =
    switch task?.pointee.type {
    case REDIS_REPLY_STATUS: .simple(String(decoding: bytes, as: UTF8.self))
    case REDIS_REPLY_ERROR: .error(String(decoding: bytes, as: UTF8.self))
    default: .bulk(Bytes(copying: bytes))
    }
  ReplyBuilder.of(task)?.add(value)
  return token
}

private func createArray(_ task: UnsafePointer<redisReadTask>?, _ count: Int32) -> UnsafeMutableRawPointer? {
  ReplyBuilder.of(task)?.open(Int(count))
  return token
}

private func createInteger(_ task: UnsafePointer<redisReadTask>?, _ number: Int64) -> UnsafeMutableRawPointer? {
  ReplyBuilder.of(task)?.add(.integer(number))
  return token
}

private func createNil(_ task: UnsafePointer<redisReadTask>?) -> UnsafeMutableRawPointer? {
  ReplyBuilder.of(task)?.add(.null)
  return token
}

private func freeObject(_ object: UnsafeMutableRawPointer?) {}
