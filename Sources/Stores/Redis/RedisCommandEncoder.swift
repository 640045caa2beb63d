internal import Bytes

/// Writes commands as RESP arrays of bulk strings, as hiredis's redisFormatCommandArgv does, but into a buffer that is
/// there already.
enum RedisCommandEncoder {
  static func append(_ arguments: [RedisArgument], to output: inout ByteWriter) {
    appendHeader("*", arguments.count, to: &output)
    for argument in arguments {
      switch argument {
      case .bytes(let bytes):
        appendHeader("$", bytes.count, to: &output)
        output.append(bytes)
      case .string(let text): append(text, to: &output)
      case .integer(let number): append(String(number), to: &output)
      }
      output.append("\r\n")
    }
  }

  private static func append(_ text: String, to output: inout ByteWriter) {
    appendHeader("$", text.utf8.count, to: &output)
    output.append(text)
  }

  private static func appendHeader(_ kind: Unicode.Scalar, _ count: Int, to output: inout ByteWriter) {
    output.append(UInt8(ascii: kind))
    if count < 10 {
      output.append(UInt8(ascii: "0") + UInt8(count))
    } else {
      output.append(String(count))
    }
    output.append("\r\n")
  }
}
