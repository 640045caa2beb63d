/// A call that the loop makes once at its deadline, unless it is cancelled. Belongs to its loop.
public final class LoopTimer {
  let deadline: Int64
  let order: UInt64
  var position = -1
  var work: (() -> Void)?
  private unowned let heap: TimerHeap

  fileprivate init(deadline: Int64, order: UInt64, heap: TimerHeap, work: @escaping () -> Void) {
    self.deadline = deadline
    self.order = order
    self.heap = heap
    self.work = work
  }

  /// Takes the timer back; after the deadline it does nothing.
  public func cancel() {
    work = nil
    heap.remove(self)
  }

  fileprivate static func < (a: LoopTimer, b: LoopTimer) -> Bool {
    a.deadline != b.deadline ? a.deadline < b.deadline : a.order < b.order
  }
}

/// A binary heap of timers that know their position, so that cancelling one takes it out at once.
final class TimerHeap {
  private var timers: [LoopTimer] = []
  private var nextOrder: UInt64 = 0

  var earliest: Int64? { timers.first?.deadline }

  func add(deadline: Int64, _ work: @escaping () -> Void) -> LoopTimer {
    nextOrder += 1
    let timer = LoopTimer(deadline: deadline, order: nextOrder, heap: self, work: work)
    timers.append(timer)
    timer.position = timers.count - 1
    siftUp(timers.count - 1)
    return timer
  }

  /// Takes out the first timer whose deadline has come.
  func popExpired(at now: Int64) -> (() -> Void)? {
    guard let first = timers.first, first.deadline <= now else { return nil }
    remove(first)
    let work = first.work
    first.work = nil
    return work
  }

  fileprivate func remove(_ timer: LoopTimer) {
    let position = timer.position
    guard position >= 0 else { return }
    timer.position = -1
    let last = timers.removeLast()
    guard last !== timer else { return }
    timers[position] = last
    last.position = position
    siftUp(position)
    siftDown(last.position)
  }

  private func siftUp(_ start: Int) {
    var child = start
    while child > 0 {
      let parent = (child - 1) / 2
      guard timers[child] < timers[parent] else { return }
      swap(child, parent)
      child = parent
    }
  }

  private func siftDown(_ start: Int) {
    var parent = start
    while true {
      var smallest = parent
      for child in [2 * parent + 1, 2 * parent + 2] where child < timers.count && timers[child] < timers[smallest] {
        smallest = child
      }
      guard smallest != parent else { return }
      swap(parent, smallest)
      parent = smallest
    }
  }

  private func swap(_ a: Int, _ b: Int) {
    timers.swapAt(a, b)
    timers[a].position = a
    timers[b].position = b
  }
}
