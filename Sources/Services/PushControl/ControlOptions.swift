public import Reactor
public import UploadClient

/// Where the servers are and how results are printed.
public struct ControlOptions: Sendable {
  /// In the order in which they are tried.
  public var gateways: [HostPort]
  /// Files are spread over them.
  public var uploaders: [HostPort]
  /// One JSON value on stdout instead of text for people.
  public var printsJSON: Bool
  /// How files are sent.
  public var uploads = UploadOptions()

  public init(gateways: [HostPort], uploaders: [HostPort], printsJSON: Bool = false) {
    self.gateways = gateways
    self.uploaders = uploaders
    self.printsJSON = printsJSON
  }

  /// A single answer may take so long.
  var answerLimit = Duration.seconds(30)
  /// How often a call that broke is made again, each time at the next server.
  var attempts = 5
  /// Before each of these attempts.
  var pause = Duration.seconds(1)
}

/// What `push` is to deliver, and to whom.
public struct PushOrder: Sendable {
  public enum Payload: Sendable {
    case text(String)
    /// A file of this machine, uploaded first.
    case file(path: String)
    /// A file that stands in the store.
    case fileID(String)
    case event(type: String, details: String)
  }

  /// Ids of clients, or tags that they have; both empty for every client.
  public var clients: [String]
  public var tags: [String: String]
  public var payload: Payload
  /// Names the job, so that a retry is no second one; nil for a new random id.
  public var jobID: String?
  /// Waits until the job has ended.
  public var waits: Bool
  /// Whether each message is kept until its client has acknowledged it.
  public var isAtLeastOnce = true
  /// How the messages travel to their clients' gateways.
  public var route = Route.kafka
  /// What becomes of messages for clients that read too slowly; nil for what fits the quality of service.
  public var slowReader: SlowReader?

  public enum Route: Sendable {
    case kafka
    /// By a call from gateway to gateway; for named clients.
    case direct
  }

  public enum SlowReader: String, CaseIterable, Sendable {
    case wait
    case dropOldest = "drop-oldest"
    case disconnect
  }

  public init(
    clients: [String], tags: [String: String] = [:], payload: Payload, jobID: String? = nil, waits: Bool = false
  ) {
    self.clients = clients
    self.tags = tags
    self.payload = payload
    self.jobID = jobID
    self.waits = waits
  }
}

/// Why a command can't do what it was told; the message is a sentence.
public struct ControlError: Error, Sendable, CustomStringConvertible {
  public enum Code: Sendable {
    /// No server can be reached.
    case unreachable
  }
  public let code: Code
  public let message: String
  public var description: String { message }

  init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }
}
