internal import GRPC
internal import Protobuf
internal import Reactor
internal import Routing
internal import Schema

/// A `PushRequest` that was checked: what is to be delivered, to whom, and what the caller wants to hear.
struct DirectPushOrder {
  let client: String
  let message: PushV1.ServerMessage
  let encoded: EncodedMessage
  /// Whether another node has passed it on.
  let isPassedOn: Bool
  /// Whether the caller waits for the acknowledgement.
  let waits: Bool
  let keeps: Bool
  let slowReader: SlowReader
  /// When the acknowledgement comes too late, monotonic ns.
  let acknowledgedBy: Int64
  /// When the caller gives up, monotonic ns.
  private let deadline: Int64?

  /// - Throws: INVALID_ARGUMENT.
  init(_ request: PushV1.PushRequest, now: Int64, deadline: Int64?) throws(Status) {
    do throws(RoutingError) { try Name.validate(request.clientID, as: "client id") } catch {
      throw Status(.invalidArgument, error.message)
    }
    guard request.hops >= 0 else { throw Status(.invalidArgument, "The number of hops is negative.") }
    guard request.timeoutMs >= 0 else { throw Status(.invalidArgument, "The time to wait is negative.") }
    switch request.wait {
    case .written: waits = false
    case .acknowledged: waits = true
    case .unrecognized: throw Status(.invalidArgument, "What to wait for is not known.")
    }
    slowReader = try DirectPushOrder.policy(of: request)
    client = request.clientID
    keeps = request.keep
    isPassedOn = request.hops > 0
    message = try DirectPushOrder.message(of: request)
    encoded = EncodedMessage(message)
    let limit = GatewayLimits.maximumAcknowledgementTimeout.wholeMilliseconds
    let timeout =
      request.timeoutMs == 0
      ? GatewayLimits.acknowledgementTimeout : .milliseconds(min(request.timeoutMs, limit))
    acknowledgedBy = now + timeout.nanoseconds
    self.deadline = deadline
  }

  private static func policy(of request: PushV1.PushRequest) throws(Status) -> SlowReader {
    switch request.slowReader {
    case .slowReaderDefault: return .byDefault
    case .dropOldest: return .dropOldest
    case .disconnect: return .disconnect
    case .wait:
      guard request.keep else {
        throw Status(.invalidArgument, "A message can wait for a slow reader only where it is kept.")
      }
      return .wait
    case .unrecognized: throw Status(.invalidArgument, "The policy for slow readers is not known.")
    }
  }

  private static func message(of request: PushV1.PushRequest) throws(Status) -> PushV1.ServerMessage {
    var message = request.envelope ?? PushV1.ServerMessage(payload: .text(PushV1.TextMessage(content: request.message)))
    switch message.payload {
    case .text, .fileNotice, .event: break
    case .registered, .heartbeat, .goAway, nil:
      throw Status(.invalidArgument, "The envelope holds no text, no file notice and no event.")
    }
    // Of no job, and so no `MessageID`: its acknowledgement is nothing to the ledger.
    if message.messageID.isEmpty { message.messageID = "direct//\(Name.random())" }
    return message
  }

  var hasExpired: Bool { message.expiresAtMs > 0 && message.expiresAtMs < EventLoop.wallClockMilliseconds() }

  /// What the node that holds the client is asked.
  func request(for node: String, hops: Int, now: Int64) -> PushV1.PushRequest {
    var request = PushV1.PushRequest(clientID: client, envelope: message, hops: Int32(clamping: hops), nodeID: node)
    request.slowReader = PushV1.SlowReader(rawValue: slowReader.rawValue)
    // It keeps nothing, so there is nothing to wait for there.
    if slowReader == .wait { request.slowReader = .slowReaderDefault }
    if waits {
      request.wait = .acknowledged
      request.timeoutMs = max(1, (acknowledgedBy - now) / 1_000_000)
    }
    return request
  }

  /// How long a call to another node may take: the caller's own time ends it, too.
  func timeLeft(now: Int64, beyond extra: Duration) -> Duration {
    var left = extra.nanoseconds
    if waits { left += max(0, acknowledgedBy - now) }
    if let deadline { left = min(left, max(1, deadline - now)) }
    return .nanoseconds(left)
  }

  /// Whether a refusal is one that the inbox makes up for.
  func isToBeKept(after answer: PushV1.PushResponse) -> Bool {
    switch answer.reason {
    case .offline, .notHere, .tooManyHops, .slow, .notAcknowledged: true
    case .none, .unknownClient, .inboxFull, .expired, .unrecognized: false
    }
  }

  /// The record that keeps the message.
  func record(at now: Int64) -> PushRecord {
    var message = message
    let latest = now + JobDispatch.maximumTimeToLive.wholeMilliseconds
    message.expiresAtMs =
      message.expiresAtMs > 0
      ? min(message.expiresAtMs, latest) : now + JobDispatch.defaultTimeToLive.wholeMilliseconds
    var record = PushRecord(
      target: .client(client), messageID: message.messageID, message: message.serialized(), jobID: message.jobID,
      isAtLeastOnce: true, expiresAt: message.expiresAtMs)
    record.route = .direct
    return record
  }
}
