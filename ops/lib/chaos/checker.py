"""Compares what was accepted with what the endpoints were handed over."""

import json
import os
from dataclasses import dataclass, field

from .publisher import parsed

# A message that was handed over so shortly before its endpoint was killed may not have been written down: it comes again.
UNWRITTEN_MS = 5000


@dataclass
class Findings:
    delivered: int = 0
    lost: list = field(default_factory=list)
    twice: list = field(default_factory=list)
    disordered: list = field(default_factory=list)
    corrupt: list = field(default_factory=list)
    after_crash: list = field(default_factory=list)  # Handed over again after the endpoint's own crash, marked.
    given_up_delivered: int = 0


def check(hosts, accepted, given_up):
    """`accepted` and `given_up` hold the numbers of each client, in the order in which they were settled."""
    findings = Findings()
    for host in hosts:
        seen = {client: [] for client in host.clients}
        for start in range(1, host.starts + 1):
            read(host, start, seen, findings)
        for client, sightings in seen.items():
            check_client(client, sightings, accepted[client], given_up[client], host, findings)
    return findings


@dataclass
class Sighting:
    number: int
    start: int
    at: int
    redelivered: bool


def read(host, start, seen, findings):
    path = host.arrivals(start)
    if not os.path.exists(path):
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                client, at, text = line.split(" ", 2)
                arrival = json.loads(text)
                if arrival["kind"] != "text":
                    continue
                said = parsed(arrival["content"])
            except (ValueError, KeyError):
                said = None
            if said is None or said[0] != client or client not in seen:
                findings.corrupt.append(f"{path}: {line.strip()[:200]}")
                continue
            seen[client].append(Sighting(said[1], start, int(at), arrival.get("redelivered", False)))


def check_client(client, sightings, accepted, given_up, host, findings):
    first, order = {}, []
    known = set(accepted)
    unknown = set(given_up)
    for sighting in sightings:
        number = sighting.number
        if number not in known and number not in unknown:
            findings.corrupt.append(f"{client}: number {number} was never sent")
        elif number not in first:
            first[number] = sighting
            order.append(number)
        else:
            repeated(client, first[number], sighting, host, findings)
            first[number] = sighting
    findings.delivered += sum(number in known for number in order)
    findings.given_up_delivered += sum(number in unknown for number in order)
    findings.lost += [f"{client} {number}" for number in accepted if number not in first]
    # Numbers of one client are accepted in rising order, one after the other.
    highest = -1
    for number in order:
        if number in known:
            if number < highest:
                findings.disordered.append(f"{client} {number} after {highest}")
            highest = max(highest, number)


def repeated(client, before, again, host, findings):
    """An endpoint that was killed between handing over and writing down hands over again, and says so."""
    what = f"{client} {again.number}, starts {before.start} and {again.start} of {host.name}, {again.at - before.at} ms later"
    died = host.killed.get(before.start)
    is_own = again.start > before.start and died is not None and died - before.at < UNWRITTEN_MS
    if is_own and again.redelivered:
        findings.after_crash.append(what)
    elif is_own:
        findings.twice.append(what + ", after its own crash but not marked")
    else:
        findings.twice.append(what)
