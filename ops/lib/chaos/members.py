"""The processes of a run: Redis, the broker, gateways, and hosts of endpoints. Each has its log; all end with the run."""

import asyncio
import contextlib
import os
import re
import signal
import time

import processes

LEASE_SECONDS = 2
REFRESH_SECONDS = 3
SILENCE_SECONDS = 2.1
READY_SECONDS = 40


taken = set()


def free_port():
    """A free port that this run hasn't given away yet."""
    while (port := processes.free_port()) in taken:
        pass
    taken.add(port)
    return port


class Member:
    """One process that can be ended and started again on its ports."""

    def __init__(self, name, argv, folder, environment=None):
        self.name, self.argv, self.folder = name, argv, folder
        self.log = os.path.join(folder, "logs", name + ".log")
        self.environment = environment or {}
        self.process = {"pid": None, "started": None}
        self.starts = 0
        self.is_stopped = False

    def start(self):
        self.starts += 1
        before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        try:
            self.process = processes.spawn(self.argv, self.log, cwd=self.folder)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    def send(self, number):
        return processes.send(self.process, number)

    @property
    def is_alive(self):
        return processes.alive(self.process)

    async def end(self, number=signal.SIGKILL, seconds=10):
        """Sends the signal and waits until it is gone; one that stays gets SIGKILL. Says whether the signal sufficed."""
        self.send(number)
        if await until(lambda: processes.reaped(self.process), seconds):
            return True
        self.send(signal.SIGKILL)
        await until(lambda: processes.reaped(self.process), 5)
        return False

    def size(self):
        """How long the log is: where what comes later begins."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.getsize(self.log)
        return 0

    def said(self, pattern, since=0):
        """How often a line of the log after `since` has the pattern."""
        try:
            with open(self.log, "rb") as log:
                log.seek(since)
                return len(re.findall(pattern, log.read()))
        except FileNotFoundError:
            return 0


class Gateway(Member):
    def __init__(self, number, folder, binaries, redis, kafka, environment):
        self.listen = f"127.0.0.1:{free_port()}"
        self.admin = f"127.0.0.1:{free_port()}"
        super().__init__(f"gateway-{number}", [
            os.path.join(binaries, "gateway"), "--node-id", f"gateway-{number}", "--listen", self.listen,
            "--admin", self.admin, "--redis", redis, "--kafka", kafka, "--store", os.path.join(folder, "store"),
            "--lease", f"{LEASE_SECONDS}s", "--refresh", f"{REFRESH_SECONDS}s", "--heartbeat", "700ms",
            "--silence", f"{int(SILENCE_SECONDS * 1000)}ms", "--grace", "2s"], folder, environment)
        self.is_up = True  # Neither down nor stopped by a fault.
        self.touched = 0  # When a fault last changed its state.

    async def ready(self):
        loop = asyncio.get_running_loop()
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.is_alive:
            if await loop.run_in_executor(None, processes.http_status, self.admin, "/readyz") == 200:
                return True
            await asyncio.sleep(0.05)
        return False


class Redis(Member):
    def __init__(self, folder):
        self.address = f"127.0.0.1:{free_port()}"
        os.makedirs(os.path.join(folder, "redis"))
        # What it has answered for stands in its file: then what it loses by a kill is nothing.
        super().__init__("redis", [
            "redis-server", "--bind", "127.0.0.1", "--port", self.address.rpartition(":")[2], "--dir",
            os.path.join(folder, "redis"), "--appendonly", "yes", "--appendfsync", "always", "--save", "",
            "--maxmemory-policy", "noeviction"], folder)

    async def ready(self):
        return await until(lambda: processes.redis_answers(self.address), READY_SECONDS)


class Broker(Member):
    def __init__(self, folder, binaries):
        self.address = f"127.0.0.1:{free_port()}"
        super().__init__("kafka", [
            os.path.join(binaries, "devbroker"), "--port", self.address.rpartition(":")[2],
            "--topic", "client-push:6", "--topic", "client-broadcast:1"], folder)

    async def ready(self):
        return await until(lambda: processes.accepts(self.address), READY_SECONDS)


class Host(Member):
    """A process with some endpoints. Each start has a file of its own for what the endpoints are handed over."""

    def __init__(self, number, folder, binaries, clients, addresses, environment):
        self.clients = clients
        self.base = os.path.join(folder, f"host-{number}")
        os.makedirs(self.base)
        fleet = os.path.join(self.base, "fleet")
        with open(fleet, "w", encoding="ascii") as file:
            file.writelines(f"{client} {','.join(addresses[client])}\n" for client in clients)
        self.command = [os.path.join(binaries, "bench"), "agents", "--fleet", fleet, "--dir", self.base, "--log"]
        self.killed = {}  # By start: when it was ended by SIGKILL, in ms since the epoch.
        super().__init__(f"host-{number}", [], folder, environment)

    def arrivals(self, start):
        return os.path.join(self.base, f"arrivals.{start}")

    def start(self):
        self.argv = self.command + [self.arrivals(self.starts + 1)]
        super().start()

    async def crash(self):
        self.killed[self.starts] = time.time() * 1000
        await self.end(signal.SIGKILL)


async def until(condition, seconds):
    """Polls without blocking; what the condition gave at last."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() >= deadline:
            return value
        await asyncio.sleep(0.03)
