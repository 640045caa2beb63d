/// A message field that lives in memory of its own: for messages that contain themselves, and for large ones that are
/// rarely there and would make every copy of the outer message dear.
@propertyWrapper
public struct Boxed<M: Message>: Sendable, Equatable {
  @usableFromInline
  final class Storage: Sendable {
    @usableFromInline let value: M

    @usableFromInline
    init(_ value: M) { self.value = value }
  }

  @usableFromInline var storage: Storage?

  @inlinable
  public init(wrappedValue: M?) {
    storage = wrappedValue.map { Storage($0) }
  }

  @inlinable
  public var wrappedValue: M? {
    get { storage?.value }
    set { storage = newValue.map { Storage($0) } }
  }

  public static func == (a: Boxed, b: Boxed) -> Bool {
    a.storage === b.storage || a.wrappedValue == b.wrappedValue
  }
}
