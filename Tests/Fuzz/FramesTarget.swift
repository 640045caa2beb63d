import Bytes

@testable import GRPC

/// The first byte gives the limit, the second the rhythm of the cuts, the rest is the data of a stream. However it is
/// cut, the same messages come out, the same error ends them, and credit adds up to what was received.
func fuzzFrames(_ input: UnsafeRawBufferPointer) {
  guard input.count >= 2 else { return }
  let limit = Int(input[0]) * 8
  let data = UnsafeRawBufferPointer(rebasing: input[2...])
  let whole = Outcome(of: data, limit: limit, seed: nil)
  let cut = Outcome(of: data, limit: limit, seed: input[1])
  require(whole.error == cut.error, "the error depends on the cuts: \(whole) and \(cut)")
  require(whole.messages == cut.messages, "the messages depend on the cuts: \(whole) and \(cut)")
  require(whole.messages.allSatisfy { $0.count <= limit }, "a message is over the limit")
  checkInbox(data, limit: limit, seed: input[1])
}

/// The sizes of pieces, 0 among them, from a seed.
private struct Pieces {
  var state: UInt32
  init(seed: UInt8) { state = UInt32(seed) &* 2_654_435_761 | 1 }

  mutating func next(of data: UnsafeRawBufferPointer.SubSequence) -> UnsafeRawBufferPointer.SubSequence {
    state = state &* 1_664_525 &+ 1_013_904_223
    return data.prefix(Int(state >> 24) % 23)
  }
}

private struct Outcome {
  var messages: [Bytes] = []
  var error: Status?

  init(of data: UnsafeRawBufferPointer, limit: Int, seed: UInt8?) {
    var deframer = Deframer()
    var pieces = Pieces(seed: seed ?? 0)
    var rest = data[...]
    var arrived: [Bytes] = []
    do throws(Status) {
      while !rest.isEmpty {
        let piece = seed == nil ? rest : pieces.next(of: rest)
        try deframer.feed(UnsafeRawBufferPointer(rebasing: piece), limit: limit) { arrived.append($0) }
        rest = rest.dropFirst(piece.count)
      }
    } catch { self.error = error }
    messages = arrived
  }
}

/// An inbox whose reader now and then waits, takes, and in the end goes away.
private func checkInbox(_ data: UnsafeRawBufferPointer, limit: Int, seed: UInt8) {
  var inbox = Inbox(limit: limit)
  var pieces = Pieces(seed: seed)
  var rest = data[...]
  var received = 0
  var credited = 0
  do throws(Status) {
    while !rest.isEmpty {
      let piece = pieces.next(of: rest)
      received += piece.count
      let credit = try inbox.receive(UnsafeRawBufferPointer(rebasing: piece))
      require(credit >= 0, "credit is taken back")
      credited += credit
      rest = rest.dropFirst(piece.count)
      if pieces.state & 0x300 == 0 {
        if let taken = inbox.take() {
          require(taken.credit >= 0, "a message takes credit back")
          credited += taken.credit
        } else {
          credited += inbox.await()
        }
      }
      require(credited <= received, "\(credited) bytes were credited of \(received) received")
    }
  } catch { return }
  credited += inbox.drop()
  require(credited == received, "\(credited) bytes were credited of \(received) received in all")
}
