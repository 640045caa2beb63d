public import Reactor
public import Safeguards

/// What an agent is told when it starts.
public struct AgentOptions: Sendable {
  /// The endpoint's name, unique in the fleet.
  public var clientID: String
  /// In the order in which they are preferred; at least one.
  public var gateways: [HostPort]
  /// Where files are delivered to; made where it is missing.
  public var directory: String
  public var tags: [String: String]
  /// Whether what arrives is printed as JSON, one object a line.
  public var printsJSON: Bool

  public init(
    clientID: String, gateways: [HostPort], directory: String, tags: [String: String] = [:], printsJSON: Bool = false
  ) {
    self.clientID = clientID
    self.gateways = gateways
    self.directory = directory
    self.tags = tags
    self.printsJSON = printsJSON
  }

  /// What a test leaves out.
  public var safeguards = Safeguards.all
  /// Has the agent try again after a fraction of a second: where gateways are broken on purpose, many times a minute.
  public mutating func hurry() {
    session.opening = .seconds(2)
    session.firstWait = .milliseconds(300)
    session.longestWait = .seconds(2)
    session.leaveAlone = .seconds(1)
  }

  var session = Session.Limits()
  var download = Download.Limits()
}
