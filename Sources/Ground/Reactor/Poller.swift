internal import CLinux
internal import Glibc

/// What a registered descriptor waits for, and what an event reports.
public struct Interest: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public static let read = Interest(rawValue: EPOLLIN.rawValue | EPOLLRDHUP.rawValue)
  public static let write = Interest(rawValue: EPOLLOUT.rawValue)
  /// Reported without being asked for: the descriptor has failed or both ends are closed.
  public static let failed = Interest(rawValue: EPOLLERR.rawValue | EPOLLHUP.rawValue)
}

/// Called on the loop when a descriptor is ready.
public protocol ReadinessHandler: AnyObject {
  func ready(_ events: Interest)
}

/// A descriptor's place in the loop's epoll set. Cancel it before the descriptor is closed.
public final class Registration {
  let descriptor: Int32
  let id: UInt32
  private(set) var interest: Interest
  fileprivate unowned let poller: Poller
  fileprivate unowned let handler: any ReadinessHandler

  fileprivate init(
    descriptor: Int32, id: UInt32, interest: Interest, poller: Poller, handler: any ReadinessHandler
  ) {
    self.descriptor = descriptor
    self.id = id
    self.interest = interest
    self.poller = poller
    self.handler = handler
  }

  /// Changes what is waited for; costs a system call only when it differs.
  public func update(_ interest: Interest) {
    guard interest != self.interest else { return }
    self.interest = interest
    poller.modify(self)
  }

  /// Takes the descriptor out of the set; an event of this turn that is still to come is dropped.
  public func cancel() { poller.remove(self) }
}

/// epoll, level-triggered. An event carries the descriptor and the registration's id, so that an event for a descriptor
/// that was closed and opened anew within one turn is recognised as stale and dropped.
final class Poller {
  private let epoll: Int32
  private var registrations: [Registration?] = []
  private var nextID: UInt32 = 0
  private let events: UnsafeMutableBufferPointer<epoll_event>

  /// The most events that one wait returns; the rest come with the next.
  static let eventsPerWait = 1024

  init() throws(IOError) {
    epoll = try system("epoll_create1") { epoll_create1(Int32(EPOLL_CLOEXEC)) }
    events = .allocate(capacity: Poller.eventsPerWait)
  }

  deinit {
    events.deallocate()
    _ = Glibc.close(epoll)
  }

  /// The handler is not retained: it owns the registration.
  func add(_ descriptor: Int32, _ interest: Interest, _ handler: any ReadinessHandler) throws(IOError) -> Registration {
    nextID &+= 1
    let registration = Registration(
      descriptor: descriptor, id: nextID, interest: interest, poller: self, handler: handler)
    try control(EPOLL_CTL_ADD, registration)
    while registrations.count <= Int(descriptor) { registrations.append(nil) }
    registrations[Int(descriptor)] = registration
    return registration
  }

  fileprivate func modify(_ registration: Registration) {
    guard registrations[Int(registration.descriptor)] === registration else { return }
    // The descriptor is open and in the set, so MOD can only fail for want of kernel memory, which ADD had.
    try? control(EPOLL_CTL_MOD, registration)
  }

  fileprivate func remove(_ registration: Registration) {
    guard registrations[Int(registration.descriptor)] === registration else { return }
    registrations[Int(registration.descriptor)] = nil
    try? control(EPOLL_CTL_DEL, registration)
  }

  private func control(_ operation: Int32, _ registration: Registration) throws(IOError) {
    var event = epoll_event()
    let data = UInt64(registration.id) << 32 | UInt64(UInt32(bitPattern: registration.descriptor))
    fp_epoll_event_set(&event, registration.interest.rawValue, data)
    try system("epoll_ctl") { epoll_ctl(epoll, operation, registration.descriptor, &event) }
  }

  /// Waits for at most `milliseconds` (-1: for ever) and dispatches what is ready.
  func wait(milliseconds: Int32, awake: () -> Void) {
    let count = epoll_wait(epoll, events.baseAddress, Int32(events.count), milliseconds)
    awake()
    // -1 is EINTR here: the descriptor and the buffer are ours and valid.
    guard count > 0 else { return }
    for index in 0..<Int(count) {
      let pointer = events.baseAddress.unsafelyUnwrapped + index
      let data = fp_epoll_event_data(pointer)
      let descriptor = Int(UInt32(truncatingIfNeeded: data))
      guard let registration = registrations[descriptor], registration.id == UInt32(data >> 32) else { continue }
      registration.handler.ready(Interest(rawValue: fp_epoll_event_events(pointer)))
    }
  }
}
