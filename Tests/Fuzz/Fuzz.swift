import Glibc

/// What is fuzzed: a name, and what is done with an input. It traps where a property doesn't hold.
struct Target {
  let name: String
  let run: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
}

/// libFuzzer as a library: "int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*UserCb)(const uint8_t *Data,
/// size_t Size))".
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
  _ argc: UnsafeMutablePointer<CInt>,
  _ argv: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
  _ callback: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// `fuzz TARGET [what libFuzzer takes]`: flags, folders of inputs, or single inputs to try again.
@main enum Fuzz {
  private static let targets = [
    Target(name: "protobuf") { Fuzz.input($0, $1, fuzzProtobuf) },
    Target(name: "frames") { Fuzz.input($0, $1, fuzzFrames) },
    Target(name: "server") { Fuzz.input($0, $1, fuzzServer) },
    Target(name: "redis") { Fuzz.input($0, $1, fuzzRedis) },
    Target(name: "texts") { Fuzz.input($0, $1, fuzzTexts) },
  ]

  static func main() {
    var count = CommandLine.argc
    var arguments = CommandLine.unsafeArgv
    guard count > 1, let name = arguments[1], let target = targets.first(where: { $0.name == String(cString: name) })
    else {
      print(targets.map(\.name).joined(separator: "\n"))
      exit(64)
    }
    // The target's name goes, the program's stays.
    arguments[1] = arguments[0]
    arguments += 1
    count -= 1
    exit(runDriver(&count, &arguments, target.run))
  }

  private static func input(
    _ data: UnsafePointer<UInt8>?, _ size: Int, _ body: (UnsafeRawBufferPointer) -> Void
  ) -> CInt {
    body(UnsafeRawBufferPointer(start: data, count: size))
    return 0
  }
}

/// Ends the process, and so has libFuzzer keep the input, when a property doesn't hold.
func require(_ holds: Bool, _ sentence: @autoclosure () -> String) {
  guard !holds else { return }
  let line = "property broken: \(sentence())\n"
  _ = line.withCString { write(STDERR_FILENO, $0, strlen($0)) }
  abort()
}
