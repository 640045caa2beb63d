"""The faults: a schedule drawn from the seed, how each is done, and how its effect is seen."""

import asyncio
import random
import signal
import time
from dataclasses import dataclass

from .members import until

# Faults of a lane come one after the other; lanes overlap. Seconds from one fault of a lane to the next, and its kinds.
LANES = {
    "gateways": (6.8, ["gateway killed", "gateway stopped"]),
    "broker": (6.8, ["broker down", "broker killed"]),
    "redis": (13.6, ["redis restarted"]),
    "hosts": (6.8, ["endpoints killed", "endpoints ended"]),
    "endpoints": (1.2, ["flap", "move"]),
}
KINDS = [kind for _, kinds in LANES.values() for kind in kinds]
EFFECT_SECONDS = 12  # By then an effect has to be in the logs.
FIRST_SECONDS = 1.5
MUTE_SECONDS = 1.2  # How long acknowledgements may get lost before a connection ends; below the limit of silence.


@dataclass
class Fault:
    at: float  # Seconds since the beginning, as planned.
    kind: str
    draws: list  # Numbers from 0 to 1, which choose whom and for how long.
    injected: float = None
    what: str = ""
    effect: str = ""


def schedule(seed, seconds):
    """For each lane its faults; the same seed gives the same ones."""
    plan = {}
    for lane, (interval, kinds) in LANES.items():
        chance = random.Random(f"{seed} {lane}")
        faults, at, bag = [], FIRST_SECONDS + chance.random() * interval / 2, []
        while at < seconds - 1:
            if not bag:
                bag = chance.sample(kinds, len(kinds))
            faults.append(Fault(at, bag.pop(), [chance.random() for _ in range(4)]))
            at += interval * (0.8 + 0.4 * chance.random())
        plan[lane] = faults
    return plan


def between(low, high, draw):
    return low + (high - low) * draw


