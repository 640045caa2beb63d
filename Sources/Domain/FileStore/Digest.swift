public import Bytes
internal import COpenSSL

/// A running MD5 or SHA-256, on OpenSSL's EVP.
///
/// One owner; freed when the owner lets go of it. Not for several threads at once.
///
/// The C contract (EVP_DigestInit(3)): `EVP_MD_CTX_new` gives NULL without memory; `EVP_DigestInit_ex`,
/// `EVP_DigestUpdate` and `EVP_DigestFinal_ex` return 1 for success and 0 for failure. With a provider that has the
/// algorithm they fail for want of memory only, or for MD5 in a FIPS configuration.
public struct Digest: ~Copyable {
  public enum Algorithm: Sendable {
    case md5, sha256

    /// Characters of its hex form.
    public var hexLength: Int { self == .md5 ? 32 : 64 }
    var name: String { self == .md5 ? "MD5" : "SHA-256" }
  }

  public let algorithm: Algorithm
  private let context: OpaquePointer

  public init(_ algorithm: Algorithm) {
    self.algorithm = algorithm
    guard let context = EVP_MD_CTX_new() else { preconditionFailure("no memory for a digest") }
    self.context = context
    start()
  }

  deinit { EVP_MD_CTX_free(context) }

  private func start() {
    let kind = algorithm == .md5 ? EVP_md5() : EVP_sha256()
    precondition(EVP_DigestInit_ex(context, kind, nil) == 1, "OpenSSL has no \(algorithm.name) here")
  }

  public mutating func update(_ source: UnsafeRawBufferPointer) {
    precondition(EVP_DigestUpdate(context, source.baseAddress, source.count) == 1, "EVP_DigestUpdate")
  }

  public mutating func update(_ bytes: Bytes) {
    bytes.withUnsafeBytes { update($0) }
  }

  /// The digest of what was put in, in lower-case hex; afterwards it begins anew with nothing in it.
  public mutating func finishHex() -> String {
    var length: UInt32 = 0
    // EVP_MAX_MD_SIZE is 64.
    let hex = withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 64) { buffer in
      precondition(EVP_DigestFinal_ex(context, buffer.baseAddress, &length) == 1, "EVP_DigestFinal_ex")
      return Self.hex(UnsafeBufferPointer(rebasing: buffer[..<Int(length)]))
    }
    start()
    return hex
  }

  /// The hex digest of bytes that are all there.
  public static func hex(of bytes: Bytes, _ algorithm: Algorithm) -> String {
    var digest = Digest(algorithm)
    digest.update(bytes)
    return digest.finishHex()
  }

  /// The hex digest of a string's UTF-8.
  public static func hex(of text: String, _ algorithm: Algorithm) -> String {
    hex(of: Bytes(text), algorithm)
  }

  /// The form that digests are compared in: lower-case hex of the right length, or nil when `text` is no such digest.
  public static func normalised(_ text: String, _ algorithm: Algorithm) -> String? {
    let lower = text.lowercased()
    let isHex = lower.utf8.allSatisfy {
      (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains($0)
    }
    return isHex && lower.utf8.count == algorithm.hexLength ? lower : nil
  }

  static func hex(_ bytes: UnsafeBufferPointer<UInt8>) -> String {
    func digit(_ value: UInt8) -> UInt8 { value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "a") + value - 10 }
    return String(unsafeUninitializedCapacity: bytes.count * 2) { target in
      for (index, byte) in bytes.enumerated() {
        target[index * 2] = digit(byte >> 4)
        target[index * 2 + 1] = digit(byte & 15)
      }
      return bytes.count * 2
    }
  }
}
