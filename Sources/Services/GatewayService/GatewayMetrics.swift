internal import Routing
internal import Telemetry

/// What a gateway counts.
final class GatewayMetrics {
  struct Topic {
    let consumed: Counter
    let kept: Counter
    let filtered: Counter
  }

  let push: Topic
  let broadcast: Topic
  let malformed: Counter
  let delivered: Counter
  let missed: Counter
  let expired: Counter
  let forwarded: Counter
  let overflowed: Counter
  let dropped: Counter
  let droppedFanOuts: Counter
  let directSent: Counter
  let directReceived: Counter
  let clients: Gauge
  let streams: Gauge
  let registrations: Counter
  let admitted: Counter
  let refusedByRate: Counter
  let refusedByDrain: Counter
  let drained: Counter
  let watches: Gauge
  let replaced: Counter
  let silent: Counter
  let leaseLapses: Counter
  let offsetResets: Counter
  let droppedReports: Counter
  let redelivered: Counter
  let inboxRepairs: Counter
  let droppedSettlements: Counter
  let fleetLogRepairs: Counter
  let fleetLogGaps: Counter

  init(_ registry: MetricsRegistry) {
    func topic(_ name: String) -> Topic {
      Topic(
        consumed: registry.counter("fleetpush_records_consumed_total", "Records read from Kafka.", ["topic": name]),
        kept: registry.counter(
          "fleetpush_records_kept_total", "Records read that were for this node.", ["topic": name]),
        filtered: registry.counter(
          "fleetpush_records_filtered_total", "Records read that were for another node, and dropped.",
          ["topic": name]))
    }
    push = topic(Publisher.pushTopic)
    broadcast = topic(Publisher.broadcastTopic)
    malformed = registry.counter("fleetpush_records_malformed_total", "Records that could not be read.")
    delivered = registry.counter("fleetpush_messages_written_total", "Messages written to streams of clients.")
    missed = registry.counter("fleetpush_messages_missed_total", "Messages whose client was not here any more.")
    expired = registry.counter("fleetpush_messages_expired_total", "Messages that came after their time to live.")
    forwarded = registry.counter("fleetpush_messages_forwarded_total", "Messages passed on to another node.")
    overflowed = registry.counter(
      "fleetpush_streams_overflowed_total", "Streams closed because their client read too slowly.")
    dropped = registry.counter(
      "fleetpush_messages_dropped_total", "Best-effort messages dropped because their client read too slowly.")
    droppedFanOuts = registry.counter(
      "fleetpush_fanouts_dropped_total",
      "Best-effort messages to tags or to all that were dropped because too many waited.")
    directSent = registry.counter("fleetpush_direct_records_sent_total", "Records handed to other nodes by calls.")
    directReceived = registry.counter(
      "fleetpush_direct_records_received_total", "Records that other nodes handed over by calls.")
    clients = registry.gauge("fleetpush_clients", "Clients with a session on this node.")
    streams = registry.gauge("fleetpush_streams", "Streams of clients, registered or not.")
    registrations = registry.counter("fleetpush_registrations_total", "Sessions that began here.")
    admitted = registry.counter("fleetpush_registrations_admitted_total", "Registrations that were let in.")
    func refused(_ reason: String) -> Counter {
      registry.counter(
        "fleetpush_registrations_refused_total", "Registrations that were told when to come back.", ["reason": reason])
    }
    refusedByRate = refused("rate")
    refusedByDrain = refused("draining")
    drained = registry.counter("fleetpush_clients_drained_total", "Clients that a drain has sent elsewhere.")
    watches = registry.gauge("fleetpush_presence_watches", "Callers that watch clients come and go.")
    replaced = registry.counter("fleetpush_sessions_replaced_total", "Sessions ended because their client came again.")
    silent = registry.counter("fleetpush_streams_silent_total", "Streams closed because they were silent.")
    leaseLapses = registry.counter("fleetpush_lease_lapses_total", "Times that this node's lease had ended.")
    offsetResets = registry.counter("fleetpush_offset_resets_total", "Times that a partition's offset was gone.")
    droppedReports = registry.counter("fleetpush_reports_dropped_total", "Job reports given up for want of Redis.")
    redelivered = registry.counter(
      "fleetpush_messages_redelivered_total", "Messages that an earlier session had written already.")
    inboxRepairs = registry.counter(
      "fleetpush_inbox_repairs_total", "Sessions found behind their client's inbox by a look at it.")
    droppedSettlements = registry.counter(
      "fleetpush_acknowledgements_dropped_total", "Acknowledgements given up for want of Redis.")
    fleetLogRepairs = registry.counter(
      "fleetpush_fleet_log_repairs_total", "Times that a look at the fleet's log found more than hints had told.")
    fleetLogGaps = registry.counter(
      "fleetpush_fleet_log_gaps_total",
      "Clients told that messages of the fleet's log were removed before they had them.")
  }
}
