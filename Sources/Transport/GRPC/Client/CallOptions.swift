/// What one call may differ in.
public struct CallOptions: Sendable {
  /// The whole call ends with DEADLINE_EXCEEDED after this time; nil: never.
  public var timeout: Duration?
  public var metadata = Metadata()
  /// The largest response message; a larger one ends the call with RESOURCE_EXHAUSTED.
  public var maxResponseBytes = 4 << 20

  public init(timeout: Duration? = nil, metadata: Metadata = Metadata(), maxResponseBytes: Int = 4 << 20) {
    self.timeout = timeout
    self.metadata = metadata
    self.maxResponseBytes = maxResponseBytes
  }
}
