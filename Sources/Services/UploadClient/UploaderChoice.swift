internal import Reactor

/// Which uploader a file goes to: all of its streams to the same one, since one node writes a file at a time. Files are
/// spread by their ids, and a file that is sent again begins where it was sent before.
struct UploaderChoice: Sendable {
  private let addresses: [HostPort]
  private var index: Int

  /// - Precondition: there is an address.
  init(_ addresses: [HostPort], for id: String) {
    precondition(!addresses.isEmpty, "no uploader is named")
    self.addresses = addresses
    // FNV-1a: the same in every process.
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in id.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    index = Int((hash >> 32) % UInt64(addresses.count))
  }

  var current: HostPort { addresses[index] }

  /// An uploader that didn't answer, or broke off: the next one, unless somebody has moved on already.
  mutating func leave(_ address: HostPort) {
    if address == current { index = (index + 1) % addresses.count }
  }
}
