import Testing

@testable import Telemetry

@Suite struct MetricsTests {
  @Test func familiesAreRenderedOnceWithTheirSeries() {
    let metrics = MetricsRegistry()
    metrics.counter("pushes_total", "Pushes\nby kind.", ["kind": "text"]).increment(by: 2)
    metrics.gauge("streams", "Open streams.").set(-4)
    metrics.counter("pushes_total", "Pushes\nby kind.", ["kind": "a\"b\\c\nd"]).increment()
    metrics.gauge("load", "Load.") { 0.5 }
    #expect(
      metrics.render() == """
        # HELP pushes_total Pushes\\nby kind.
        # TYPE pushes_total counter
        pushes_total{kind="text"} 2
        pushes_total{kind="a\\"b\\\\c\\nd"} 1
        # HELP streams Open streams.
        # TYPE streams gauge
        streams -4
        # HELP load Load.
        # TYPE load gauge
        load 0.5

        """)
  }

  @Test func askingTwiceYieldsTheSameInstrument() {
    let metrics = MetricsRegistry()
    let first = metrics.counter("a_total", "A.", ["x": "1"])
    #expect(metrics.counter("a_total", "A.", ["x": "1"]) === first)
    #expect(metrics.counter("a_total", "A.", ["x": "2"]) !== first)
  }

  @Test func aHistogramCountsUpToEachBound() {
    let metrics = MetricsRegistry()
    let histogram = metrics.histogram("seconds", "Time.", ["m": "x"], bounds: [0.1, 1])
    for value in [0.05, 0.1, 0.5, 3] { histogram.observe(value) }
    histogram.observe(.milliseconds(250))
    #expect(
      metrics.render() == """
        # HELP seconds Time.
        # TYPE seconds histogram
        seconds_bucket{m="x",le="0.1"} 2
        seconds_bucket{m="x",le="1"} 4
        seconds_bucket{m="x",le="+Inf"} 5
        seconds_sum{m="x"} 3.9
        seconds_count{m="x"} 5

        """)
  }

  @Test(.timeLimit(.minutes(1))) func threadsLoseNoIncrement() async {
    let counter = Counter()
    let histogram = Histogram(bounds: [1])
    await withTaskGroup(of: Void.self) { group in
      for _ in 0..<4 {
        group.addTask {
          for _ in 0..<10_000 {
            counter.increment()
            histogram.observe(1)
          }
        }
      }
    }
    #expect(counter.value == 40_000)
    #expect(histogram.sum == 40_000)
    #expect(histogram.count == 40_000)
  }

  @Test func theProcessReportsItself() throws {
    let metrics = MetricsRegistry()
    metrics.addProcessMetrics()
    var values: [String: Double] = [:]
    for line in metrics.render().split(separator: "\n") where !line.hasPrefix("#") {
      let parts = line.split(separator: " ")
      values[String(parts[0])] = Double(parts[1])
    }
    let resident = try #require(values["process_resident_memory_bytes"])
    let peak = try #require(values["process_resident_memory_max_bytes"])
    #expect(resident > 1_000_000)
    #expect(peak >= resident * 0.9)
    #expect(try #require(values["process_open_fds"]) >= 3)
    #expect(try #require(values["process_cpu_seconds_total"]) > 0)
    let start = try #require(values["process_start_time_seconds"])
    let age = Double(WallTime.now().milliseconds) / 1000 - start
    #expect(age > -2 && age < 3600)
  }
}
