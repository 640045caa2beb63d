import Bytes
import Protobuf
import Reactor

@testable import GRPC
@testable import Settings

/// The input is a text, and each parser of texts gets it. What one takes says itself again in the form that it takes.
func fuzzTexts(_ input: UnsafeRawBufferPointer) {
  let text = String(decoding: input, as: UTF8.self)
  checkStatus(text, Array(input))
  checkTimeout(text)
  if let endpoint = HostPort(text) {
    require(HostPort(endpoint.description) == endpoint, "\(endpoint) is another address when read again")
  }
  _ = try? ValueType<String>.choice(["a", "bc"]).parse(text)
  _ = try? ValueType<Int>.int(-5...5000).parse(text)
  if let address = try? ValueType<HostPort>.hostPort.parse(text) {
    require(!address.host.isEmpty, "an address without a host")
  }
  if let pair = try? ValueType<KeyValue>.keyValue.parse(text) {
    require("\(pair.key)=\(pair.value)" == text, "a pair is not what was written")
  }
  if let size = try? ValueType<Int>.bytes.parse(text) { require(size >= 0, "a size below zero") }
  if let time = try? ValueType<Duration>.duration.parse(text) { require(time >= .zero, "a time below zero") }
  checkCommandLine(text)
}

private func checkStatus(_ text: String, _ bytes: [UInt8]) {
  let encoded = Status.percentEncoded(text)
  require(encoded.utf8.allSatisfy { (0x20...0x7E).contains($0) }, "an encoded message is not printable ASCII")
  require(Status.percentDecoded(encoded) == text, "an encoded message is decoded to another one")
  _ = Status.percentDecoded(text)
  let short = Status.percentEncoded(text, limit: 20)
  let start = Status.percentDecoded(short).unicodeScalars
  require(short.utf8.count <= 20 && text.unicodeScalars.starts(with: start), "a message isn't cut where its limit is")

  let base64 = Base64.encode(bytes)
  require((try? Base64.decode(base64))?.array == bytes, "base64 is decoded to other bytes")
  require(
    (try? Base64.decode(Base64.unpadded(Bytes(bytes))))?.array == bytes, "unpadded base64 is decoded to other bytes")
  _ = try? Base64.decode(text)

  var trailers: Metadata = ["grpc-status": "14"]
  for name in ["grpc-message", "grpc-retry-pushback-ms", "grpc-status-details-bin"] { trailers.append(name, text) }
  if let status = Status(trailers: trailers) {
    // What another side sent can be passed on.
    require(!status.trailerFields().isEmpty, "a status without trailers")
  }
  _ = Status(trailers: ["grpc-status": text])
}

private func checkTimeout(_ text: String) {
  guard let timeout = Timeouts.decode(text) else { return }
  require(timeout >= .zero && timeout.nanoseconds >= 0, "a timeout below zero")
  let again = Timeouts.decode(Timeouts.encode(timeout))
  // 99999999S stands for all that is longer.
  require(again != nil && again! >= min(timeout, .seconds(99_999_999)), "\(timeout) is shorter when sent on")
}

private func checkCommandLine(_ text: String) {
  var options = Options("fuzz", about: "Takes what comes.")
  let wait = options.value("wait", .duration, default: "3s", help: "How long.")
  let tags = options.list("tag", .keyValue, help: "Tags.")
  let limit = options.optional("limit", .int(1...10), help: "How many.")
  let isLoud = options.toggle("loud", help: "Says more.")
  let rest = options.arguments("WORD", .text, isRequired: false, help: "Words.")
  let words = text.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
  do {
    let parsed = try options.parse(words, environment: ["FLEETPUSH_WAIT": text])
    _ = (parsed[wait], parsed[tags], parsed[isLoud], parsed[rest])
    if let limit = parsed[limit] { require((1...10).contains(limit), "\(limit) is out of its range") }
  } catch {
    require(!error.text.isEmpty, "a refusal without a sentence")
  }
}
