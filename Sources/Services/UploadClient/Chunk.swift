internal import Bytes

/// A piece of the file that is ready to be sent.
struct Chunk: Sendable {
  let offset: Int64
  let data: Bytes
  let md5: String

  var range: Range<Int64> { offset..<(offset + Int64(data.count)) }
}
