"""The processes of a local cluster: what it consists of, how each is started, when it is ready; and its state file."""

import contextlib
import fcntl
import json
import os

import processes
from processes import Failure

READY_SECONDS = 30
DRAIN_SECONDS = 15


def plan(directory, binaries, gateways, uploaders, partitions):
    """The state of a cluster before anything runs: every process with its ports."""
    members = []
    redis = os.environ.get("REDIS_ADDRESS")
    if not redis:
        redis = f"127.0.0.1:{processes.free_port()}"
        members.append({"name": "redis", "kind": "redis"})
    kafka = os.environ.get("KAFKA_BOOTSTRAP")
    if not kafka:
        kafka = f"127.0.0.1:{processes.free_port()}"
        members.append({"name": "kafka", "kind": "kafka"})
    for kind, number in [("gateway", gateways), ("uploader", uploaders)]:
        for index in range(1, number + 1):
            members.append({"name": f"{kind}-{index}", "kind": kind,
                            "listen": f"127.0.0.1:{processes.free_port()}", "admin": f"127.0.0.1:{processes.free_port()}"})
    for member in members:
        member.update(pid=None, started=None, log=os.path.join(directory, "logs", member["name"] + ".log"))
    return {"dir": directory, "store": os.path.join(directory, "store"), "redis": redis, "kafka": kafka,
            "binaries": binaries, "partitions": partitions, "processes": members}


def command(state, process):
    """The command line of one process."""
    directory, binaries = state["dir"], state["binaries"]
    if process["kind"] == "redis":
        host, port = state["redis"].rsplit(":", 1)
        return ["redis-server", "--bind", host, "--port", port, "--dir", os.path.join(directory, "redis"),
                "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction",
                "--daemonize", "no"]
    if process["kind"] == "kafka":
        host, port = state["kafka"].rsplit(":", 1)
        return [os.path.join(binaries, "devbroker"), "--host", host, "--port", port,
                "--topic", f"client-push:{state['partitions']}", "--topic", "client-broadcast:1",
                "--listen-port-file", port_file(state)]
    identity = ["--node-id", process["name"]] if process["kind"] == "gateway" else []
    return [os.path.join(binaries, process["kind"]), *identity,
            "--listen", process["listen"], "--advertise", process["listen"], "--admin", process["admin"],
            "--redis", state["redis"], "--kafka", state["kafka"], "--store", state["store"]]


def port_file(state):
    return os.path.join(state["dir"], "kafka", "address")


def launch(state, process):
    if process["kind"] == "kafka":
        with contextlib.suppress(FileNotFoundError):
            os.remove(port_file(state))
    process.update(processes.spawn(command(state, process), process["log"], cwd=state["dir"]))


def await_ready(state, process):
    """Waits until it is ready; past the time, or if it ends meanwhile, fails with the end of its log."""
    def settled():
        seen = condition(state, process)
        return None if seen == "starting" else seen
    seen = processes.wait_until(settled, READY_SECONDS)
    if seen != "ready":
        what = "ended at once" if seen == "down" else f"was not ready within {READY_SECONDS} s"
        raise Failure(f"{process['name']} {what}; {process['log']} ends with\n" + processes.tail(process["log"]))


def condition(state, process):
    """"down", "starting" or "ready"."""
    if not processes.alive(process):
        return "down"
    if process["kind"] == "redis":
        ready = processes.redis_answers(state["redis"])
    elif process["kind"] == "kafka":
        # It writes the file once its topics stand.
        ready = os.path.exists(port_file(state)) and processes.accepts(state["kafka"])
    else:
        ready = processes.http_status(process["admin"], "/readyz") == 200
    return "ready" if ready else "starting"


def stop_all(state):
    """Servers first, so that they can still say good-bye to Redis and Kafka. Gives (name, how it went)."""
    order = ["gateway", "uploader", "kafka", "redis"]
    outcome = []
    for process in sorted(state["processes"], key=lambda member: order.index(member["kind"])):
        outcome.append((process["name"], processes.stop(process, DRAIN_SECONDS)))
        process.update(pid=None, started=None)
    return outcome


@contextlib.contextmanager
def locked(directory):
    """One verb at a time on a directory."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # A child must not inherit the lock; descriptors of Python are closed on exec.
        yield


def load(directory):
    try:
        with open(os.path.join(directory, "cluster.json"), encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def loaded(directory):
    state = load(directory)
    if not state:
        raise Failure(f"no cluster in {directory}; `ops/cluster up` makes one")
    return state


def save(directory, state):
    path = os.path.join(directory, "cluster.json")
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(state, file, indent=1)
    os.replace(path + ".new", path)


def named(state, name):
    for process in state["processes"]:
        if process["name"] == name:
            return process
    raise Failure(f"no {name}; there are " + ", ".join(process["name"] for process in state["processes"]))


def public(state):
    """What `up --json` prints."""
    def servers(kind):
        return [{key: process[key] for key in ("name", "listen", "admin", "pid")}
                for process in state["processes"] if process["kind"] == kind]
    return {"dir": state["dir"], "store": state["store"], "redis": state["redis"], "kafka": state["kafka"],
            "gateways": servers("gateway"), "uploaders": servers("uploader")}
