internal import Reactor
internal import Routing
internal import Telemetry

/// Ends the rows of jobs that are due, also of those that nobody looks at. Belongs to the node's loop.
///
/// Every node looks: one short call to Redis each time. A job that is due goes to one of them.
final class JobDeadlines {
  private let ledger: JobLedger
  private let loop: EventLoop
  private let log: Logger
  private var isLooking = false

  init(ledger: JobLedger, loop: EventLoop, log: Logger) {
    self.ledger = ledger
    self.loop = loop
    self.log = log
  }

  /// Looks, unless the look before is still under way.
  func look() {
    guard !isLooking else { return }
    isLooking = true
    loop.spawn { [self] in
      await endDue()
      isLooking = false
    }
  }

  private func endDue() async {
    do throws(RoutingError) {
      while try await ledger.endDue(now: EventLoop.wallClockMilliseconds()).mayBeMore {}
    } catch {
      log.debug("rows that are due not ended", ["error": error.message])
    }
  }
}
