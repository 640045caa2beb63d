internal import Glibc

/// A moment of the wall clock, in milliseconds since 1970-01-01T00:00:00Z.
public struct WallTime: Sendable, Hashable {
  public var milliseconds: Int64

  public init(milliseconds: Int64) { self.milliseconds = milliseconds }

  public static func now() -> WallTime {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return WallTime(milliseconds: Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000)
  }

  /// For example `2026-11-21T01:26:41.123Z`.
  public var iso8601: String {
    let (year, month, day) = civilDate
    return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))T\(clock)Z"
  }

  /// The time of day in UTC, for example `01:26:41.123`.
  public var clock: String {
    let ofDay = milliseconds - days * 86_400_000
    let (hour, minute) = (ofDay / 3_600_000, ofDay / 60_000 % 60)
    return "\(padded(hour, 2)):\(padded(minute, 2)):\(padded(ofDay / 1000 % 60, 2)).\(padded(ofDay % 1000, 3))"
  }

  /// Whole days since the epoch, rounded down.
  private var days: Int64 {
    let (quotient, remainder) = milliseconds.quotientAndRemainder(dividingBy: 86_400_000)
    return remainder < 0 ? quotient - 1 : quotient
  }

  /// The date in the proleptic Gregorian calendar, by Howard Hinnant's `civil_from_days`: eras of 400 years that begin
  /// on the first of March.
  private var civilDate: (year: Int64, month: Int64, day: Int64) {
    let shifted = days + 719_468
    let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
    let dayOfEra = shifted - era * 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shiftedMonth = (5 * dayOfYear + 2) / 153
    let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    return (year, month, dayOfYear - (153 * shiftedMonth + 2) / 5 + 1)
  }

  private func padded(_ value: Int64, _ width: Int) -> String {
    let digits = String(value)
    return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
  }
}
