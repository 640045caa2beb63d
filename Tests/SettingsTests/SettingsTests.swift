import Reactor
import Testing

@testable import Settings

@Suite struct SettingsTests {
  struct Declared {
    var options = Options("agent", about: "Takes files and messages.")
    let id: Flag<String>
    let listen: Flag<HostPort>
    let gateways: Flag<[HostPort]>
    let tags: Flag<[KeyValue]>
    let wait: Flag<Duration>
    let chunk: Flag<Int>
    let limit: Flag<Int?>
    let json: Flag<Bool>
    let files: Flag<[String]>

    init() {
      id = options.required("client-id", .string, help: "The id of this endpoint.")
      listen = options.value("listen", .hostPort, default: "127.0.0.1:0", help: "Where to serve.")
      gateways = options.list("gateway", .hostPort, help: "A gateway.")
      tags = options.list("tag", .keyValue, help: "A tag.")
      wait = options.value("wait", .duration, default: "3s", help: "How long to wait.")
      chunk = options.value("chunk", .bytes, default: "64KiB", help: "The size of a chunk.")
      limit = options.optional("limit", .int(1...10), help: "How many.")
      json = options.toggle("json", help: "Prints JSON.")
      files = options.arguments("FILE", .string, isRequired: false, help: "What to send.")
    }

    func refusal(_ arguments: String..., environment: [String: String] = [:]) -> String? {
      do {
        _ = try options.parse(["--client-id", "a"] + arguments, environment: environment)
        return nil
      } catch {
        return error.status == 64 ? String(error.text.split(separator: "\n")[0].dropFirst("agent: ".count)) : nil
      }
    }
  }

  @Test func flagsOfEveryKindAreTaken() throws {
    let declared = Declared()
    let parsed = try declared.options.parse([
      "--client-id=a=b", "--listen", ":7000", "--gateway", "g1:1,[::1]:2", "--gateway", "g3:3", "one", "--tag", "k=v=w",
      "--wait", "1.5m", "--chunk=10MiB", "--limit", "10", "--json", "--", "--two",
    ])
    #expect(parsed[declared.id] == "a=b")
    #expect(parsed[declared.listen] == HostPort(host: "0.0.0.0", port: 7000))
    #expect(parsed[declared.gateways].map(\.description) == ["g1:1", "[::1]:2", "g3:3"])
    #expect(parsed[declared.tags] == [KeyValue(key: "k", value: "v=w")])
    #expect(parsed[declared.wait] == .seconds(90))
    #expect(parsed[declared.chunk] == 10 << 20)
    #expect(parsed[declared.limit] == 10)
    #expect(parsed[declared.json])
    #expect(parsed[declared.files] == ["one", "--two"])
  }

  @Test func theEnvironmentStandsBehindTheFlags() throws {
    let declared = Declared()
    let environment = [
      "FLEETPUSH_CLIENT_ID": "from-environment", "FLEETPUSH_WAIT": "250ms", "FLEETPUSH_GATEWAY": "a:1,b:2",
      "FLEETPUSH_JSON": "1",
    ]
    let parsed = try declared.options.parse(["--wait", "2s"], environment: environment)
    #expect(parsed[declared.id] == "from-environment")
    #expect(parsed[declared.wait] == .seconds(2))
    #expect(parsed[declared.gateways].count == 2)
    #expect(parsed[declared.json])
    #expect(parsed[declared.limit] == nil)
    #expect(parsed[declared.chunk] == 65_536)

    var some = Options("x", about: "X.", environmentFlags: ["gateway"])
    let all = some.toggle("all", help: "All.")
    #expect(try !some.parse([], environment: ["FLEETPUSH_ALL": "1"])[all])
  }

