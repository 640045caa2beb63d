"""A cluster for a measurement: started from a build, loaded by `bench`, taken down again."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request

import local_cluster
import processes
from processes import Failure

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
RELEASE = os.path.join(ROOT, ".build", "release")
BENCH_SECONDS = 900


@contextlib.contextmanager
def cluster(gateways, binaries=RELEASE, partitions=None):
    """A cluster without uploaders and with a partition for each gateway; gone with its files at the end."""
    for name in ["gateway", "devbroker", "bench"]:
        if not os.access(os.path.join(binaries, name), os.X_OK):
            raise Failure(f"{binaries}/{name} is not built: swift build -c release")
    # A run that is ended takes its cluster with it.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    base = os.path.join(ROOT, ".build", "bench")
    os.makedirs(base, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="cluster-", dir=base)
    for name in ["logs", "redis", "kafka", "store"]:
        os.makedirs(os.path.join(directory, name))
    state = local_cluster.plan(directory, binaries, gateways, 0, partitions or max(8, gateways))
    try:
        for layer in [["redis", "kafka"], ["gateway"]]:
            members = [process for process in state["processes"] if process["kind"] in layer]
            for process in members:
                local_cluster.launch(state, process)
            for process in members:
                local_cluster.await_ready(state, process)
        yield state
    finally:
        local_cluster.stop_all(state)
        shutil.rmtree(directory, ignore_errors=True)


def gateways(state):
    return [process for process in state["processes"] if process["kind"] == "gateway"]


def bench(command, state, *flags):
    """Runs a command of `bench` against every gateway; gives the objects that it prints, one for each line."""
    words = [os.path.join(state["binaries"], "bench"), command]
    for gateway in gateways(state):
        words += ["--gateway", gateway["listen"]]
    for process in state["processes"]:
        words += ["--process", f"{process['name']}={process['pid']}"]
    done = subprocess.run(words + [str(flag) for flag in flags], stdout=subprocess.PIPE, timeout=BENCH_SECONDS,
                          check=False)
    if done.returncode != 0:
        raise Failure(f"bench {command} ended with {done.returncode}\n{done.stdout.decode()}")
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def redis(state, *words):
    """One command that is answered in one line, or in a bulk; gives the text."""
    host, _, port = state["redis"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection, connection.makefile("rwb") as stream:
        stream.write(b"*%d\r\n" % len(words))
        for word in words:
            data = str(word).encode()
            stream.write(b"$%d\r\n%s\r\n" % (len(data), data))
        stream.flush()
        return answer(stream)


def answer(stream):
    line = stream.readline().rstrip(b"\r\n")
    kind, rest = line[:1], line[1:].decode()
    if kind == b"-":
        raise Failure(f"Redis: {rest}")
    if kind == b"$":
        return stream.read(int(rest) + 2)[:-2].decode() if int(rest) >= 0 else None
    if kind == b"*":
        return [answer(stream) for _ in range(int(rest))]
    return rest


def keys_left(state, pattern):
    """How many keys match."""
    found, cursor = 0, "0"
    while True:
        cursor, names = redis(state, "SCAN", cursor, "MATCH", pattern, "COUNT", 10_000)
        found += len(names)
        if cursor == "0":
            return found


def redis_peak_mib(state):
    for line in redis(state, "INFO", "memory").splitlines():
        if line.startswith("used_memory_peak:"):
            return int(line.partition(":")[2]) / (1 << 20)
    raise Failure("Redis doesn't say how much memory it has used")


def metric(process, name):
    """The sum of a counter over its labels."""
    with urllib.request.urlopen(f"http://{process['admin']}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith((name + " ", name + "{"))))
