import Bytes
import Glibc
import Protobuf

/// A plugin of `protoc`: reads a CodeGeneratorRequest from standard input, writes a CodeGeneratorResponse to standard
/// output. `protoc` runs it for `--fleetpush_out`.
@main
enum Program {
  static func main() {
    do throws(ProtobufError) {
      let request = try GeneratorRequest(standardInput())
      var response = ByteWriter(capacity: 1 << 20)
      // supported_features = FEATURE_PROTO3_OPTIONAL
      append(tag: 2 << 3, 1, to: &response)
      for (name, content) in Generator(request).run() {
        var file = ByteWriter()
        append(1, Bytes(name), to: &file)
        append(15, Bytes(content), to: &file)
        append(15, file.finish(), to: &response)
      }
      if !write(response.finish(), to: STDOUT_FILENO) { exit(1) }
    } catch {
      _ = write(Bytes("protoc-gen-fleetpush: \(error)\n"), to: STDERR_FILENO)
      exit(1)
    }
  }

  private static func append(_ number: UInt64, _ content: Bytes, to writer: inout ByteWriter) {
    append(tag: number << 3 | 2, UInt64(content.count), to: &writer)
    writer.append(content)
  }

  private static func append(tag: UInt64, _ value: UInt64, to writer: inout ByteWriter) {
    for number in [tag, value] {
      var rest = number
      while rest >= 0x80 {
        writer.append(UInt8(truncatingIfNeeded: rest) | 0x80)
        rest >>= 7
      }
      writer.append(UInt8(truncatingIfNeeded: rest))
    }
  }

  private static func standardInput() -> Bytes {
    var input = ByteWriter(capacity: 1 << 20)
    var ended = false
    while !ended {
      input.append(upTo: 1 << 16) { memory in
        let count = read(STDIN_FILENO, memory.baseAddress, memory.count)
        ended = count <= 0
        return max(count, 0)
      }
    }
    return input.finish()
  }

  private static func write(_ bytes: Bytes, to descriptor: Int32) -> Bool {
    bytes.withUnsafeBytes { memory in
      var rest = memory[...]
      while !rest.isEmpty {
        let part = UnsafeRawBufferPointer(rebasing: rest)
        let count = Glibc.write(descriptor, part.baseAddress, part.count)
        guard count > 0 else { return false }
        rest = rest.dropFirst(count)
      }
      return true
    }
  }
}
