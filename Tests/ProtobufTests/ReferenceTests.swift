import Bytes
import Foundation
import Protobuf
import Testing

/// The Swift side of `reference.py`, which sets FLEETPUSH_REFERENCE to a directory with its messages, and compares what
/// is written there with what Python's protobuf makes of them. Each file holds messages with their lengths in front (4
/// bytes, big-endian).
@Suite(.enabled(if: ProcessInfo.processInfo.environment["FLEETPUSH_REFERENCE"] != nil))
struct ReferenceTests {
  private let directory = URL(filePath: ProcessInfo.processInfo.environment["FLEETPUSH_REFERENCE"] ?? "/")

  private func read(_ name: String) throws -> [Bytes] {
    let content = Bytes(try Data(contentsOf: directory.appending(path: name)))
    var messages: [Bytes] = []
    var position = 0
    while position < content.count {
      let length = (0..<4).reduce(0) { $0 << 8 | Int(content[position + $1]) }
      messages.append(content[position + 4..<position + 4 + length])
      position += 4 + length
    }
    return messages
  }

  private func write(_ messages: [Bytes], to name: String) throws {
    var content = ByteWriter()
    for message in messages {
      content.append(bigEndian: UInt32(message.count))
      content.append(message)
    }
    try Data(content.finish().array).write(to: directory.appending(path: name))
  }

  @Test func answer() throws {
    let messages = try read("messages")
    try write(messages.map { try TestV1.Everything(serialized: $0).serialized() }, to: "everything")
    try write(messages.map { try TestV1.Older(serialized: $0).serialized() }, to: "older")
    try write(messages.map { try TestV1.Nothing(serialized: $0).serialized() }, to: "nothing")
    var merged: [Bytes] = []
    for (first, second) in zip(messages, messages.dropFirst()) {
      var message = try TestV1.Everything(serialized: first)
      try message.merge(serialized: second)
      merged.append(message.serialized())
    }
    try write(merged, to: "merged")
    let mutants = try read("mutants")
    // One byte before what was accepted, none for what was not.
    try write(
      mutants.map { mutant in
        (try? TestV1.Everything(serialized: mutant))?.serialized(prefix: 1) { memory, _ in memory[0] = 1 } ?? Bytes()
      }, to: "verdicts")
    var generator = SeededGenerator(state: UInt64(messages.count))
    try write(messages.map { _ in TestV1.Everything.random(using: &generator).serialized() }, to: "swift")
  }
}
