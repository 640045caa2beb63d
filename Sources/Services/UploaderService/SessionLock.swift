/// The session that a stream belongs to, and what it has of the file's lock.
///
/// A session holds a file while its chunks come, over as many streams and nodes as it likes; another session is told until
/// when. The lock ends with its time, so a client that died is followed by the next one. The empty session is one that all
/// clients without a name share.
struct SessionLock: Sendable, Hashable {
  /// The longest name of a session; a longer one is INVALID_ARGUMENT.
  static let maximumBytes = 128

  /// What Redis keeps; never empty, which would be no session.
  let token: String
  /// How long it holds the file from its last progress on.
  let lifetime: Duration

  init(_ name: String, lifetime: Duration) {
    token = "s:\(name)"
    self.lifetime = lifetime
  }
}
