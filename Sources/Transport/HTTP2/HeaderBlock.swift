internal import CNghttp2

/// Header fields in the form that nghttp2 takes, made once from literals: what every message of a kind begins with.
///
/// `@unchecked Sendable`: the fields point at literals and are never written after `init`.
public final class HeaderBlock: @unchecked Sendable {
  private let fields: UnsafeMutableBufferPointer<nghttp2_nv>

  public init(_ pairs: [(StaticString, StaticString)]) {
    fields = .allocate(capacity: pairs.count)
    // Literals live as long as the process, so nghttp2 needs no copy of them.
    let flags = UInt8(NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue | NGHTTP2_NV_FLAG_NO_COPY_VALUE.rawValue)
    for (index, (name, value)) in pairs.enumerated() {
      fields.initializeElement(
        at: index,
        to: nghttp2_nv(
          name: UnsafeMutablePointer(mutating: name.utf8Start), value: UnsafeMutablePointer(mutating: value.utf8Start),
          namelen: name.utf8CodeUnitCount, valuelen: value.utf8CodeUnitCount, flags: flags))
    }
  }

  deinit { fields.deallocate() }

  /// Lends the fields followed by `more`, whose strings are copied into a buffer for the call.
  func withFields<R>(
    and more: [HeaderField], _ body: (UnsafePointer<nghttp2_nv>?, Int) -> R
  ) -> R {
    if more.isEmpty { return body(fields.baseAddress, fields.count) }
    let length = more.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count }
    return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: max(length, 1)) { text in
      withUnsafeTemporaryAllocation(of: nghttp2_nv.self, capacity: fields.count + more.count) { all in
        _ = all.initialize(from: fields)
        var next = text.baseAddress.unsafelyUnwrapped
        func copy(_ string: String) -> (UnsafeMutablePointer<UInt8>, Int) {
          var string = string
          let start = next
          let count = string.withUTF8 { utf8 in
            if let base = utf8.baseAddress { start.update(from: base, count: utf8.count) }
            return utf8.count
          }
          next += count
          return (start, count)
        }
        for (index, field) in more.enumerated() {
          let (name, nameLength) = copy(field.name)
          let (value, valueLength) = copy(field.value)
          all.initializeElement(
            at: fields.count + index,
            to: nghttp2_nv(
              name: name, value: value, namelen: nameLength, valuelen: valueLength,
              flags: UInt8(NGHTTP2_NV_FLAG_NONE.rawValue)))
        }
        return body(UnsafePointer(all.baseAddress), all.count)
      }
    }
  }
}
