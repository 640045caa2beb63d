public import Bytes
internal import CRdKafka

/// A name and a value beside a record's value.
public struct KafkaHeader: Equatable, Sendable {
  /// Without NUL.
  public var name: String
  public var value: Bytes

  public init(_ name: String, _ value: Bytes) {
    self.name = name
    self.value = value
  }

  public init(_ name: String, _ value: String) {
    self.init(name, Bytes(value))
  }
}

/// A record as it was read: a copy, independent of librdkafka's memory.
public struct KafkaRecord: Sendable {
  public let topic: String
  public let partition: Int32
  public let offset: Int64
  /// Milliseconds since the epoch, as the producer or the broker set them; -1 where the broker keeps none.
  public let timestamp: Int64
  public let key: Bytes?
  public let value: Bytes
  public let headers: [KafkaHeader]

  /// The last header of a name: the one that counts when a name comes twice.
  public func header(_ name: String) -> Bytes? {
    headers.last { $0.name == name }?.value
  }
}

extension KafkaRecord {
  /// - Parameter topic: the name as the consumer knows it, so that no string is made per record.
  init(copying message: UnsafePointer<rd_kafka_message_t>, topic: String) {
    let record = message.pointee
    self.init(
      topic: topic, partition: record.partition, offset: record.offset,
      timestamp: rd_kafka_message_timestamp(message, nil),
      key: record.key.map { Bytes(copying: UnsafeRawBufferPointer(start: $0, count: record.key_len)) },
      value: Bytes(
        copying: UnsafeRawBufferPointer(start: record.payload, count: record.payload == nil ? 0 : record.len)),
      headers: KafkaRecord.headers(of: message))
  }

  private static func headers(of message: UnsafePointer<rd_kafka_message_t>) -> [KafkaHeader] {
    // "The returned pointer ... is only valid as long as the rkmessage": the names and values are copied here.
    var list: OpaquePointer?
    guard rd_kafka_message_headers(message, &list) == RD_KAFKA_RESP_ERR_NO_ERROR, let list else { return [] }
    var headers: [KafkaHeader] = []
    headers.reserveCapacity(rd_kafka_header_cnt(list))
    var name: UnsafePointer<CChar>?
    var value: UnsafeRawPointer?
    var length = 0
    while rd_kafka_header_get_all(list, headers.count, &name, &value, &length) == RD_KAFKA_RESP_ERR_NO_ERROR {
      guard let name else { break }
      // A header without a value (NULL) is read as an empty one.
      let bytes = Bytes(copying: UnsafeRawBufferPointer(start: value, count: value == nil ? 0 : length))
      headers.append(KafkaHeader(String(cString: name), bytes))
    }
    return headers
  }
}
