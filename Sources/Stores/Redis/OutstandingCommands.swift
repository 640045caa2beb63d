internal import Bytes

/// A command that has no answer yet.
struct OutstandingCommand {
  let then: RedisClient.Completion
  /// Monotonic nanoseconds.
  let deadline: Int64
  /// The encoded command while it waits for a connection; one that was sent at once is in the shared output only.
  var held: Bytes?
  var isSent = false
}

/// The commands without an answer, oldest first: those that were sent, then those that were not.
struct OutstandingCommands {
  private var commands: [OutstandingCommand?] = []
  private var head = 0
  private var sentEnd = 0

  var count: Int { commands.count - head }

  var first: OutstandingCommand? { head < commands.count ? commands[head] : nil }

  mutating func append(_ command: OutstandingCommand) { commands.append(command) }

  mutating func markAllSent() {
    for index in sentEnd..<commands.count {
      commands[index]?.isSent = true
      commands[index]?.held = nil
    }
    sentEnd = commands.count
  }

  func forEachHeld(_ body: (Bytes) -> Void) {
    for index in sentEnd..<commands.count {
      if let held = commands[index]?.held { body(held) }
    }
  }

  /// nil when nothing that was sent is without an answer.
  mutating func popFirstSent() -> OutstandingCommand? {
    head < sentEnd ? popFirst() : nil
  }

  mutating func popFirst() -> OutstandingCommand? {
    guard head < commands.count else { return nil }
    let command = commands[head]
    commands[head] = nil
    head += 1
    sentEnd = max(sentEnd, head)
    if head == commands.count {
      commands.removeAll(keepingCapacity: true)
      head = 0
      sentEnd = 0
    } else if head >= 1024, head * 2 >= commands.count {
      commands.removeFirst(head)
      sentEnd -= head
      head = 0
    }
    return command
  }

  mutating func removeAll() -> [OutstandingCommand] {
    defer { self = OutstandingCommands() }
    return commands[head...].compactMap { $0 }
  }
}
