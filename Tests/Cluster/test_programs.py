"""The programs from outside: help, exit codes, draining, the verbs of ops/cluster."""

import json
import os
import signal
import subprocess
import unittest

from support import CLUSTER, PROGRAMS, SECONDS, Cluster, Ours, Session, eventually, processes, shared, upload
from test_contract import fresh

NAMES = ["gateway", "uploader", "agent", "pushctl", "devbroker", "bench"]


def run(name, *arguments):
    return subprocess.run([f"{PROGRAMS}/{name}", *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)


class Usage(unittest.TestCase):
    def test_help_exits_0(self):
        for name in NAMES:
            with self.subTest(name):
                done = run(name, "--help")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("--", done.stdout)

    def test_help_of_each_verb_of_pushctl(self):
        for verb in ["upload", "push", "status", "cancel", "clients", "nodes", "drain"]:
            with self.subTest(verb):
                done = run("pushctl", verb, "--help")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn(verb, done.stdout)

    def test_wrong_usage_exits_64(self):
        for name in NAMES:
            with self.subTest(name):
                done = run(name, "--no-such-flag")
                self.assertEqual(done.returncode, 64, done.stderr)
                self.assertTrue(done.stderr.strip())
        self.assertEqual(run("pushctl").returncode, 64)
        self.assertEqual(run("pushctl", "dance").returncode, 64)

    def test_a_refusal_exits_1(self):
        control = shared().control()
        done = run("pushctl", "status", "no-such-job", *control)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertTrue(done.stderr.strip())
        done = run("pushctl", "upload", "/no/such/file", *control)
        self.assertEqual(done.returncode, 1, done.stderr)

    def test_nobody_there_exits_1(self):
        done = run("pushctl", "nodes", "--gateway", f"127.0.0.1:{processes.free_port()}")
        self.assertEqual(done.returncode, 1, done.stderr)


class Draining(unittest.TestCase):
    def setUp(self):
        self.cluster = shared()

    def start(self, program, *identity):
        """A server of our own beside the cluster, so that its exit code is seen; gives (process, addresses)."""
        server = {"listen": f"127.0.0.1:{processes.free_port()}", "admin": f"127.0.0.1:{processes.free_port()}"}
        info = self.cluster.info
        child = subprocess.Popen(
            [f"{PROGRAMS}/{program}", *identity, "--listen", server["listen"], "--advertise", server["listen"],
             "--admin", server["admin"], "--redis", info["redis"], "--kafka", info["kafka"], "--store", info["store"]],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        eventually(lambda: processes.http_status(server["admin"], "/readyz") == 200, f"{program} ready")
        return child, server

    def test_sigterm_ends_an_idle_server_with_0(self):
        for program, identity in [("gateway", ["--node-id", fresh("gateway")]), ("uploader", [])]:
            with self.subTest(program):
                child, _ = self.start(program, *identity)
                child.send_signal(signal.SIGTERM)
                self.assertEqual(child.wait(timeout=SECONDS), 0)

    def test_sigterm_lets_a_download_end(self):
        """The reader has taken one chunk when the signal comes, and takes the rest after it."""
        file_id, data = fresh("file"), os.urandom(8 << 20)
        upload(self.cluster, data, file_id)
        child, server = self.start("gateway", "--node-id", fresh("gateway"))
        stream = Ours.FileStub(self.cluster.channel(server)).DownloadFile(Ours.files.FileRequest(file_id=file_id), timeout=SECONDS)
        received = next(stream).content
        child.send_signal(signal.SIGTERM)
        eventually(lambda: processes.http_status(server["admin"], "/readyz") != 200, "not ready any more")
        for piece in stream:
            received += piece.content
        self.assertEqual(received, data)
        self.assertEqual(child.wait(timeout=SECONDS), 0)

    def test_sigterm_sends_sessions_away(self):
        child, server = self.start("gateway", "--node-id", fresh("gateway"))
        session = Session(Ours, self.cluster.channel(server), fresh("client"))
        self.addCleanup(session.close)
        session.next("registered")
        child.send_signal(signal.SIGTERM)
        session.next("go_away")
        self.assertEqual(child.wait(timeout=SECONDS), 0)


class Admin(unittest.TestCase):
    def test_health_readiness_and_metrics(self):
        cluster = shared()
        for server in cluster.gateways + cluster.uploaders:
            for path, status in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/nothing", 404)]:
                with self.subTest(server=server["name"], path=path):
                    self.assertEqual(processes.http_status(server["admin"], path), status)


class Verbs(unittest.TestCase):
    """ops/cluster by itself, on a cluster of one gateway."""

    def test_up_kill_start_down(self):
        cluster = Cluster("--gateways", "1", "--uploaders", "1")
        self.addCleanup(cluster.down)
        self.assertEqual(set(cluster.info), {"dir", "store", "redis", "kafka", "gateways", "uploaders"})
        self.assertEqual(set(cluster.gateways[0]), {"name", "listen", "admin", "pid"})
        self.assertEqual(cluster.run("up", check=False).returncode, 1, "a second up on the same folder")
        self.assertEqual(cluster.run("status").returncode, 0)
        cluster.run("kill", "gateway-1")
        self.assertEqual(cluster.run("status", check=False).returncode, 1)
        self.assertEqual(cluster.run("kill", "gateway-1", check=False).returncode, 1, "nothing left to kill")
        again = json.loads(cluster.run("start", "gateway-1", "--json").stdout)["gateways"][0]
        self.assertEqual(again["listen"], cluster.gateways[0]["listen"])
        self.assertNotEqual(again["pid"], cluster.gateways[0]["pid"])
        cluster.down()
        self.assertEqual(cluster.run("down").returncode, 0, "down twice")
        self.assertIsNone(processes.start_time(again["pid"]))

    def test_a_recycled_pid_is_left_alone(self):
        bystander = subprocess.Popen(["sleep", "60"])
        self.addCleanup(bystander.wait)
        self.addCleanup(bystander.kill)
        record = {"pid": bystander.pid, "started": processes.start_time(bystander.pid) - 1}
        self.assertEqual(processes.stop(record), "gone")
        self.assertFalse(processes.kill(record))
        self.assertIsNone(bystander.poll())

    def test_usage(self):
        for arguments in [[], ["dance"], ["up", "--gateways", "many"], ["kill"]]:
            done = subprocess.run([CLUSTER, *arguments], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 64, arguments)


if __name__ == "__main__":
    unittest.main()
