internal import Bytes

/// The MD5s of blocks of a file, which are what damage is found and repaired in.
public enum BlockDigests {
  /// How many blocks a file of `size` bytes has.
  public static func count(ofSize size: Int64) -> Int {
    Int((size + Sidecar.blockSize - 1) / Sidecar.blockSize)
  }

  /// The bytes of a block; the last one may be shorter.
  public static func range(_ index: Int, ofSize size: Int64) -> Range<Int64> {
    let start = Int64(index) * Sidecar.blockSize
    return start..<min(start + Sidecar.blockSize, size)
  }

  /// The blocks that a range touches.
  public static func indices(touching range: Range<Int64>) -> Range<Int> {
    guard !range.isEmpty else { return 0..<0 }
    return Int(range.lowerBound / Sidecar.blockSize)..<Int((range.upperBound - 1) / Sidecar.blockSize) + 1
  }

  /// Bytes of each block that are read at a time: all lanes together stay in the core's own cache.
  private static let step = 64 << 10

  /// Reads ranges of a file and digests them, as many at once as there are lanes. Blocks.
  ///
  /// - Returns: the hex MD5 of each range, in their order.
  /// - Throws: `.corrupt` when the file ends inside one.
  public static func read(_ ranges: [Range<Int64>], of file: StoreFile) throws(FileStoreError) -> [String] {
    var digests = [String](repeating: "", count: ranges.count)
    let order = ranges.indices.sorted { ranges[$0].count > ranges[$1].count }
    let width = DigestLanes.width
    for first in stride(from: 0, to: order.count, by: width) {
      let group = Array(order[first..<min(first + width, order.count)])
      for (index, digest) in zip(group, try read(group: group.map { ranges[$0] }, of: file)) { digests[index] = digest }
    }
    return digests
  }

  /// - Parameter ranges: at most as many as there are lanes, the longest first.
  private static func read(group ranges: [Range<Int64>], of file: StoreFile) throws(FileStoreError) -> [String] {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: step * ranges.count, alignment: 64)
    defer { memory.deallocate() }
    guard ranges.count > 1 else { return [try alone(ranges[0], of: file, through: memory)] }
    var lanes = Lanes(count: ranges.count)
    var digests = [String](repeating: "", count: ranges.count)
    var (position, live) = (0, ranges.count)
    while live > 0 {
      // The shortest one of those that are left says how far all go together.
      let length = min(step, ranges[live - 1].count - position)
      let blocks = length / Lanes.blockBytes
      for lane in 0..<live {
        let part = UnsafeMutableRawBufferPointer(rebasing: memory[lane * step..<lane * step + length])
        try file.readAll(into: part, at: ranges[lane].lowerBound + Int64(position))
      }
      let data = (0..<live).map { lane in
        memory.baseAddress.map { UnsafePointer(($0 + lane * step).assumingMemoryBound(to: UInt8.self)) }
      }
      if blocks > 0 { lanes.advance(data, blocks: blocks) }
      // What the shortest has behind its last whole block ends it; the others read those bytes again.
      while live > 0, ranges[live - 1].count == position + length {
        live -= 1
        let part = UnsafeRawBufferPointer(rebasing: memory[live * step..<live * step + length])
        digests[live] = lanes.finish(live, with: part, length: Int64(ranges[live].count))
      }
      position += blocks * Lanes.blockBytes
    }
    return digests
  }

  private static func alone(
    _ range: Range<Int64>, of file: StoreFile, through memory: UnsafeMutableRawBufferPointer
  ) throws(FileStoreError) -> String {
    var digest = Digest(.md5)
    var position = range.lowerBound
    while position < range.upperBound {
      let length = Int(min(Int64(memory.count), range.upperBound - position))
      let part = UnsafeMutableRawBufferPointer(rebasing: memory[..<length])
      try file.readAll(into: part, at: position)
      digest.update(UnsafeRawBufferPointer(part))
      position += Int64(length)
    }
    return digest.finishHex()
  }
}
