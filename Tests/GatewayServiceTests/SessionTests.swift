import GRPC
import Routing
import Schema
import Testing

@testable import GatewayService

@Suite struct SessionTests {
  typealias Message = PushV1.ClientMessage

  static let register = Message(payload: .register(PushV1.RegisterRequest(clientID: "c", tags: ["k": "v"])))
  static let reconnect = Message(payload: .reconnect(PushV1.ReconnectRequest(clientID: "c", lastSessionID: "s")))
  static let heartbeat = Message(payload: .heartbeat(PushV1.Heartbeat(clientID: "c", timestamp: 7)))
  static let ack = Message(payload: .ack(PushV1.Acknowledgement(messageIDs: ["j/c"])))
  static let status = Message(payload: .fileStatus(PushV1.FileStatus(jobID: "j")))

  /// The states that messages meet.
  enum Place: CaseIterable {
    case waiting, registering, open, closed

    func session() -> Session {
      var session = Session(now: 0)
      guard self != .waiting else { return session }
      _ = session.received(register, now: 1)
      guard self != .registering else { return session }
      _ = session.registered(client: "c", epoch: 5, resumed: false)
      if self == .closed { _ = session.close(.ok) }
      return session
    }

    /// The record that a session in this state owns.
    var owned: Session.Owned? { self == .open ? Session.Owned(client: "c", epoch: 5) : nil }
  }

  static func code(_ action: Session.Action) -> StatusCode? {
    if case .close(let status, _) = action { status.code } else { nil }
  }

  static func released(_ action: Session.Action) -> Session.Owned? {
    if case .close(_, let owned) = action { owned } else { nil }
  }

  @Test func theFirstMessageOpensTheSession() {
    var session = Place.waiting.session()
    #expect(
      session.received(Self.register, now: 1)
        == .register(Session.Opening(client: "c", lastSession: "", tags: ["k": "v"])))
    var other = Place.waiting.session()
    #expect(
      other.received(Self.reconnect, now: 1) == .register(Session.Opening(client: "c", lastSession: "s", tags: [:])))
    #expect(
      other.registered(client: "c", epoch: 9, resumed: true)
        == .welcome(Session.Welcome(client: "c", epoch: 9, resumed: true)))
    #expect(other.epoch == 9 && other.client == "c")
  }

  @Test(arguments: [Self.heartbeat, Self.ack, Self.status, Message()])
  func anotherFirstMessageIsRefused(_ message: Message) {
    var session = Place.waiting.session()
    let action = session.received(message, now: 1)
    #expect(Self.code(action) == .invalidArgument && Self.released(action) == nil)
    #expect(session.state == .closed)
  }

  @Test(arguments: ["", "a b", "a/b", "{x}", String(repeating: "x", count: 129)])
  func badClientIDsAreRefused(_ id: String) {
    var session = Place.waiting.session()
    let action = session.received(Message(payload: .register(PushV1.RegisterRequest(clientID: id))), now: 1)
    #expect(Self.code(action) == .invalidArgument)
  }

  @Test func tooManyTagsAreRefused() {
    var session = Place.waiting.session()
    let tags = Dictionary(uniqueKeysWithValues: (0...Registry.maximumTags).map { ("k\($0)", "v") })
    let action = session.received(
      Message(payload: .register(PushV1.RegisterRequest(clientID: "c", tags: tags))), now: 1)
    #expect(Self.code(action) == .invalidArgument)
  }

  @Test(arguments: [Place.registering, .open], [Self.register, Self.reconnect])
  func aSecondRegisterEndsTheStream(_ place: Place, _ message: Message) {
    var session = place.session()
    let action = session.received(message, now: 2)
    #expect(Self.code(action) == .failedPrecondition && Self.released(action) == place.owned)
  }

  @Test(arguments: [Place.registering, .open]) func laterMessagesAreTaken(_ place: Place) {
    var session = place.session()
    #expect(session.received(Self.heartbeat, now: 2) == .answerHeartbeat(timestamp: 7))
    #expect(
      session.received(Self.ack, now: 2) == .acknowledge(client: "c", PushV1.Acknowledgement(messageIDs: ["j/c"])))
    #expect(session.received(Self.status, now: 2) == .report(client: "c", PushV1.FileStatus(jobID: "j")))
    #expect(session.received(Message(), now: 2) == .none)
    let foreign = Message(payload: .heartbeat(PushV1.Heartbeat(clientID: "d")))
    #expect(Self.code(session.received(foreign, now: 2)) == .invalidArgument)
  }

  @Test func aClosedSessionTakesNothing() {
    for message in [Self.register, Self.reconnect, Self.heartbeat, Self.ack, Self.status, Message()] {
      var session = Place.closed.session()
      #expect(session.received(message, now: 2) == .none)
    }
    var session = Place.closed.session()
    #expect(session.close(.ok) == .none && session.replaced() == .none && session.ended() == .none)
    #expect(session.tick(now: .max, silenceLimit: .seconds(1)) == .none)
  }

  @Test(arguments: [Place.waiting, .registering, .open]) func silenceEndsTheStream(_ place: Place) {
    var session = place.session()
    let limit = Duration.seconds(30)
    #expect(session.tick(now: session.lastHeard + 29_999_999_999, silenceLimit: limit) == .none)
    let action = session.tick(now: session.lastHeard + 30_000_000_000, silenceLimit: limit)
    #expect(Self.code(action) == .deadlineExceeded && Self.released(action) == place.owned)
  }

  @Test func anyMessageBreaksTheSilence() {
    var session = Place.open.session()
    _ = session.received(Self.heartbeat, now: 20_000_000_000)
    #expect(session.tick(now: 31_000_000_000, silenceLimit: .seconds(30)) == .none)
  }

  @Test func aRegistrationThatComesTooLateReleasesItsRecord() {
    var session = Place.registering.session()
    #expect(session.ended() == .none)
    #expect(
      session.registered(client: "c", epoch: 5, resumed: false)
        == .release(Session.Owned(client: "c", epoch: 5)))
    var closed = Place.registering.session()
    _ = closed.close(Status(.unavailable))
    #expect(
      closed.registered(client: "c", epoch: 5, resumed: false) == .release(Session.Owned(client: "c", epoch: 5)))
  }

  @Test func onlyAnOwnerReleases() {
    var open = Place.open.session()
    #expect(open.ended() == .release(Session.Owned(client: "c", epoch: 5)))
    var replaced = Place.open.session()
    let action = replaced.replaced()
    #expect(Self.code(action) == .aborted && Self.released(action) == nil)
    #expect(replaced.ended() == .none)
  }

  @Test func aLostRecordsNewEpochIsTheOneThatIsReleased() {
    var session = Place.open.session()
    #expect(session.renewed(client: "c", epoch: 4) == .none && session.epoch == 5)
    #expect(session.renewed(client: "c", epoch: 8) == .none && session.epoch == 8)
    #expect(session.ended() == .release(Session.Owned(client: "c", epoch: 8)))
    // Written anew for a stream that has ended meanwhile, it would be nobody's.
    #expect(session.renewed(client: "c", epoch: 9) == .release(Session.Owned(client: "c", epoch: 9)))
  }
}
