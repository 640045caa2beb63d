internal import CRdKafka

/// What can go wrong between this process and Kafka.
public struct KafkaError: Error, Equatable, Sendable, CustomStringConvertible {
  public enum Code: Equatable, Sendable {
    /// The producer holds `KafkaProducer.Options.maxQueuedMessages` messages or `maxQueuedBytes` bytes. Nothing was
    /// queued; publish again when deliveries have been reported.
    case queueFull
    /// No answer within the time that the call or the option allows.
    case timedOut
    /// The broker can't be reached or the connection broke. librdkafka reconnects by itself.
    case transport
    /// The topic or the partition is not there.
    case unknownTopicOrPartition
    /// The offset that was asked for is not in the log (any more).
    case offsetOutOfRange
    /// The message is larger than the client or the broker takes.
    case messageTooLarge
    /// The broker is too old, or an emulation, for this request.
    case unsupported
    /// Authentication or authorisation failed.
    case denied
    /// The instance was closed.
    case closed
    /// A setting is wrong.
    case configuration
    /// The instance can't go on; close it and make another.
    case fatal
    /// Everything else: see the message.
    case other
  }

  public let code: Code
  /// A sentence for people, with librdkafka's own name of the error.
  public let message: String
  /// For a failed delivery: whether the broker may have the message all the same.
  public let mayHaveBeenWritten: Bool

  public init(code: Code, message: String, mayHaveBeenWritten: Bool = false) {
    self.code = code
    self.message = message
    self.mayHaveBeenWritten = mayHaveBeenWritten
  }

  public var description: String { message }
}

extension KafkaError {
  /// - Parameter context: what was tried, for the message.
  init(_ error: rd_kafka_resp_err_t, _ context: String, detail: String? = nil, mayHaveBeenWritten: Bool = false) {
    let name = String(cString: rd_kafka_err2name(error))
    let text = detail ?? String(cString: rd_kafka_err2str(error))
    self.init(
      code: Code(error), message: "\(context): \(text) (\(name))", mayHaveBeenWritten: mayHaveBeenWritten)
  }

  static let closed = KafkaError(code: .closed, message: "the Kafka client was closed")
}

extension KafkaError.Code {
  init(_ error: rd_kafka_resp_err_t) {
    switch error {
    case RD_KAFKA_RESP_ERR__QUEUE_FULL: self = .queueFull
    case RD_KAFKA_RESP_ERR__TIMED_OUT, RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE, RD_KAFKA_RESP_ERR__MSG_TIMED_OUT,
      RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
      self = .timedOut
    case RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, RD_KAFKA_RESP_ERR__RESOLVE,
      RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE, RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
      RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION:
      self = .transport
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
      RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
      self = .unknownTopicOrPartition
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET, RD_KAFKA_RESP_ERR__NO_OFFSET, RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
      self = .offsetOutOfRange
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE: self = .messageTooLarge
    case RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE, RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION: self = .unsupported
    case RD_KAFKA_RESP_ERR__AUTHENTICATION, RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
      self = .denied
    case RD_KAFKA_RESP_ERR__DESTROY, RD_KAFKA_RESP_ERR__PURGE_QUEUE, RD_KAFKA_RESP_ERR__PURGE_INFLIGHT: self = .closed
    case RD_KAFKA_RESP_ERR__INVALID_ARG, RD_KAFKA_RESP_ERR__CONFLICT: self = .configuration
    case RD_KAFKA_RESP_ERR__FATAL: self = .fatal
    default: self = .other
    }
  }
}