class Faults:
    """Carries the schedule out."""

    def __init__(self, plan, cluster, wires, note):
        self.plan, self.cluster, self.wires, self.note = plan, cluster, wires, note
        self.done = []
        self.watching = set()
        self.redis_touched = 0
        self.ways = {
            "gateway killed": self.kill_gateway, "gateway stopped": self.stop_gateway, "broker down": self.take_broker_down,
            "broker killed": self.kill_broker, "redis restarted": self.restart_redis, "endpoints killed": self.kill_host,
            "endpoints ended": self.end_host, "flap": self.flap, "move": self.move}

    async def run(self):
        self.began = time.monotonic()
        await asyncio.gather(*(self.lane(faults) for faults in self.plan.values()))
        if self.watching:
            await asyncio.wait(self.watching)

    async def lane(self, faults):
        for fault in faults:
            await asyncio.sleep(max(0, self.began + fault.at - time.monotonic()))
            fault.injected = time.monotonic() - self.began
            self.done.append(fault)
            await self.ways[fault.kind](fault)
            self.note(f"{fault.kind}: {fault.what}")

    def watch(self, fault, seen):
        """Waits for the fault's effect beside what goes on; `seen` gives a sentence once there is one."""
        async def wait():
            fault.effect = await until(seen, EFFECT_SECONDS) or ""
            self.note(f"{fault.kind}: {fault.what}: {fault.effect or 'NO EFFECT'}")
        task = asyncio.ensure_future(wait())
        self.watching.add(task)
        task.add_done_callback(self.watching.discard)

    # Gateways

    def gateway(self, draw):
        index = int(draw * len(self.cluster.gateways))
        return index, self.cluster.gateways[index]

    async def kill_gateway(self, fault):
        index, gateway = self.gateway(fault.draws[0])
        down = between(0.1, 2.5, fault.draws[1])
        mute = between(0, MUTE_SECONDS, fault.draws[2])
        fault.what = f"{gateway.name}, {down:.1f} s, after {mute:.1f} s without acknowledgements"
        before = self.wires.lost[index]
        gateway.is_up, gateway.touched = False, time.monotonic()
        self.wires.mute(index)
        await asyncio.sleep(mute)
        await gateway.end(signal.SIGKILL)
        self.watch(fault, lambda: f"{cut} streams cut" if (cut := self.wires.lost[index] - before) else "")
        await asyncio.sleep(down)
        gateway.start()
        if not await gateway.ready():
            self.note(f"{gateway.name} does not become ready")
        gateway.is_up, gateway.touched = True, time.monotonic()

    async def stop_gateway(self, fault):
        index, gateway = self.gateway(fault.draws[0])
        pause = between(2.8, 4.2, fault.draws[1])
        fault.what = f"{gateway.name}, {pause:.1f} s"
        before, since = self.wires.lost[index], gateway.size()
        gateway.is_up, gateway.touched = False, time.monotonic()
        gateway.send(signal.SIGSTOP)
        await asyncio.sleep(pause)
        left = self.wires.lost[index] - before
        gateway.send(signal.SIGCONT)
        gateway.touched = time.monotonic()
        self.watch(fault, lambda: f"lease lapsed, {left} streams left" if gateway.said(b"the lease had ended", since) else "")
        await until(lambda: gateway.said(b"the lease had ended", since), 2)
        gateway.is_up, gateway.touched = True, time.monotonic()

    # Stores

    def sizes(self):
        return [(gateway, gateway.size()) for gateway in self.cluster.gateways]

    def said(self, sizes, pattern):
        return sum(gateway.said(pattern, since) for gateway, since in sizes)

    async def take_broker_down(self, fault):
        down = between(0.3, 2.5, fault.draws[0])
        fault.what = f"{down:.1f} s"
        sizes = self.sizes()
        self.cluster.broker.send(signal.SIGUSR1)
        self.watch(fault, lambda: f"{n} connections lost" if (n := self.said(sizes, rb"Disconnected|Connect to|brokers are down")) else "")
        await asyncio.sleep(down)
        self.cluster.broker.send(signal.SIGUSR2)

    async def kill_broker(self, fault):
        down = between(0.1, 1.5, fault.draws[0])
        fault.what = f"{down:.1f} s, its log is empty then"
        sizes = self.sizes()
        await self.cluster.broker.end(signal.SIGKILL)
        await asyncio.sleep(down)
        self.cluster.broker.start()
        await self.cluster.broker.ready()
        self.watch(fault, lambda: f"{n} partitions began anew" if (n := self.said(sizes, rb"offset gone")) else "")

    async def restart_redis(self, fault):
        number = signal.SIGKILL if fault.draws[0] < 0.7 else signal.SIGTERM
        down = between(0.0, 1.0, fault.draws[1])
        fault.what = f"{number.name}, {down:.1f} s"
        sizes = self.sizes()
        self.redis_touched = time.monotonic()
        await self.cluster.redis.end(number)
        await asyncio.sleep(down)
        self.cluster.redis.start()
        await self.cluster.redis.ready()
        self.redis_touched = time.monotonic()
        self.watch(fault, lambda: f"{n} gateways cut off" if (n := self.said(sizes, rb"Redis is gone")) else "")

    # Endpoints

    async def change_host(self, fault, how):
        host = self.cluster.hosts[int(fault.draws[0] * len(self.cluster.hosts))]
        wires = [wire for client in host.clients if (wire := self.wires.live(client))]
        fault.what = f"{host.name}, {len(wires)} of {len(host.clients)} connected"
        await how(host)
        await asyncio.sleep(between(0, 1, fault.draws[1]))
        host.start()

        def back():
            cut = sum(wire.ended is not None for wire in wires)
            there = sum(self.wires.live(client) is not None for client in host.clients)
            return f"{cut} streams cut, {there} endpoints back" if cut and there == len(host.clients) else ""
        self.watch(fault, back)

    async def kill_host(self, fault):
        await self.change_host(fault, lambda host: host.crash())

    async def end_host(self, fault):
        async def end(host):
            if not await host.end(signal.SIGTERM, 8):
                host.killed[host.starts] = time.time() * 1000
                self.note(f"{host.name} did not end within 8 s")
        await self.change_host(fault, end)

    def connected(self, draw):
        """A client whose connection and gateway live: the one that is drawn, or the next such one."""
        clients = self.cluster.clients
        start = int(draw * len(clients))
        for step in range(len(clients)):
            client = clients[(start + step) % len(clients)]
            wire = self.wires.live(client)
            if wire and self.cluster.gateways[wire.gateway].is_up:
                return client
        return None

    async def flap(self, fault):
        """The connection loses what the client says, is reset then, and the client comes back to the same gateway."""
        client = self.connected(fault.draws[0])
        if client is None:
            return
        wire = self.wires.live(client)
        mute = between(0, MUTE_SECONDS, fault.draws[1])
        fault.what = f"{client} at {wire.gateway + 1}, after {mute:.1f} s without acknowledgements"
        wire.is_mute = True
        await asyncio.sleep(mute)
        self.wires.cut(client, back=wire.gateway)

        def back():
            new = self.wires.live(client)
            return "stream cut, back" if new and new is not wire else ""
        self.watch(fault, back)

    async def move(self, fault):
        """The client goes elsewhere; its gateway isn't told by the network."""
        client = self.connected(fault.draws[0])
        if client is None:
            return
        old = self.wires.live(client)
        others = [index for index, gateway in enumerate(self.cluster.gateways) if gateway.is_up and index != old.gateway]
        if not others:
            return
        to = others[int(fault.draws[1] * len(others))]
        fault.what = f"{client} from {old.gateway + 1} to {to + 1}"
        self.wires.strand(client, to)

        def moved():
            new = self.wires.live(client)
            if not new or new.gateway == old.gateway or not old.told:
                return ""
            return "session replaced" if old.told >= new.opened else "old stream gone first"
        self.watch(fault, moved)
