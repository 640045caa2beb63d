internal import Synchronization

/// What has to hold before a process is ready, by name. Usable from any thread.
///
///     let readiness = Readiness(waitingFor: ["redis", "kafka"])
///     readiness.met("redis")
///     readiness.unmet("redis", because: "the connection is lost")
public final class Readiness: Sendable {
  private let missing: Mutex<[String: String]>

  /// - Parameter conditions: what isn't met yet.
  public init(waitingFor conditions: [String] = []) {
    missing = Mutex(Dictionary(conditions.map { ($0, "not yet") }, uniquingKeysWith: { first, _ in first }))
  }

  public func met(_ condition: String) {
    missing.withLock { _ = $0.removeValue(forKey: condition) }
  }

  public func unmet(_ condition: String, because reason: String) {
    missing.withLock { $0[condition] = reason }
  }

  /// What is missing, as one line; nil when nothing is.
  public var reason: String? {
    missing.withLock { missing in
      missing.isEmpty
        ? nil : missing.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: "; ")
    }
  }
}
