"""Processes of a local cluster: free ports, starting detached, waiting until ready, stopping the right one.

A process is named by its pid and its start time (field 22 of /proc/PID/stat): a pid alone may have been given to another
program since, and is then never signalled.
"""

import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

POLL_SECONDS = 0.02


class Failure(Exception):
    """Something that the user has to know; its text is the whole message."""


def start_time(pid):
    """Start time of a live process in clock ticks since boot, or None if there is none (a zombie counts as none)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            # The command name stands in parentheses and may hold anything: fields are counted from the last ')'.
            fields = stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def alive(process):
    """Whether the process of this record ({"pid", "started"}) still runs."""
    return process.get("pid") is not None and start_time(process["pid"]) == process["started"]


def send(process, number):
    """Signals the process if it is still the same one; says whether it was."""
    if not alive(process):
        return False
    try:
        os.kill(process["pid"], number)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition, seconds):
    """Polls until the condition gives something true and returns it; None past the time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            return None
        time.sleep(POLL_SECONDS)


def stop(process, seconds=10):
    """SIGTERM, then SIGKILL past the time. Returns "stopped", "killed" or "gone" (was not running)."""
    if not send(process, signal.SIGTERM):
        return "gone"
    if wait_until(lambda: reaped(process), seconds):
        return "stopped"
    kill(process)
    return "killed"


def kill(process):
    """kill -9, and waits until it is gone. Says whether it ran."""
    if not send(process, signal.SIGKILL):
        return False
    wait_until(lambda: reaped(process), 5)
    return True


def reaped(process):
    """Whether it is gone; collects it if it is a child of ours."""
    try:
        os.waitpid(process["pid"], os.WNOHANG)
    except ChildProcessError:
        pass
    return not alive(process)


def spawn(argv, log, cwd=None):
    """Starts a program in a session of its own with its output appended to a file; returns {"pid", "started"}."""
    with open(log, "ab") as output:
        try:
            child = subprocess.Popen(
                argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        except FileNotFoundError as error:
            raise Failure(f"{argv[0]} is not there: {error.strerror}") from error
    child.returncode = 0  # It outlives us: no warning about a child that is still running.
    return {"pid": child.pid, "started": start_time(child.pid)}


def free_port():
    """A free loopback port below the range that the kernel gives to outgoing connections, so that a server can come back
    on it later. A port can still be lost to another program before it is bound; the start then fails and says so."""
    for _ in range(1000):
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            # As servers do: a port whose old connections are in TIME_WAIT counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Failure("no free port between 20000 and 31999")


def http_status(address, path):
    """Status code of a GET, or None if nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=2) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def accepts(address):
    """Whether something accepts TCP connections there."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2):
            return True
    except OSError:
        return False


def redis_answers(address):
    """Whether a Redis answers PING there (one that still loads its data answers with an error)."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def tail(path, lines=15):
    """The last lines of a log, for a message."""
    try:
        with open(path, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-lines:])
    except FileNotFoundError:
        return ""
