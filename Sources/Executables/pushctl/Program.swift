import Glibc
import PushControl
import Reactor
import Settings
import Telemetry
import UploadClient

@main
struct Program {
  static let commands = Commands(
    "pushctl", about: "Uploads files, pushes to endpoints, and tells what became of it.",
    [
      ("upload", "Uploads files; the ids that they get can be pushed."),
      ("push", "Pushes a text, a file or an event to clients."),
      ("status", "Shows what became of a push."),
      ("cancel", "Ends a push: what still waits for its clients is not delivered."),
      ("clients", "Lists the clients that are known, and watches them come and go."),
      ("nodes", "Lists the gateways."),
      ("drain", "Takes a gateway out of service; its clients are sent to the others."),
    ], leadingFlags: ["gateway", "uploader"], leadingToggles: ["json"])

  static func main() {
    let (command, arguments) = commands.selectFromCommandLine()
    let run: @Sendable (Control) async -> Int32
    let options: ControlOptions
    do throws(UsageExit) {
      (options, run) =
        switch command {
        case "upload": try upload(arguments)
        case "push": try push(arguments)
        case "status": try status(arguments)
        case "cancel": try cancel(arguments)
        case "clients": try clients(arguments)
        case "drain": try drain(arguments)
        default: try nodes(arguments)
        }
    } catch { error.exitProcess() }
    do {
      exit(
        try EventLoop.run(name: "pushctl") { loop in
          let control = Control(loop: loop, options: options)
          // Before the first thread is started: threads inherit the mask that keeps the signals for the loop.
          let signals = try? Signals(loop: loop) { _ in if !control.interrupt() { exit(Control.interrupted) } }
          defer { withExtendedLifetime(signals) {} }
          return await run(control)
        })
    } catch {
      Logger("pushctl").error("can't start", ["reason": "\(error)"])
      exit(1)
    }
  }

  typealias Prepared = (ControlOptions, @Sendable (Control) async -> Int32)

  /// A command's own options behind those that all of them have.
  struct Shared {
    var options: Options
    let gateways: Flag<[HostPort]>
    let uploaders: Flag<[HostPort]>
    let json: Flag<Bool>

    init(_ command: String, about: String) {
      // What is pushed to whom never comes from the environment by accident.
      options = Options("pushctl \(command)", about: about, environmentFlags: ["gateway", "uploader"])
      gateways = options.list(
        "gateway", .hostPort, default: "127.0.0.1:7000", help: "A gateway; the first one that can be reached is used.")
      uploaders = options.list(
        "uploader", .hostPort, default: "127.0.0.1:7100",
        help: "An uploader; files are spread over them, and go on at the next when one can't be reached.")
      json = options.toggle("json", help: "Prints one JSON value on stdout.")
    }

    func control(_ given: Parsed) -> ControlOptions {
      ControlOptions(gateways: given[gateways], uploaders: given[uploaders], printsJSON: given[json])
    }
  }

  static func upload(_ arguments: [String]) throws(UsageExit) -> Prepared {
    var shared = Shared("upload", about: "Uploads files and folders, and prints the id that each file gets.")
    let fileID = shared.options.optional(
      "file-id", .string,
      help: "The id of a single file, instead of the one that follows from it: the same while it isn't changed.")
    let streams = shared.options.value(
      "streams", .int(1...32), default: "4", help: "Connections that carry one large file.")
    let concurrency = shared.options.value(
      "concurrency", .int(1...64), default: "4", help: "Large files at a time. Small ones are sent beside them.")
    let patience = shared.options.value(
      "patience", .duration, default: "60s", help: "A file fails when nothing has moved for so long.")
    let files = shared.options.arguments(
      "PATH", .string, isRequired: true, help: "Files, and folders with everything below them but links.")
    let given = try shared.options.parse(arguments, environment: processEnvironment())
    let (paths, id) = (given[files], given[fileID])
    if id != nil, paths.count > 1 { throw shared.options.mistake("--file-id is for a single file.") }
    var options = shared.control(given)
    options.uploads.streams = given[streams]
    options.uploads.concurrency = given[concurrency]
    options.uploads.patience = given[patience]
    return (options, { await $0.upload(paths, fileID: id) })
  }

