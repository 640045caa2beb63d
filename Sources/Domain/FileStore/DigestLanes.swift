public import Bytes
internal import CMD5

/// MD5s of inputs that don't depend on each other, several at once in the lanes of a vector: the time of one for eight.
///
/// One input alone goes through OpenSSL, which is faster then.
public enum DigestLanes {
  /// How many inputs take about the time of one.
  public static var width: Int { Int(md5_lanes()) }

  /// The hex digest of each input, in their order. Lengths may differ; like ones fill the lanes best.
  public static func hex(of inputs: [Bytes]) -> [String] {
    if inputs.count == 1 { return [Digest.hex(of: inputs[0], .md5)] }
    // The longest first: those that still have blocks stand together.
    let order = inputs.indices.sorted { inputs[$0].count > inputs[$1].count }
    let pointers = order.map { inputs[$0].unsafeMemory.baseAddress?.assumingMemoryBound(to: UInt8.self) }
    var lanes = Lanes(count: inputs.count)
    var (done, live) = (0, order.count)
    while live > 0 {
      let blocks = inputs[order[live - 1]].count / Lanes.blockBytes
      if blocks > done {
        let data = pointers[..<live].map { $0.map { $0 + done * Lanes.blockBytes } }
        lanes.advance(data, blocks: blocks - done)
        done = blocks
      }
      live -= 1
    }
    var digests = [String](repeating: "", count: inputs.count)
    for (lane, index) in order.enumerated() {
      digests[index] = inputs[index].withUnsafeBytes { lanes.finish(lane, with: $0) }
    }
    return digests
  }
}

/// The states of several MD5s.
struct Lanes {
  /// What MD5 works in.
  static let blockBytes = 64

  private var states: [md5_state]

  init(count: Int) {
    states = [md5_state](repeating: md5_state(), count: count)
    for index in states.indices { md5_begin(&states[index]) }
  }

  /// Advances the first `data.count` inputs, each by `blocks` blocks from its own pointer on.
  mutating func advance(_ data: [UnsafePointer<UInt8>?], blocks: Int) {
    data.withUnsafeBufferPointer { md5_advance(&states, $0.baseAddress, $0.count, blocks) }
  }

  /// Ends an input, whose whole blocks have been put in; what follows them in `input` is the rest.
  ///
  /// - Parameters:
  ///   - input: the whole input, or its last bytes behind a multiple of 64.
  ///   - length: the whole length; that of `input` unless told.
  mutating func finish(_ lane: Int, with input: UnsafeRawBufferPointer, length: Int64? = nil) -> String {
    let rest = UnsafeRawBufferPointer(rebasing: input[(input.count / Lanes.blockBytes * Lanes.blockBytes)...])
    return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 16) { digest in
      let total = UInt64(length ?? Int64(input.count))
      md5_finish(&states[lane], rest.baseAddress?.assumingMemoryBound(to: UInt8.self), total, digest.baseAddress)
      return Digest.hex(UnsafeBufferPointer(digest))
    }
  }
}
