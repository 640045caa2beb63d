/// The id of a file: what clients, Redis keys and paths call it by.
///
/// 1 ... 128 letters, digits and `. _ -` of ASCII, the first one a letter or a digit. So an id is one path
/// component, never hidden, never `..`, and leaves `~`, `:`, `{` and `}` to what is built around it.
public struct FileID: Sendable, Hashable, CustomStringConvertible {
  /// The most characters an id may have; a longer one is refused.
  public static let maximumLength = 128

  public let text: String

  /// - Throws: `.invalid` with a sentence that tells the rule.
  public init(_ text: String) throws(FileStoreError) {
    guard !text.isEmpty else { throw FileStoreError(.invalid, "The file id is empty.") }
    guard text.utf8.count <= Self.maximumLength else {
      throw FileStoreError(.invalid, "The file id is longer than \(Self.maximumLength) characters.")
    }
    guard text.utf8.allSatisfy(Self.isAllowed), let first = text.utf8.first, Self.isAlphanumeric(first) else {
      throw FileStoreError(
        .invalid, "The file id may hold letters, digits and . _ - only, and has to begin with a letter or a digit.")
    }
    self.text = text
  }

  public var description: String { text }

  /// The two hex characters of the folder that holds the file: the first byte of the id's MD5, so that files spread
  /// over 256 folders however their ids were made.
  var folder: String { String(Digest.hex(of: text, .md5).prefix(2)) }

  private static func isAlphanumeric(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"),
      UInt8(ascii: "A")...UInt8(ascii: "Z"):
      true
    default: false
    }
  }

  private static func isAllowed(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"): true
    default: isAlphanumeric(byte)
    }
  }
}

/// The name that a file is shown by and saved under: the last component of whatever path a client sent.
public struct FileName: Sendable, Hashable, CustomStringConvertible {
  /// The most bytes of UTF-8 a name may have (a directory entry's own limit); a longer one is refused.
  public static let maximumLength = 255

  public let text: String

  /// - Throws: `.invalid` when nothing is left of the path, or what is left is `.`, `..`, too long, or holds control
  ///   characters.
  public init(lastComponentOf path: String) throws(FileStoreError) {
    // Both separators: a Windows client's `C:\dir\name` must not arrive as one name with a path in it.
    let last = path.split(omittingEmptySubsequences: true) { $0 == "/" || $0 == "\\" }.last.map(String.init) ?? ""
    guard !last.isEmpty, last != ".", last != ".." else {
      throw FileStoreError(.invalid, "The file name is empty or names a directory.")
    }
    guard last.utf8.count <= Self.maximumLength else {
      throw FileStoreError(.invalid, "The file name is longer than \(Self.maximumLength) bytes.")
    }
    guard last.unicodeScalars.allSatisfy({ $0.value >= 0x20 && !(0x7F...0x9F).contains($0.value) }) else {
      throw FileStoreError(.invalid, "The file name holds control characters.")
    }
    text = last
  }

  public var description: String { text }
}