  static func push(_ arguments: [String]) throws(UsageExit) -> Prepared {
    var shared = Shared("push", about: "Pushes one thing to some clients, to those that have tags, or to all.")
    let clients = shared.options.list("client", .string.named("ID"), help: "A client.")
    let tags = shared.options.list(
      "tag", .keyValue, help: "Clients with this tag; given several times, those that have all of them.")
    let all = shared.options.toggle("all", help: "Every client.")
    let text = shared.options.optional("text", .text, help: "A text for the user of the endpoint.")
    let file = shared.options.optional("file", .string.named("PATH"), help: "A file, which is uploaded first.")
    let fileID = shared.options.optional("file-id", .string.named("ID"), help: "A file that was uploaded before.")
    let event = shared.options.optional("event", .string.named("TYPE"), help: "An event of this type.")
    let details = shared.options.value("details", .text, default: "", help: "What the event tells.")
    let jobID = shared.options.optional(
      "job-id", .string.named("ID"), help: "The job's id instead of a random one: to say it again is to say it once.")
    let qos = shared.options.optional(
      "qos", .choice(["0", "1"]),
      help: "0: once, to who is connected. 1, and without this: kept until it is acknowledged.")
    let route = shared.options.value(
      "route", .choice(["kafka", "direct"]), default: "kafka",
      help: "How it travels to the gateways of the clients: through Kafka, or by calls between gateways.")
    let slowReader = shared.options.optional(
      "slow-reader", .choice(PushOrder.SlowReader.allCases.map(\.rawValue)),
      help: "For clients that read too slowly. Else wait with --qos 1, drop-oldest with --qos 0.")
    let waits = shared.options.toggle(
      "wait", help: "Waits for the end of the job, with progress on a terminal; exit code 1 when a client failed.")
    let given = try shared.options.parse(arguments, environment: processEnvironment())
    let selector = try selector(given[tags], shared.options)
    guard [given[all], !given[clients].isEmpty, !selector.isEmpty].count(where: { $0 }) == 1 else {
      throw shared.options.mistake("name either clients (--client ID), tags (--tag K=V) or --all.")
    }
    var payloads: [PushOrder.Payload] = []
    if let text = given[text] { payloads.append(.text(text)) }
    if let path = given[file] { payloads.append(.file(path: path)) }
    if let id = given[fileID] { payloads.append(.fileID(id)) }
    if let type = given[event] { payloads.append(.event(type: type, details: given[details])) }
    guard payloads.count == 1, let payload = payloads.first else {
      throw shared.options.mistake("name one of --text, --file, --file-id and --event.")
    }
    var order = PushOrder(
      clients: given[clients], tags: selector, payload: payload, jobID: given[jobID], waits: given[waits])
    if let level = given[qos] { order.isAtLeastOnce = level == "1" }
    if given[route] == "direct" { order.route = .direct }
    order.slowReader = given[slowReader].flatMap { PushOrder.SlowReader(rawValue: $0) }
    let prepared = order
    return (shared.control(given), { await $0.push(prepared) })
  }

  static func status(_ arguments: [String]) throws(UsageExit) -> Prepared {
    var shared = Shared("status", about: "Shows what became of a push, client by client.")
    let watch = shared.options.toggle(
      "watch", help: "Waits for the end of the job, with progress on a terminal; exit code 1 when a client failed.")
    let jobs = shared.options.arguments("JOB", .string, isRequired: true, help: "The job's id.")
    let given = try shared.options.parse(arguments, environment: processEnvironment())
    guard given[jobs].count == 1 else { throw shared.options.mistake("name one job.") }
    let (job, watches) = (given[jobs][0], given[watch])
    return (shared.control(given), { await $0.status(job, watches: watches) })
  }

  static func cancel(_ arguments: [String]) throws(UsageExit) -> Prepared {
    var shared = Shared(
      "cancel",
      about: "Ends a push and shows it as it is then: what waits is not delivered, what clients have they keep.")
    let reason = shared.options.value("reason", .text, default: "", help: "A sentence that is kept with the job.")
    let jobs = shared.options.arguments("JOB", .string, isRequired: true, help: "The job's id.")
    let given = try shared.options.parse(arguments, environment: processEnvironment())
    guard given[jobs].count == 1 else { throw shared.options.mistake("name one job.") }
    let (job, why) = (given[jobs][0], given[reason])
    return (shared.control(given), { await $0.cancel(job, reason: why) })
  }

  static func clients(_ arguments: [String]) throws(UsageExit) -> Prepared {
    var shared = Shared("clients", about: "Lists the clients that are known, ordered by id.")
    let online = shared.options.toggle("online", help: "Only those that are connected.")
    let watch = shared.options.toggle(
      "watch", help: "Goes on with a line for each client that comes, goes or is replaced, until it is interrupted.")
    let ids = shared.options.list("client", .string.named("ID"), help: "With --watch: only this client.")
    let tags = shared.options.list("tag", .keyValue, help: "Only those that have this tag, or all of several.")
    let given = try shared.options.parse(arguments, environment: processEnvironment())
    let (onlineOnly, clients) = (given[online], given[ids])
    let wanted = try selector(given[tags], shared.options)
    guard given[watch] else {
      guard clients.isEmpty else { throw shared.options.mistake("--client is for --watch.") }
      return (shared.control(given), { await $0.clients(onlineOnly: onlineOnly, tags: wanted) })
    }
    return (
      shared.control(given), { await $0.watchClients(ids: clients, tags: wanted, onlineOnly: onlineOnly) }
    )
  }

  static func drain(_ arguments: [String]) throws(UsageExit) -> Prepared {
    var shared = Shared(
      "drain", about: "Takes a gateway out of service: its clients are sent to the others, then it ends.")
    let rate = shared.options.optional("rate", .rate, help: "How many clients are told to go; else the gateway's own.")
    let deadline = shared.options.optional(
      "deadline", .duration, help: "Who is still there then is told at once; else the gateway's own.")
    let nodes = shared.options.arguments("NODE", .string, isRequired: true, help: "The gateway's name.")
    let given = try shared.options.parse(arguments, environment: processEnvironment())
    guard given[nodes].count == 1 else { throw shared.options.mistake("name one gateway.") }
    let (node, pace, limit) = (given[nodes][0], given[rate], given[deadline])
    return (shared.control(given), { await $0.drain(node, rate: pace, within: limit) })
  }

  /// Tags that a client has to have, all of them.
  static func selector(_ pairs: [KeyValue], _ options: Options) throws(UsageExit) -> [String: String] {
    var tags: [String: String] = [:]
    for pair in pairs where tags.updateValue(pair.value, forKey: pair.key).map({ $0 != pair.value }) == true {
      throw options.mistake("no client has two values of the tag \(pair.key).")
    }
    return tags
  }

  static func nodes(_ arguments: [String]) throws(UsageExit) -> Prepared {
    let shared = Shared("nodes", about: "Lists the gateways that are alive, ordered by id.")
    let given = try shared.options.parse(arguments, environment: processEnvironment())
    return (shared.control(given), { await $0.nodes() })
  }
}
