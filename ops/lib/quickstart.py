"""What ops/quickstart does once everything is built: cluster, agents, upload, push, report."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import processes
from processes import Failure

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
WORK = os.path.join(ROOT, ".build", "quickstart")
PROGRAMS = os.path.join(ROOT, ".build", "release")
CLUSTER = os.path.join(ROOT, "ops", "cluster")
SAMPLE_MIB = 64
AGENT_SECONDS = 20
PUSH_SECONDS = 600
GOOD = "VERIFIED"
ENDS = {GOOD, "FAILED", "EXPIRED"}


def main(arguments):
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    agents = []
    cluster_directory = os.path.join(WORK, "cluster")
    try:
        subprocess.run([CLUSTER, "down", "--dir", cluster_directory], check=True)
        shutil.rmtree(WORK, ignore_errors=True)
        os.makedirs(WORK)
        path = os.path.abspath(arguments[0]) if arguments else sample()
        cluster = json.loads(output(CLUSTER, "up", "--gateways", "2", "--uploaders", "1", "--dir", cluster_directory, "--json"))
        gateways = [gateway["listen"] for gateway in cluster["gateways"]]
        print(f"cluster is up: gateways {', '.join(gateways)}; uploader {cluster['uploaders'][0]['listen']}")
        control = [f"{PROGRAMS}/pushctl", "--gateway", gateways[0], "--uploader", cluster["uploaders"][0]["listen"]]
        for name, order in [("agent-a", gateways), ("agent-b", gateways[::-1])]:
            agents.append(start_agent(name, order))
        await_agents(control, agents)
        return 0 if push(path, control, agents, cluster) else 1
    except (Failure, subprocess.SubprocessError) as failure:
        print(f"quickstart: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        for agent in agents:
            processes.stop(agent)
        subprocess.run([CLUSTER, "down", "--dir", cluster_directory], check=False)


def sample():
    path = os.path.join(WORK, "sample.bin")
    with open(path, "wb") as file:
        for _ in range(SAMPLE_MIB):
            file.write(os.urandom(1 << 20))
    return path


def start_agent(name, gateways):
    directory = os.path.join(WORK, name)
    os.makedirs(directory)
    command = [f"{PROGRAMS}/agent", "--client-id", name, "--gateway", ",".join(gateways), "--dir", directory]
    return {**processes.spawn(command, os.path.join(WORK, name + ".log")), "name": name}


def await_agents(control, agents):
    """An agent is there when the directory of clients says that it is online."""
    def online():
        clients = json.loads(output(*control, "clients", "--json"))["clients"]
        return {agent["name"] for agent in agents} <= {client["client_id"] for client in clients if client["online"]}
    if not processes.wait_until(online, AGENT_SECONDS):
        raise Failure(f"the agents did not connect within {AGENT_SECONDS} s; their logs stand in {WORK}")


def push(path, control, agents, cluster):
    """Uploads, pushes, and reports; says whether every copy is right."""
    size, digest = os.path.getsize(path), digest_in_background(path)
    print(f"upload {path} ({size} bytes)")
    began = time.monotonic()
    upload = json.loads(output(*control, "upload", path, "--json", show_errors=True))
    print(f"uploaded in {time.monotonic() - began:.2f} s: file id {upload['file_id']}")
    targets = [part for agent in agents for part in ("--client", agent["name"])]
    job = json.loads(output(*control, "push", *targets, "--file-id", upload["file_id"], "--json"))["job_id"]
    print(f"push to {' and '.join(agent['name'] for agent in agents)}: job {job}")
    final = watch(control, job)
    expected = digest()
    print(f"\n{'agent':<9} {'gateway':<10} {'size':>12} {'seconds':>8}  {'MD5':<32}  copy")
    good = final["state"] == "SUCCEEDED" and len(final["targets"]) == len(agents)
    for row in sorted(final["targets"], key=lambda target: target["client_id"]):
        actual = md5_of(row["path"]) if row.get("path") else "-"
        good = good and actual == expected and row["md5"] == expected
        mark = "right" if actual == expected else "WRONG"
        print(f"{row['client_id']:<9} {row.get('gateway', '-'):<10} {row.get('size', 0):>12} "
              f"{row.get('duration_ms', 0) / 1000:>8.2f}  {actual:<32}  {mark}: {row.get('path', row.get('reason', '-'))}")
    print(f"job {job}: {final['state']}\n")
    report_servers(cluster)
    return good


def watch(control, job):
    """Progress bars until every row has ended; gives the last full status."""
    bars = Bars()
    def ended():
        status = json.loads(output(*control, "status", job, "--json"))
        bars.show(status["targets"])
        return status if status["state"] != "RUNNING" else None
    status = processes.wait_until(ended, PUSH_SECONDS)
    bars.end()
    if not status:
        raise Failure(f"the job did not end within {PUSH_SECONDS} s")
    return status


class Bars:
    """One bar for each agent: redrawn in place on a terminal, a line for each quarter elsewhere."""

    WIDTH = 30

    def __init__(self):
        self.drawn = 0
        self.told = {}

    def show(self, rows):
        lines = []
        for row in sorted(rows, key=lambda target: target["client_id"]):
            percent = 100 if row["state"] == GOOD else row.get("percent", 0)
            filled = self.WIDTH * percent // 100
            lines.append((row, percent, f"{row['client_id']:<9} [{'#' * filled}{'.' * (self.WIDTH - filled)}] "
                                        f"{percent:>3} %  {row['state'].lower()}"))
        if sys.stdout.isatty():
            print(f"\033[{self.drawn}F" * bool(self.drawn) + "\n".join(f"\033[K{line}" for _, _, line in lines), flush=True)
            self.drawn = len(lines)
            return
        for row, percent, line in lines:
            step = (row["state"], percent // 25)
            if self.told.get(row["client_id"]) != step:
                self.told[row["client_id"]] = step
                print(line, flush=True)

    def end(self):
        self.drawn = 0


def report_servers(cluster):
    for server in cluster["gateways"]:
        records = ", ".join(f"{how} {metric(server, how)}" for how in ("consumed", "kept", "filtered"))
        print(f"{server['name']}: records {records}; peak memory {peak_mib(server['pid']):.1f} MiB")
    for server in cluster["uploaders"]:
        print(f"{server['name']}: peak memory {peak_mib(server['pid']):.1f} MiB")


def metric(server, how):
    """The sum of a counter over its labels."""
    with urllib.request.urlopen(f"http://{server['admin']}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    name = f"fleetpush_records_{how}_total"
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith((name + " ", name + "{"))))


def peak_mib(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def digest_in_background(path):
    """Starts to hash; the result of the call given back waits for it."""
    result = []
    thread = threading.Thread(target=lambda: result.append(md5_of(path)))
    thread.start()
    def wait():
        thread.join()
        return result[0]
    return wait


def md5_of(path):
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"


def output(*command, show_errors=False):
    """What a program prints; fails with what it says on standard error."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None if show_errors else subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{os.path.basename(command[0])} ended with {done.returncode}: {done.stderr or ''}".strip())
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
