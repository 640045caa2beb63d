internal import Reactor

/// Visits everything of a list, a slice of it per turn of the loop, so that many don't keep the loop from everything else.
///
/// A pass that is asked for while one runs follows it: so each visit finds all that came meanwhile. Belongs to its loop.
final class SlicedPass<Element> {
  private let loop: EventLoop
  private let slice: Int
  private let list: () -> [Element]
  private let visit: (Element) -> Void
  private var rest: ArraySlice<Element> = []
  private var isDue = false
  private var isRunning = false

  /// - Parameter list: asked when a pass begins.
  init(loop: EventLoop, slice: Int, over list: @escaping () -> [Element], visit: @escaping (Element) -> Void) {
    self.loop = loop
    self.slice = slice
    self.list = list
    self.visit = visit
  }

  func run() {
    isDue = true
    guard !isRunning else { return }
    isRunning = true
    turn()
  }

  private func turn() {
    if rest.isEmpty {
      isDue = false
      rest = list()[...]
    }
    for element in rest.prefix(slice) { visit(element) }
    rest = rest.dropFirst(slice)
    isRunning = !rest.isEmpty || isDue
    if isRunning { loop.schedule(after: .zero) { [weak self] in self?.turn() } }
  }
}
