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
        up = [CLUSTER, "up", "--gateways", "2", "--uploaders", "1", "--dir", cluster_directory, "--json"]
        cluster = json.loads(subprocess.run(up, stdout=subprocess.PIPE, check=True).stdout)
        gateways = [gateway["listen"] for gateway in cluster["gateways"]]
        print(f"cluster is up: gateways {', '.join(gateways)}; uploader {cluster['uploaders'][0]['listen']}")
        control = ["--json", "--gateway", gateways[0], "--uploader", cluster["uploaders"][0]["listen"]]
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
    seen = []
    def online():
        seen[:] = pushctl("clients", *control)["clients"]
        return {agent["name"] for agent in agents} <= {client["client_id"] for client in seen if client["online"]}
    if not processes.wait_until(online, AGENT_SECONDS):
        raise Failure(f"the agents are not online after {AGENT_SECONDS} s; their logs stand in {WORK}; known clients: {seen}")


def push(path, control, agents, cluster):
    """Uploads, pushes, and reports; says whether every copy is right."""
    size, digest = os.path.getsize(path), digest_in_background(path)
    print(f"upload {path} ({size} bytes)")
    began = time.monotonic()
    upload = pushctl("upload", path, *control)
    print(f"uploaded in {time.monotonic() - began:.2f} s: file id {upload['file_id']}")
    targets = [part for agent in agents for part in ("--client", agent["name"])]
    print(f"push to {' and '.join(agent['name'] for agent in agents)}")
    final = pushctl("push", "--wait", "--file-id", upload["file_id"], *targets, *control)
    expected = digest()
    print(f"\n{'agent':<9} {'gateway':<10} {'size':>12} {'seconds':>8}  {'MD5':<32}  copy")
    good = final["state"] == "SUCCEEDED" and len(final["targets"]) == len(agents)
    for row in sorted(final["targets"], key=lambda target: target["client_id"]):
        actual = md5_of(row["path"]) if row.get("path") else "-"
        right = actual == row["md5"] == expected
        good = good and right
        print(f"{row['client_id']:<9} {row.get('gateway', '-'):<10} {row['size']:>12} {row['duration_ms'] / 1000:>8.2f}  "
              f"{actual:<32}  {'right' if right else 'WRONG'}: {row.get('path') or row.get('reason', '-')}")
    print(f"job {final['job_id']}: {final['state']}\n")
    report_servers(cluster)
    return good


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


def pushctl(*arguments):
    """The JSON that pushctl prints; its progress bars go to the terminal. Exit code 1 with JSON is a job that failed."""
    done = subprocess.run([f"{PROGRAMS}/pushctl", *arguments], stdout=subprocess.PIPE, timeout=PUSH_SECONDS, check=False)
    if not done.stdout.strip():
        raise Failure(f"pushctl {arguments[0]} ended with {done.returncode}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
