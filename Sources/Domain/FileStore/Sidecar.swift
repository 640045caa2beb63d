internal import Bytes
internal import FoundationEssentials

/// What is known about a finished file, kept as JSON beside it. It is written after the file has its final name, so a
/// file with a sidecar is whole and verified.
public struct Sidecar: Sendable, Hashable, Codable {
  /// Blocks of 20 MiB are what breakpoints and repairs count in.
  public static let blockSize: Int64 = 20 << 20
  /// The largest sidecar that is read: 1 TiB in blocks of 20 MiB, with room.
  static let maximumBytes = 4 << 20

  public var name: String
  public var size: Int64
  public var md5: String
  public var sha256: String?
  public var blockSize: Int64
  public var blockMD5s: [String]
  /// When the file was finished, ms since the epoch.
  public var publishedAt: Int64

  enum CodingKeys: String, CodingKey {
    case name, size, md5, sha256
    case blockSize = "block_size"
    case blockMD5s = "block_md5s"
    case publishedAt = "published_at_ms"
  }

  public init(name: String, size: Int64, digests: FileDigests, sha256: String? = nil, publishedAt: Int64) {
    self.name = name
    self.size = size
    md5 = digests.md5
    self.sha256 = sha256
    blockSize = Self.blockSize
    blockMD5s = digests.blockMD5s
    self.publishedAt = publishedAt
  }

  init(json: Bytes) throws(FileStoreError) {
    do {
      self = try json.withUnsafeBytes { try JSONDecoder().decode(Sidecar.self, from: Data($0)) }
    } catch {
      throw FileStoreError(.corrupt, "The record beside the file can't be read.")
    }
  }

  func json() throws(FileStoreError) -> Bytes {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    do {
      return try Bytes(encoder.encode(self))
    } catch {
      throw FileStoreError(.invalid, "The record beside the file can't be written.")
    }
  }
}

/// The MD5 of a whole file and of each of its blocks of `Sidecar.blockSize`.
public struct FileDigests: Sendable, Hashable {
  public var md5: String
  public var blockMD5s: [String]

  public init(md5: String, blockMD5s: [String]) {
    self.md5 = md5
    self.blockMD5s = blockMD5s
  }
}
