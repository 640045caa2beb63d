internal import Bytes
internal import FileStore
internal import GRPC
internal import Protobuf
internal import Routing
internal import Schema

/// A frame that is to be published, checked.
struct FrameDraft {
  let channel: String
  let id: String
  /// nil: the channel gives the next seq_no.
  let key: FrameKey?
  /// Of all that two frames of one id have to agree in.
  let digest: String
  /// The frame without its key, as it is stored.
  let payload: Bytes

  init(_ frame: BroadcastV1.Frame) throws(Status) {
    channel = frame.channel.isEmpty ? ChannelFeeds.defaultChannel : frame.channel
    do throws(RoutingError) {
      try Name.validate(channel, as: "channel")
      if !frame.id.isEmpty { try Name.validate(frame.id, as: "frame id") }
    } catch {
      throw Status(.invalidArgument, error.message)
    }
    guard frame.buffer.count <= Channels.maximumFrameBytes else {
      throw Status(.invalidArgument, "The buffer is longer than \(Channels.maximumFrameBytes) bytes.")
    }
    guard !frame.assignSeqNo || frame.seqNo == 0 else {
      throw Status(.invalidArgument, "The frame has a seq_no, and asks for the next one.")
    }
    payload = BroadcastV1.Frame(buffer: frame.buffer, channel: channel).serialized()
    let content = BroadcastV1.Frame(
      seqNo: frame.seqNo, buffer: frame.buffer, timestamp: frame.timestamp, channel: channel,
      assignSeqNo: frame.assignSeqNo)
    digest = String(Digest.hex(of: content.serialized(), .sha256).prefix(32))
    // Without an id, what is the same is one frame; but two that ask for the next number are two.
    id = !frame.id.isEmpty ? frame.id : frame.assignSeqNo ? Name.random() : digest
    key = frame.assignSeqNo ? nil : FrameKey(seqNo: frame.seqNo, timestamp: frame.timestamp, id: id)
  }

  /// A stored frame as it is sent: fields of a message may stand in any order, so its key goes behind what is stored.
  static func encoded(_ frame: StoredFrame, isLate: Bool) -> EncodedMessage {
    let suffix = BroadcastV1.Frame(
      seqNo: frame.key.seqNo, timestamp: frame.key.timestamp, id: frame.key.id, late: isLate
    ).serialized()
    return EncodedMessage(
      payload: Bytes(capacity: frame.frame.count + suffix.count) { memory in
        memory.copyMemory(from: frame.frame.unsafeMemory)
        UnsafeMutableRawBufferPointer(rebasing: memory[frame.frame.count...]).copyMemory(from: suffix.unsafeMemory)
        return memory.count
      })
  }
}

extension BroadcastV1.GapCertificate {
  init(_ head: ChannelHead, isTruncated: Bool) {
    self.init(
      epoch: head.epoch, oldestSeqNo: head.lowest?.seqNo ?? 0, newestSeqNo: head.highest?.seqNo ?? 0,
      truncated: isTruncated, newestOrdinal: head.newest, floorSeqNo: head.floor?.seqNo ?? 0)
  }
}
