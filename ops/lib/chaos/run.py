"""One run: brings everything up, breaks it, lets it settle, checks, and prints the tables."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections import Counter

import grpc

from . import checker, faults
from .members import Broker, Gateway, Host, Redis, until
from .publisher import Publisher
from .wires import Wires

GATEWAYS = 3
SETTLED_SECONDS = 60
STABLE_SECONDS = 5  # A connection that stands so long, at a gateway and a Redis that do, has to be in the registry.
PROMISED_SHARE = 0.95
MINIMUM = 50  # Faults of each kind with an effect, in a run of 500 faults and more.
LONG_RUN = 500


class Cluster:
    def __init__(self, folder, options):
        # Copies, so that a build beside the run doesn't change what is started again.
        binaries = os.path.join(folder, "bin")
        os.makedirs(binaries)
        for name in ("gateway", "bench", "devbroker"):
            shutil.copy(os.path.join(options.binaries, name), binaries)
        environment = {"FLEETPUSH_WITHOUT": options.without} if options.without else {}
        for name in ("logs", "store"):
            os.makedirs(os.path.join(folder, name))
        self.folder, self.options, self.environment, self.binaries = folder, options, environment, binaries
        self.clients = [f"c-{number:03}" for number in range(options.clients)]
        self.redis = Redis(folder)
        self.broker = Broker(folder, binaries)
        self.gateways = [
            Gateway(number, folder, binaries, self.redis.address, self.broker.address, environment)
            for number in range(1, GATEWAYS + 1)]
        self.hosts = []

    async def up(self, wires):
        self.redis.start()
        self.broker.start()
        if not (await self.redis.ready() and await self.broker.ready()):
            raise RuntimeError("Redis or the broker does not start")
        for gateway in self.gateways:
            gateway.start()
        if not all([await gateway.ready() for gateway in self.gateways]):
            raise RuntimeError("a gateway does not start")
        addresses = await wires.listen(self.clients)
        size = -(-len(self.clients) // self.options.hosts)
        for number in range(self.options.hosts):
            members = self.clients[number * size:(number + 1) * size]
            self.hosts.append(Host(number + 1, self.folder, self.binaries, members, addresses, self.environment))
            self.hosts[-1].start()
        if not await until(lambda: all(wires.live(client) for client in self.clients), 60):
            raise RuntimeError("not every endpoint connects")

    async def down(self):
        for layer in [self.hosts, self.gateways, [self.broker, self.redis]]:
            for member in layer:
                member.send(signal.SIGCONT)
            await asyncio.gather(*(member.end(signal.SIGTERM) for member in layer))


class RegistryWatch:
    """Compares the directory of clients with where they really are, again and again."""

    def __init__(self, cluster, wires, publisher, injected, note):
        self.cluster, self.wires, self.publisher, self.injected, self.note = cluster, wires, publisher, injected, note
        self.suspects, self.wrong = {}, {}
        self.looks = 0

    async def run(self):
        while True:
            await asyncio.sleep(1)
            await self.look(STABLE_SECONDS)

    async def look(self, stable):
        calm = time.monotonic() - stable
        usable = [index for index, gateway in enumerate(self.cluster.gateways) if gateway.touched < calm]
        if not usable or self.injected.redis_touched > calm:
            return False
        try:
            listed = await self.publisher.clients(usable[self.looks % len(usable)])
        except grpc.aio.AioRpcError:
            return False
        if self.injected.redis_touched > calm:
            return False
        self.looks += 1
        found = {}
        for client in self.cluster.clients:
            wire = self.wires.live(client)
            if wire is None or wire.opened > calm or wire.is_dead or wire.gateway not in usable:
                continue
            row = listed.get(client)
            here = self.cluster.gateways[wire.gateway].name
            if row is None or not row.online or row.node_id != here:
                found[wire] = f"{client} is at {here}, listed " + (
                    "nowhere" if row is None else f"{'online' if row.online else 'away'} at {row.node_id or 'none'}")
        # Twice in a row: what changes while it is being read isn't wrong.
        for wire in found.keys() & self.suspects.keys():
            if wire not in self.wrong:
                self.wrong[wire] = found[wire]
                self.note("registry wrong: " + found[wire])
        self.suspects = found
        return True


async def run(options):
    """Gives the exit code."""
    began = time.monotonic()
    shutil.rmtree(options.dir, ignore_errors=True)
    os.makedirs(options.dir)
    events = open(os.path.join(options.dir, "events.log"), "w", encoding="utf-8")  # noqa: SIM115

    def note(line):
        events.write(f"{time.time():.3f} {time.monotonic() - began:8.2f} {line}\n")
        events.flush()
        if options.verbose:
            print(f"{time.monotonic() - began:8.2f} {line}", flush=True)

    cluster = Cluster(options.dir, options)
    wires = Wires([gateway.listen for gateway in cluster.gateways])
    publisher = Publisher(
        wires.gateways, cluster.clients, options.rate, options.seed, os.path.join(options.dir, "published.log"))
    injected = faults.Faults(faults.schedule(options.seed, options.seconds), cluster, wires, note)
    registry = RegistryWatch(cluster, wires, publisher, injected, note)
    try:
        await cluster.up(wires)
        note("up")
        watching = asyncio.ensure_future(registry.run())
        await asyncio.gather(publisher.run(options.seconds), injected.run())
        watching.cancel()
        note("no more faults")
        result = await settle(options, cluster, wires, publisher, registry, note)
    finally:
        await cluster.down()
        wires.close()
        await publisher.close()
    findings = checker.check(cluster.hosts, publisher.accepted, publisher.given_up)
    return report(options, injected, publisher, registry, findings, result)


async def settle(options, cluster, wires, publisher, registry, note):
    """Waits without faults until everything is delivered, acknowledged and where the registry says."""
    began = time.monotonic()
    opened = wires.opened
    left = [(client, number) for client, numbers in publisher.accepted.items() for number in numbers]
    limit = began + (options.settle or SETTLED_SECONDS)
    while True:
        left = await publisher.unacknowledged(left)
        left = [(client, number) for client, number, _ in left]
        if not left or time.monotonic() > limit:
            break
        await asyncio.sleep(0.5)
    acknowledged = time.monotonic() - began
    # Two looks, apart.
    while time.monotonic() < limit + 10 and not (await registry.look(STABLE_SECONDS) and registry.looks >= 2):
        await asyncio.sleep(0.5)
    away = [client for client in cluster.clients if wires.live(client) is None]
    await asyncio.sleep(1)
    await registry.look(STABLE_SECONDS)
    note(f"settled after {acknowledged:.1f} s, {len(left)} not acknowledged, {len(away)} endpoints away")
    return {"unacknowledged": left, "seconds": acknowledged, "away": away, "reconnects": wires.opened - opened}


def report(options, injected, publisher, registry, findings, result):
    done = [fault for fault in injected.done if fault.what]
    total = Counter(fault.kind for fault in done)
    effective = Counter(fault.kind for fault in done if fault.effect)
    required = MINIMUM if len(done) >= LONG_RUN else max(1, int(options.seconds / 25))
    accepted = sum(map(len, publisher.accepted.values()))
    sent = accepted + sum(map(len, publisher.given_up.values()))
    share = accepted / sent if sent else 0
    print(f"\nseed {options.seed}, {options.seconds} s, {len(publisher.accepted)} endpoints, {options.configuration} build"
          + (f", without {options.without}" if options.without else ""))
    print(f"\n{'fault':<18} {'injected':>8} {'with effect':>12}   needs {required}")
    for kind in faults.KINDS:
        print(f"{kind:<18} {total[kind]:>8} {effective[kind]:>12}" + ("" if effective[kind] >= required else "   TOO FEW"))
    print(f"{'together':<18} {len(done):>8} {sum(effective.values()):>12}\n")
    rows = [
        ("published", sent, None), ("accepted", accepted, None), ("delivered", findings.delivered, None),
        ("lost", len(findings.lost), 0), ("seen twice by the application", len(findings.twice), 0),
        ("out of order", len(findings.disordered), 0), ("corrupt", len(findings.corrupt), 0),
        ("registry wrong", len(registry.wrong), 0), ("not acknowledged at the end", len(result["unacknowledged"]), 0),
        ("endpoints away at the end", len(result["away"]), 0),
        ("handed over again after the endpoint's own crash, marked", len(findings.after_crash), None),
        ("given up by the publisher, delivered all the same", findings.given_up_delivered, None)]
    for name, count, wanted in rows:
        print(f"{name:<58} {count:>8}" + ("" if wanted is None or count == wanted else "   FAILED"))
    print(f"\naccepted {share:.2%} of what was published, {publisher.attempts} attempts; all acknowledged "
          f"{result['seconds']:.1f} s after the last fault, {result['reconnects']} connections made meanwhile; "
          f"{registry.looks} looks at the registry")
    examples = {"lost": findings.lost, "twice": findings.twice, "out of order": findings.disordered,
                "corrupt": findings.corrupt, "registry wrong": list(registry.wrong.values()),
                "not acknowledged": result["unacknowledged"], "away": result["away"]}
    for name, found in examples.items():
        for example in found[:5]:
            print(f"  {name}: {example}")
    good = (share >= PROMISED_SHARE and all(count == wanted for _, count, wanted in rows if wanted is not None)
            and all(effective[kind] >= required for kind in faults.KINDS) and accepted > 0)
    with open(os.path.join(options.dir, "result.json"), "w", encoding="utf-8") as file:
        json.dump({"good": good, "share": share, "injected": total, "effective": effective, "required": required,
                   "counts": {name: count for name, count, _ in rows}, "found": examples,
                   "faults": [[fault.injected, fault.kind, fault.what, fault.effect] for fault in done]}, file, indent=1)
    print(f"{'everything holds' if good else 'FAILED'}; logs and figures stand in {options.dir}")
    return 0 if good else 1
