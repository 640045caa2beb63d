/// How often something may happen: 500/s, 30/m. Always more than 0.
public struct Rate: Sendable, Hashable, CustomStringConvertible {
  /// The highest rate that can be said.
  public static let highest = 1_000_000.0

  public let perSecond: Double

  /// - Precondition: more than 0 and at most `highest`; see `init(validating:)` for what comes from outside.
  public init(perSecond: Double) {
    precondition(Rate.isValid(perSecond), "a rate of \(perSecond) a second")
    self.perSecond = perSecond
  }

  /// nil when it is no rate.
  public init?(validating perSecond: Double) {
    guard Rate.isValid(perSecond) else { return nil }
    self.perSecond = perSecond
  }

  private static func isValid(_ perSecond: Double) -> Bool { perSecond > 0 && perSecond <= highest }

  /// From one to the next, in nanoseconds; at least one.
  public var interval: Int64 { max(1, Int64(clamping: Int((min(1e9 / perSecond, 1e18)).rounded()))) }

  public var description: String {
    perSecond == perSecond.rounded() ? "\(Int(perSecond))/s" : "\(perSecond)/s"
  }
}
