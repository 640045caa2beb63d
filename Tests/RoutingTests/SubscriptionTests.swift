import Bytes
import Testing

@testable import Routing

/// The join of history and live feed against a model of the store: whatever is published, trimmed and lost meanwhile, a
/// subscriber has every frame once, in the promised order, or is told.
@Suite struct SubscriptionTests {
  struct Generator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var z = state
      z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
      z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
      return z ^ (z >> 31)
    }
  }

  /// The store as `ChannelScripts` keeps it.
  struct Model {
    var epoch = "1"
    var newest: Int64 = 0
    var clock: Int64 = 0
    var trimmed: Int64 = 0
    var floor: FrameKey?
    /// By arrival.
    var frames: [StoredFrame] = []

    var head: ChannelHead {
      var head = ChannelHead(epoch: epoch, newest: newest)
      (head.trimmed, head.floor) = (trimmed, floor)
      return head
    }

    mutating func publish(_ key: FrameKey, seen: Int64, gap: Int64) -> StoredPlace {
      see(seen)
      let previous = newest
      // The clock of the store gives no number twice, whatever the store has lost.
      clock = max(clock, seen) + gap
      newest = clock
      frames.append(StoredFrame(key: key, ordinal: newest, previous: previous, frame: Bytes(key.id)))
      return StoredPlace(epoch: epoch, ordinal: newest, previous: previous, key: key)
    }

    mutating func see(_ seen: Int64) { if newest < seen { epoch += "'" } }

    mutating func trimOne() {
      guard !frames.isEmpty else { return }
      let gone = frames.removeFirst()
      trimmed = gone.ordinal
      floor = max(floor ?? gone.key, gone.key)
    }

    mutating func loseNewest() {
      guard !frames.isEmpty else { return }
      frames.removeLast()
      newest = frames.last?.ordinal ?? trimmed
    }

    mutating func page(from start: Channels.Start, seen: Int64, limit: Int) -> ChannelPage {
      see(seen)
      let sorted = frames.sorted { $0.key < $1.key }.filter {
        switch start {
        case .seqNo(let seqNo): $0.key.seqNo >= seqNo
        case .after(let key): $0.key > key
        }
      }
      return ChannelPage(head: head, isComplete: sorted.count <= limit, frames: Array(sorted.prefix(limit)))
    }

    mutating func page(after ordinal: Int64, seen: Int64, limit: Int) -> ChannelPage {
      see(seen)
      let rest = frames.filter { $0.ordinal > ordinal }
      return ChannelPage(head: head, isComplete: rest.count <= limit, frames: Array(rest.prefix(limit)))
    }
  }

  struct Subscriber {
    var machine: Subscription
    let start: Int64
    var got: [Subscription.Output] = []
    /// What is to come, from the moment of the first page on.
    var expected: [StoredFrame]?
    var replayedCount = 0
    var broken: ChannelBreak?
    var pages = 0

    /// Grows with everything that happens to it.
    var progress: Int { pages + got.count + Int(machine.position) + (broken == nil ? 0 : 1) }
  }

  /// One gateway with its subscribers, on a model.
  struct Scene {
    var random: Generator
    var model = Model()
    var tail: ChannelTail
    var subscribers: [Subscriber] = []
    var hints: [(StoredPlace, Bytes)] = []
    var names = 0
    var now: Int64 = 0
    /// What can break a subscription has happened.
    var hasTrimmed = false
    var hasLost = false

    init(seed: UInt64) {
      random = Generator(state: seed)
      tail = ChannelTail(head: model.head, maximumBytes: 8)
    }

    mutating func step() {
      now += 1_000_000
      switch Int.random(in: 0..<100, using: &random) {
      case 0..<40: publish()
      case 40..<60: hint()
      case 60..<68: subscribe()
      case 68..<70:
        model.trimOne()
        hasTrimmed = true
      case 70: if Int.random(in: 0..<3, using: &random) == 0 { lose() }
      case 71..<80: look()
      default: for index in subscribers.indices where Bool.random(using: &random) { serve(index) }
      }
    }

    mutating func publish() {
      names += 1
      let key = FrameKey(
        seqNo: .random(in: -3...6, using: &random), timestamp: .random(in: 0...2, using: &random), id: "f\(names)")
      // Another gateway may publish, which has seen less.
      let seen = Bool.random(using: &random) ? tail.newest : 0
      let place = model.publish(key, seen: seen, gap: .random(in: 1...3, using: &random))
      guard let stored = model.frames.last else { return }
      for index in subscribers.indices
      where subscribers[index].broken == nil && stored.key.seqNo >= subscribers[index].start {
        subscribers[index].expected?.append(stored)
      }
      // The record in Kafka may be lost.
      if Int.random(in: 0..<5, using: &random) > 0 { hints.append((place, stored.frame)) }
    }

    mutating func hint() {
      // They come out of order, and twice.
      guard let (place, frame) = hints.randomElement(using: &random) else { return }
      if Bool.random(using: &random) { hints.removeAll { $0.0 == place } }
      take(tail.hinted(place, frame))
    }

    mutating func lose() {
      guard let gone = model.frames.last else { return }
      model.loseNewest()
      hasLost = true
      // Nobody had it: nobody can miss it, nor know of it.
      guard gone.ordinal > tail.newest else { return }
      for index in subscribers.indices where subscribers[index].machine.position < gone.ordinal {
        subscribers[index].expected?.removeAll { $0.ordinal == gone.ordinal }
      }
    }

    mutating func look() {
      model.see(tail.newest)
      take(tail.saw(model.head))
    }

    mutating func take(_ verdict: ChannelTail.Verdict) {
      switch verdict {
      case .appended, .known: break
      case .look: look()
      case .read: take(tail.read(model.page(after: tail.newest, seen: tail.newest, limit: 3)))
      case .broken(let reason):
        for index in subscribers.indices { end(index, reason) }
        tail = ChannelTail(head: model.head, maximumBytes: 8)
      }
    }

    mutating func end(_ index: Int, _ reason: ChannelBreak) {
      if subscribers[index].broken == nil { subscribers[index].broken = reason }
    }

    mutating func subscribe() {
      let start = Int64.random(in: -4...7, using: &random)
      subscribers.append(Subscriber(machine: Subscription(start: start), start: start))
    }

    mutating func serve(_ index: Int) {
      guard subscribers[index].broken == nil else { return }
      if subscribers[index].machine.phase == .replaying { return replay(index) }
      var frames = tail.frames(after: subscribers[index].machine.position)
      if frames == nil {
        let page = model.page(after: subscribers[index].machine.position, seen: tail.newest, limit: 2)
        if let reason = subscribers[index].machine.misses(page) { return end(index, reason) }
        frames = page.frames[...]
      }
      for frame in frames ?? [] {
        switch subscribers[index].machine.arrived(frame, now: now) {
        case .success(let outputs): subscribers[index].got += outputs
        case .failure(let broken): return end(index, broken.reason)
        }
      }
    }

    mutating func replay(_ index: Int) {
      let isFirst = subscribers[index].machine.certificate == nil
      let page = model.page(
        from: subscribers[index].machine.nextPage, seen: max(tail.newest, subscribers[index].machine.position), limit: 2
      )
      if isFirst {
        let start = subscribers[index].start
        subscribers[index].expected = model.frames.filter { $0.key.seqNo >= start }
      }
      subscribers[index].pages += 1
      switch subscribers[index].machine.replayed(page) {
      case .success(let outputs):
        subscribers[index].got += outputs
        subscribers[index].replayedCount += outputs.count
      case .failure(let broken): end(index, broken.reason)
      }
      take(tail.saw(page.head))
    }

    /// Everything is delivered that can be.
    mutating func settle() {
      look()
      var before = -1
      while before != subscribers.reduce(0, { $0 + $1.progress }) {
        before = subscribers.reduce(0) { $0 + $1.progress }
        for index in subscribers.indices { serve(index) }
      }
    }
  }

  static func check(_ subscriber: Subscriber, _ scene: Scene, seed: UInt64) {
    let got = subscriber.got.map(\.frame)
    #expect(Set(got.map(\.ordinal)).count == got.count, "seed \(seed): a frame came twice")
    #expect(got.allSatisfy { $0.key.seqNo >= subscriber.start }, "seed \(seed): below the start")
    let replayed = got.prefix(subscriber.replayedCount).map(\.key)
    #expect(replayed == replayed.sorted(), "seed \(seed): the replay is out of order")
    let live = got.dropFirst(subscriber.replayedCount).map(\.ordinal)
    #expect(Array(live) == live.sorted(), "seed \(seed): live frames are out of order")
    var highest: FrameKey?
    for output in subscriber.got {
      #expect(output.isLate == (highest.map { output.frame.key < $0 } ?? false), "seed \(seed): late, or not")
      if !output.isLate { highest = output.frame.key }
    }
    if let reason = subscriber.broken {
      #expect(reason == .truncated ? scene.hasTrimmed : scene.hasLost, "seed \(seed): \(reason) without a cause")
    } else if let expected = subscriber.expected {
      // Up to the floor of its certificate frames may be missing: the subscriber knows.
      let floor = subscriber.machine.certificate.flatMap { $0.isTruncated ? $0.head.floor : nil }
      let missing = Set(expected).subtracting(got).filter { frame in floor.map { frame.key > $0 } ?? true }
      #expect(
        missing.isEmpty && Set(got).isSubset(of: expected),
        """
        seed \(seed): missing \(missing.map { ($0.key.seqNo, $0.ordinal) }), too many \(Set(got).subtracting(expected).count), \
        at \(subscriber.machine.position), \(String(describing: subscriber.machine.certificate))
        """)
    }
  }

  @Test func everySubscriberHasEveryFrameOnceOrIsTold() {
    var broken = 0
    var whole = 0
    for seed in UInt64(1)...2000 {
      var scene = Scene(seed: seed)
      for _ in 0..<120 { scene.step() }
      scene.settle()
      for subscriber in scene.subscribers {
        Self.check(subscriber, scene, seed: seed)
        if subscriber.broken == nil { whole += 1 } else { broken += 1 }
      }
    }
    // Both ends are tried, and often.
    #expect(whole > 4000 && broken > 1000, "\(whole) whole, \(broken) told")
  }

  static func outputs(_ result: Result<[Subscription.Output], Subscription.Broken>) -> [Subscription.Output] {
    (try? result.get()) ?? []
  }

  @Test func aReorderWindowPutsInOrderWhatComesWithinIt() {
    func frame(_ seqNo: Int64, _ ordinal: Int64) -> StoredFrame {
      StoredFrame(
        key: FrameKey(seqNo: seqNo, timestamp: 0, id: "f\(ordinal)"), ordinal: ordinal, previous: ordinal - 1,
        frame: Bytes())
    }
    var machine = Subscription(start: 0, reorderWindow: .milliseconds(200))
    _ = machine.replayed(ChannelPage(head: ChannelHead(epoch: "1", newest: 0), isComplete: true, frames: []))
    let millisecond: Int64 = 1_000_000
    #expect(Self.outputs(machine.arrived(frame(3, 1), now: 0)).isEmpty && machine.deadline == 200 * millisecond)
    #expect(Self.outputs(machine.arrived(frame(1, 2), now: 50 * millisecond)).isEmpty)
    #expect(Self.outputs(machine.arrived(frame(5, 3), now: 100 * millisecond)).isEmpty)
    #expect(machine.timePassed(now: 199 * millisecond).isEmpty)
    let first = machine.timePassed(now: 200 * millisecond)
    #expect(first.map(\.frame.key.seqNo) == [1, 3] && first.allSatisfy { !$0.isLate })
    #expect(machine.deadline == 300 * millisecond)
    let late = Self.outputs(machine.arrived(frame(2, 4), now: 210 * millisecond))
    #expect(late.map(\.frame.key.seqNo) == [2] && late.allSatisfy(\.isLate))
    #expect(Self.outputs(machine.arrived(frame(4, 5), now: 210 * millisecond)).isEmpty)
    #expect(machine.timePassed(now: 300 * millisecond).map(\.frame.key.seqNo) == [4, 5])
    #expect(machine.deadline == nil)
  }
}
