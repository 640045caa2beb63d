#if DEBUG
  internal import Glibc
#endif

/// The mechanisms that keep the promises of delivery while parts of the cluster fail.
///
/// Every program has all of them. A debug build can be run without some, so that a test shows what each one is for: a
/// promise whose test passes without its mechanism isn't tested.
public struct Safeguards: OptionSet, Sendable {
  public let rawValue: UInt16

  public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// An endpoint hands no message over that it has had.
  public static let dedupe = Safeguards(rawValue: 1 << 0)
  /// A session reads what waits for its client, when it begins and when it finds a hole.
  public static let replay = Safeguards(rawValue: 1 << 1)
  /// A record of the registry is changed by the session alone that owns it.
  public static let fencing = Safeguards(rawValue: 1 << 2)
  /// A record for a client that has moved is passed on to where it is.
  public static let rerouting = Safeguards(rawValue: 1 << 3)
  /// Sessions are compared with the registry, and their inboxes looked at, every so often.
  public static let sweep = Safeguards(rawValue: 1 << 4)
  /// A node whose lease had ended, or that missed records, vouches for its sessions and looks at their inboxes anew.
  public static let verification = Safeguards(rawValue: 1 << 5)
  /// A live session whose record Redis has lost writes it again.
  public static let restoring = Safeguards(rawValue: 1 << 6)

  public static let all = Safeguards(rawValue: (1 << 7) - 1)

  static let names: [String: Safeguards] = [
    "dedupe": .dedupe, "replay": .replay, "fencing": .fencing, "rerouting": .rerouting, "sweep": .sweep,
    "verification": .verification, "restoring": .restoring,
  ]

  /// Everything but what `FLEETPUSH_WITHOUT` names, with commas between: in a debug build. A release build doesn't look.
  public static func ofEnvironment() -> Safeguards {
    #if DEBUG
      guard let names = getenv("FLEETPUSH_WITHOUT") else { return .all }
      return all.without(String(cString: names))
    #else
      return .all
    #endif
  }

  #if DEBUG
    func without(_ text: String) -> Safeguards {
      text.split(separator: ",").reduce(self) { left, name in
        let known = Safeguards.names[String(name)]
        precondition(known != nil, "FLEETPUSH_WITHOUT names no safeguard of this program: \(name)")
        return left.subtracting(known ?? [])
      }
    }
  #endif
}
