internal import CMicrohttpd
internal import Telemetry

/// What the admin port shows; used on its thread only.
final class AdminPages: Sendable {
  struct Page {
    var status: UInt32
    var type = "text/plain; charset=utf-8"
    var body: String
  }

  private let metrics: MetricsRegistry
  private let readiness: @Sendable () -> String?

  init(metrics: MetricsRegistry, readiness: @escaping @Sendable () -> String?) {
    self.metrics = metrics
    self.readiness = readiness
  }

  func page(_ path: String) -> Page {
    switch path {
    case "/healthz": Page(status: 200, body: "ok\n")
    case "/readyz":
      if let reason = readiness() {
        Page(status: 503, body: "not ready: \(reason)\n")
      } else {
        Page(status: 200, body: "ready\n")
      }
    case "/metrics": Page(status: 200, type: "text/plain; version=0.0.4; charset=utf-8", body: metrics.render())
    default: Page(status: 404, body: "not found: there are /healthz, /readyz and /metrics\n")
    }
  }
}

/// libmicrohttpd's `MHD_AccessHandlerCallback`, on the daemon's thread.
///
/// It is called first when the headers are there, with `*request` NULL, and again when the body is there (here: none). A
/// response that is queued in the first call makes the library drop the body and close the connection, which suits a
/// refusal; an ordinary answer waits for the second call, so that the connection stays open.
func answerRequest(
  context: UnsafeMutableRawPointer?, connection: OpaquePointer?, url: UnsafePointer<CChar>?,
  method: UnsafePointer<CChar>?, version: UnsafePointer<CChar>?, body: UnsafePointer<CChar>?,
  bodySize: UnsafeMutablePointer<Int>?, request: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> MHD_Result {
  guard let context, let connection, let url, let method, let request else { return .NO }
  let isFirstCall = request.pointee == nil
  request.pointee = UnsafeMutableRawPointer(bitPattern: 1)  // any mark: the headers have been seen
  guard ["GET", "HEAD"].contains(String(cString: method)) else {
    return queue(AdminPages.Page(status: 405, body: "only GET and HEAD are allowed\n"), on: connection)
  }
  if isFirstCall {
    guard hasBody(connection) else { return .YES }
    return queue(AdminPages.Page(status: 413, body: "a body is not allowed\n"), on: connection)
  }
  let pages = Unmanaged<AdminPages>.fromOpaque(context).takeUnretainedValue()
  return queue(pages.page(String(cString: url)), on: connection)
}

private func hasBody(_ connection: OpaquePointer) -> Bool {
  if MHD_lookup_connection_value(connection, .HEADER_KIND, "Transfer-Encoding") != nil { return true }
  guard let length = MHD_lookup_connection_value(connection, .HEADER_KIND, "Content-Length") else { return false }
  return String(cString: length) != "0"
}

/// The library copies the body (`MUST_COPY`), leaves it out for HEAD, and keeps the response until it is sent.
private func queue(_ page: AdminPages.Page, on connection: OpaquePointer) -> MHD_Result {
  var body = page.body
  let created = body.withUTF8 { utf8 in
    MHD_create_response_from_buffer(
      utf8.count, UnsafeMutableRawPointer(mutating: utf8.baseAddress), .RESPMEM_MUST_COPY)
  }
  guard let response = created else { return .NO }
  defer { MHD_destroy_response(response) }
  MHD_add_response_header(response, "Content-Type", page.type)
  MHD_add_response_header(response, "Cache-Control", "no-store")
  if page.status == 405 { MHD_add_response_header(response, "Allow", "GET, HEAD") }
  return MHD_queue_response(connection, page.status, response)
}
