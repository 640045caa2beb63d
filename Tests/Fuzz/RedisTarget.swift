@testable import Redis

/// The first byte gives the length of the pieces, the rest is what a server says. The same replies come out whole and
/// in pieces, up to the same end.
func fuzzRedis(_ input: UnsafeRawBufferPointer) {
  guard let first = input.first else { return }
  let data = UnsafeRawBufferPointer(rebasing: input.dropFirst())
  let whole = replies(data, pieces: data.count)
  let cut = replies(data, pieces: Int(first) % 31 + 1)
  require(whole.values == cut.values, "the replies depend on the cuts: \(whole.values) and \(cut.values)")
  require(whole.isBroken == cut.isBroken, "the end depends on the cuts after \(whole.values)")
}

private func replies(_ data: UnsafeRawBufferPointer, pieces: Int) -> (values: [RedisValue], isBroken: Bool) {
  var values: [RedisValue] = []
  do throws(RedisError) {
    let reader = try RedisReplyReader()
    var rest = data[...]
    while !rest.isEmpty {
      try reader.feed(UnsafeRawBufferPointer(rebasing: rest.prefix(pieces)))
      rest = rest.dropFirst(pieces)
      while let value = try reader.next() { values.append(value) }
    }
  } catch { return (values, true) }
  return (values, false)
}
