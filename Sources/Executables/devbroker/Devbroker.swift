internal import Glibc
internal import Kafka
internal import Settings

/// The embedded Kafka of one machine: librdkafka's mock cluster as a process.
///
/// Prints `host:port` on stdout as soon as it serves, and runs until SIGTERM or SIGINT. Nothing outlives it. SIGUSR1 takes
/// the brokers down: connections are cut, new ones refused, and what the topics hold stays. SIGUSR2 brings them up again.
@main
struct Devbroker {
  static func main() {
    var options = Options(
      "devbroker", about: "An in-memory Kafka for one machine: development, demonstrations and tests.")
    let portFile = options.optional("listen-port-file", .string.named("PATH"), help: "A file to write the address to.")
    let topics = options.list("topic", topic, help: "A topic to create, with its number of partitions.")
    let host = options.value("host", ipv4, default: "127.0.0.1", help: "The address to listen on, and to be found at.")
    let port = options.value(
      "port", .int(0...65535), default: "0", help: "The first broker's port; 0 for any free one.")
    let brokers = options.value("brokers", .int(1...16), default: "1", help: "How many; their ports follow each other.")
    let parsed = options.parseCommandLine()

    // Before librdkafka starts its threads, which inherit the mask: sigwait alone takes the two signals.
    let signals = SignalWait([SIGTERM, SIGINT, SIGUSR1, SIGUSR2])
    BindSteering.steer(to: parsed[host], port: UInt16(parsed[port]))
    do throws(KafkaError) {
      let cluster = try MockCluster(brokers: parsed[brokers])
      for topic in parsed[topics] { try cluster.create(topic) }
      announce(cluster.bootstrap, file: parsed[portFile])
      var signal = signals.wait()
      while signal == SIGUSR1 || signal == SIGUSR2 {
        for broker in 1...parsed[brokers] { cluster.set(broker: broker, isUp: signal == SIGUSR2) }
        signal = signals.wait()
      }
      withExtendedLifetime(cluster) {}
    } catch {
      complain("\(error)")
    }
  }

  private static let topic = ValueType<KafkaTopic>("NAME:PARTITIONS") { (text) throws(BadValue) in
    guard let colon = text.lastIndex(of: ":"), colon != text.startIndex,
      let count = Int(text[text.index(after: colon)...]), (1...10_000).contains(count)
    else { throw BadValue("is not NAME:PARTITIONS with 1 ... 10000 partitions") }
    return KafkaTopic(String(text[..<colon]), partitions: count, replicas: 1)
  }

  private static let ipv4 = ValueType<String>("IPV4") { (text) throws(BadValue) in
    var address = in_addr()
    guard inet_pton(AF_INET, text, &address) == 1, address.s_addr != 0 else {
      throw BadValue("is not an IPv4 address that others can connect to")
    }
    return text
  }

  /// Whoever waits for the file sees it whole or not at all: written beside it, then renamed.
  private static func announce(_ address: String, file: String?) {
    if let file {
      let unfinished = "\(file).\(getpid())"
      let descriptor = open(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
      let line = Array("\(address)\n".utf8)
      guard descriptor >= 0, write(descriptor, line, line.count) == line.count, close(descriptor) == 0,
        rename(unfinished, file) == 0
      else { complain("can't write \(file): \(String(cString: strerror(errno)))") }
    }
    print(address)
    fflush(nil)
  }

  private static func complain(_ sentence: String) -> Never {
    let line = Array("devbroker: \(sentence)\n".utf8)
    _ = write(STDERR_FILENO, line, line.count)
    exit(1)
  }
}

/// Signals that no thread handles, to be waited for.
private struct SignalWait {
  private var set = sigset_t()

  /// Blocks the signals in this thread and in those that it starts from now on.
  init(_ signals: [Int32]) {
    sigemptyset(&set)
    for signal in signals { sigaddset(&set, signal) }
    pthread_sigmask(SIG_BLOCK, &set, nil)
  }

  func wait() -> Int32 {
    var set = set
    var signal: Int32 = 0
    sigwait(&set, &signal)
    return signal
  }
}
