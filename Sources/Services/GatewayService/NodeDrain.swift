internal import GRPC
internal import Reactor
internal import Routing
internal import Telemetry

/// Takes the node out of service, client by client. Belongs to the node's loop.
///
///     serving ── begin ──► under way ── no client left, or the deadline ──► ended
///
/// While it is under way the node keeps its lease and delivers to those who are still there; new registrations are refused
/// with the address of another gateway. When it has ended the owner stops the node, which tells those who are left.
final class NodeDrain {
  enum Event {
    case began, ended
  }

  /// How far it is.
  struct Progress: Equatable {
    var told = 0
    var left = 0
    var elapsed: Duration = .zero
    var hasEnded = false
    var isDeadlinePassed = false
  }

  /// How often clients are told: at 500/s ten at a time.
  static let tick: Duration = .milliseconds(20)
  /// How often the other gateways are looked at.
  static let goalsInterval: Duration = .seconds(1)
  /// Before a client connects elsewhere: a random time in this range, so that those of one tick don't come as one.
  static let reconnectDelays: ClosedRange<Int64> = 50...250

  private unowned let node: GatewayNode
  private var pace: DrainPace?
  private var goals = DrainGoals()
  private var told = 0
  private var beganAt: Int64 = 0
  private var isDeadlinePassed = false
  private var hasEnded = false
  private var isStopped = false
  private var waiting: [Wakeup] = []
  var onEvent: ((Event) -> Void)?

  init(node: GatewayNode) {
    self.node = node
  }

  var isUnderWay: Bool { pace != nil }

  var progress: Progress {
    Progress(
      told: told, left: node.streams.clientCount, elapsed: .nanoseconds(node.loop.now - beganAt), hasEnded: hasEnded,
      isDeadlinePassed: isDeadlinePassed)
  }

  /// Begins, or goes on with another rate and another deadline.
  func begin(rate: Rate, within limit: Duration) {
    node.log.info("draining", ["rate": rate.description, "within": "\(limit)", "clients": node.streams.clientCount])
    guard pace == nil else { return pace?.change(rate: rate, within: limit, now: node.loop.now) ?? () }
    beganAt = node.loop.now
    pace = DrainPace(rate: rate, within: limit, now: beganAt)
    onEvent?(.began)
    node.loop.spawn { [self] in
      await node.lease.announceDraining()
      await readGoals()
      watchGoals()
      tick()
    }
  }

  /// The node stops: nothing is told any more.
  func stop() {
    isStopped = true
    if isUnderWay, !hasEnded { end() }
  }

  /// Waits until there is something to say, for a while.
  func change(within limit: Duration) async {
    guard !hasEnded else { return }
    let changed = Wakeup()
    waiting.append(changed)
    await changed.wait(within: limit, on: node.loop)
    waiting.removeAll { $0 === changed }
  }

  // MARK: Where clients go

  /// Another gateway's address for the next client; empty when there is none.
  func goal() -> String { goals.next() ?? "" }

  func reconnectDelay() -> Duration { .milliseconds(Int64.random(in: NodeDrain.reconnectDelays)) }

  /// Sends a client away that has just come.
  func refuse(_ stream: ConnectStream) {
    stream.goAway(
      "This node is being drained.", retryAfter: node.options.drainRetry, gateway: goal(),
      reconnectAfter: reconnectDelay())
  }

  private func readGoals() async {
    do throws(RoutingError) {
      goals.read(try await node.registry.nodes().items, except: node.options.nodeID)
    } catch {
      node.log.warning("other gateways not known", ["error": error.message])
    }
  }

  private func watchGoals() {
    let loop = node.loop
    loop.spawn { [self] in
      // The node may be gone when the sleep is over.
      while (try? await loop.sleep(for: NodeDrain.goalsInterval)) != nil, !hasEnded, !isStopped { await readGoals() }
    }
  }

  // MARK: The pace

  private func tick() {
    guard !isStopped, !hasEnded, let due = pace?.due(now: node.loop.now) else { return }
    let leaving = node.streams.all.lazy.filter { $0.session.epoch != nil }.prefix(due)
    for stream in Array(leaving) {
      told += 1
      node.metrics.drained.increment()
      refuse(stream)
    }
    isDeadlinePassed = pace?.hasEnded(now: node.loop.now) ?? true
    // Who has asked for a session before the drain began gets it, and is told then.
    let isEmpty = node.streams.clientCount == 0 && !node.streams.all.contains { $0.session.isRegistering }
    guard !isEmpty, !isDeadlinePassed else { return end() }
    node.loop.schedule(after: NodeDrain.tick) { [weak self] in self?.tick() }
  }

  private func end() {
    hasEnded = true
    node.log.info(
      "drained", ["told": told, "left": node.streams.clientCount, "milliseconds": progress.elapsed.wholeMilliseconds])
    for changed in waiting { changed.fire() }
    onEvent?(.ended)
  }
}