  @Test func everyMistakeIsNamed() {
    let declared = Declared()
    #expect(declared.refusal("--lisen", "x") == "there is no flag --lisen.")
    #expect(declared.refusal("--listen") == "--listen needs a value: --listen HOST:PORT.")
    #expect(declared.refusal("--listen", "--json") == "--listen needs a value: --listen HOST:PORT.")
    #expect(declared.refusal("--wait", "3") == "--wait: '3' is not a time like 250ms, 3s or 2m.")
    #expect(declared.refusal("--limit", "11") == "--limit: '11' is not in 1 ... 10.")
    #expect(declared.refusal("--chunk", "1.0000001KiB")?.hasPrefix("--chunk: '1.0000001KiB' is not a size") == true)
    #expect(declared.refusal("--tag", "=v") == "--tag: '=v' is not KEY=VALUE.")
    #expect(
      declared.refusal("--gateway", "g1:99999")
        == "--gateway: 'g1:99999' is not HOST:PORT with a port of 0 ... 65535.")
    #expect(
      declared.refusal(environment: ["FLEETPUSH_WAIT": "soon"])
        == "FLEETPUSH_WAIT: 'soon' is not a time like 250ms, 3s or 2m.")
    #expect(throws: UsageExit.self) { try declared.options.parse([]) }
    var bare = Options("bare", about: "Takes nothing.")
    _ = bare.toggle("x", help: "X.")
    #expect(throws: UsageExit.self) { try bare.parse(["file"]) }
  }

  @Test func ratesHaveTheirUnit() throws {
    var options = Options("x", about: "X.")
    let rate = options.required("rate", .rate, help: "How fast.")
    for (text, perSecond) in [("500/s", 500), ("30/m", 0.5), ("1.5/s", 1.5), ("1000000/s", 1e6)] {
      #expect(try options.parse(["--rate", text])[rate] == Rate(perSecond: perSecond))
    }
    #expect(Rate(perSecond: 2000).interval == 500_000 && "\(Rate(perSecond: 500))" == "500/s")
    for text in ["500", "0/s", "-1/s", "/s", "1/d", "1000001/s", "many/s"] {
      #expect { try options.parse(["--rate", text]) } throws: { ($0 as? UsageExit)?.status == 64 }
    }
  }

  @Test func helpComesFromTheDeclarations() {
    let declared = Declared()
    #expect {
      try declared.options.parse(["--help"])
    } throws: { error in
      guard let exit = error as? UsageExit, exit.status == 0 else { return false }
      return exit.text.hasPrefix("Usage: agent --client-id TEXT [flags] [FILE…]\n\nTakes files and messages.\n")
        && exit.text.contains("  --wait TIME          How long to wait. (default: 3s)\n")
        && exit.text.contains("FLEETPUSH_CLIENT_ID, FLEETPUSH_LISTEN")
        && exit.text.split(separator: "\n").allSatisfy { $0.count <= 100 }
    }
    #expect {
      try declared.options.parse(["--version"])
    } throws: { ($0 as? UsageExit)?.text == "agent \(Options.productVersion)" }
  }

  @Test func aCommandIsSplitOff() throws {
    let commands = Commands(
      "pushctl", about: "Pushes.", [("upload", "Uploads."), ("push", "Pushes.")], leadingFlags: ["gateway"],
      leadingToggles: ["json"])
    let (command, arguments) = try commands.select(["push", "--all"])
    #expect(command == "push" && arguments == ["--all"])
    let moved = try commands.select(["--gateway", "upload", "--json", "--gateway=g", "push", "x"])
    #expect(moved.command == "push" && moved.arguments == ["--gateway", "upload", "--json", "--gateway=g", "x"])
    for wrong in [[], ["--all", "push"], ["pull"]] {
      #expect { try commands.select(wrong) } throws: { ($0 as? UsageExit)?.status == 64 }
    }
    #expect { try commands.select(["--help"]) } throws: { ($0 as? UsageExit)?.status == 0 }
  }

  @Test(arguments: ["host", "host:", "host:x", "h/t:1", "h:-1", "h:65536", "a b:1"])
  func badAddressesAreRefused(text: String) {
    var options = Options("x", about: "X.")
    _ = options.required("listen", .hostPort, help: "Where.")
    #expect { try options.parse(["--listen", text]) } throws: { ($0 as? UsageExit)?.status == 64 }
  }
}
