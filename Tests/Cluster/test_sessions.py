"""Presence and drains: pushctl clients --watch, pushctl drain, SIGTERM, with agents that go on elsewhere."""

import json
import queue
import signal
import subprocess
import threading
import time
import unittest

from support import (PROGRAMS, SECONDS, Cluster, Ours, Session, eventually, jobs_pb2, jobs_pb2_grpc, metrics, online, processes,
                     shared)
from test_contract import fresh
from test_delivery import Agent, ended


class Watch:
    """A running `pushctl clients --watch --json`."""

    def __init__(self, cluster, *arguments):
        gateways = ",".join(gateway["listen"] for gateway in cluster.gateways)
        self.child = subprocess.Popen(
            [f"{PROGRAMS}/pushctl", "clients", "--watch", "--gateway", gateways, "--json", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.child.stdout:
            self.lines.put(json.loads(line))

    def next(self):
        """(event, client, node) of the next change."""
        line = self.lines.get(timeout=SECONDS)
        return line["event"], line["client"]["client_id"], line["client"]["node_id"]

    def stop(self):
        self.child.terminate()
        self.child.wait(timeout=SECONDS)
        self.child.stdout.close()


class Presence(unittest.TestCase):
    def test_clients_come_go_and_are_replaced(self):
        cluster, client = shared(), fresh("client")
        watch = Watch(cluster, "--client", client)
        self.addCleanup(watch.stop)
        eventually(lambda: any(metrics(gateway)["fleetpush_presence_watches"] for gateway in cluster.gateways), "a watch")
        first = Session(Ours, cluster.channel(cluster.gateways[0]), client)
        self.assertEqual(watch.next(), ("online", client, "gateway-1"))
        second = Session(Ours, cluster.channel(cluster.gateways[1]), client)
        self.addCleanup(first.close)
        self.assertEqual(watch.next(), ("replaced", client, "gateway-2"))
        self.assertTrue(first.next("go_away").go_away.replaced)
        second.close()
        self.assertEqual(watch.next()[:2], ("offline", client))

    def test_a_killed_gateway(self):
        """Its clients are told when its lease ends, by the gateway that the watch goes on at."""
        cluster = Cluster("--gateways", "2", "--uploaders", "1")
        self.addCleanup(cluster.down)
        client = fresh("client")
        session = Session(Ours, cluster.channel(cluster.gateways[0]), client)
        self.addCleanup(session.close)
        online(cluster, client)
        watch = Watch(cluster)
        self.addCleanup(watch.stop)
        self.assertEqual(watch.next(), ("online", client, "gateway-1"))
        cluster.run("kill", "gateway-1")
        self.assertEqual(watch.next(), ("offline", client, "gateway-1"))


class Drains(unittest.TestCase):
    TEXTS = 60

    def setUp(self):
        self.cluster = Cluster("--gateways", "3", "--uploaders", "1")
        self.addCleanup(self.cluster.down)

    def agents(self, count):
        """Agents that prefer the first gateway."""
        gateways = [gateway["listen"] for gateway in self.cluster.gateways]
        agents = [Agent(fresh("agent"), gateways) for _ in range(count)]
        for agent in agents:
            self.addCleanup(agent.stop)
            online(self.cluster, agent.client_id)
        return agents

    def test_a_drain_under_load(self):
        """Numbered texts go on while the gateway is drained: each arrives once, and the gateway ends by itself."""
        agents = self.agents(4)
        drained, other = self.cluster.gateways[:2]
        jobs = jobs_pb2_grpc.JobServiceStub(self.cluster.channel(other))
        sent = []

        def send():
            for number in range(self.TEXTS):
                job = jobs_pb2.Job(
                    targets=jobs_pb2.Targets(client_ids=[agent.client_id for agent in agents]),
                    text=Ours.push.TextMessage(content=f"number {number}."), qos=jobs_pb2.QOS_AT_LEAST_ONCE)
                sent.append(jobs.Submit(jobs_pb2.SubmitRequest(job=job), timeout=SECONDS).job_id)
                time.sleep(0.02)
        load = threading.Thread(target=send)
        load.start()
        eventually(lambda: len(sent) > self.TEXTS // 4, "the load is under way")
        done = subprocess.run(
            [f"{PROGRAMS}/pushctl", "drain", drained["name"], "--rate", "20/s", "--deadline", "15s", "--gateway", other["listen"],
             "--json"], capture_output=True, text=True, timeout=SECONDS, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual((report["clients_told"], report["clients_left"], report["deadline_passed"]), (4, 0, False))
        eventually(lambda: processes.start_time(drained["pid"]) is None, "the drained gateway ends")
        load.join()
        self.assertEqual(len(sent), self.TEXTS)
        self.cluster.gateways.remove(drained)
        for job in sent:
            self.assertEqual(ended(self.cluster, job)["state"], "SUCCEEDED")
        for agent in agents:
            with open(agent.log, encoding="utf-8") as log:
                lines = log.read()
            for number in range(self.TEXTS):
                self.assertEqual(lines.count(f"text: number {number}."), 1, f"number {number} at {agent.client_id}")
        # Two went to each of the others.
        listed, _ = self.cluster.pushctl("clients", "--online")
        held = sorted(client["node_id"] for client in listed["clients"])
        self.assertEqual(held, ["gateway-2", "gateway-2", "gateway-3", "gateway-3"])

    def test_sigterm_drains_and_a_second_one_ends(self):
        child, server = self.start()
        held = [Session(Ours, self.cluster.channel(server), fresh("client")) for _ in range(3)]
        for session in held:
            self.addCleanup(session.close)
            session.next("registered")
        child.send_signal(signal.SIGTERM)
        eventually(lambda: processes.http_status(server["admin"], "/readyz") == 503, "it isn't ready any more")
        # One goes at once, the next one after ten seconds.
        eventually(lambda: metrics(server)["fleetpush_clients"] == 2, "one has gone")
        nodes, _ = self.cluster.pushctl("nodes")
        self.assertEqual([node["node_id"] for node in nodes["nodes"] if node["draining"]], ["drained"])
        self.assertIsNone(child.poll())
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(timeout=SECONDS), 0)
        addresses = {gateway["listen"] for gateway in self.cluster.gateways}
        for session in held:
            self.assertIn(session.next("go_away").go_away.gateway, addresses)

    def start(self):
        server = {"listen": f"127.0.0.1:{processes.free_port()}", "admin": f"127.0.0.1:{processes.free_port()}"}
        info = self.cluster.info
        child = subprocess.Popen(
            [f"{PROGRAMS}/gateway", "--node-id", "drained", "--listen", server["listen"], "--advertise", server["listen"],
             "--admin", server["admin"], "--redis", info["redis"], "--kafka", info["kafka"], "--store", info["store"],
             "--drain-rate", "6/m"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        eventually(lambda: processes.http_status(server["admin"], "/readyz") == 200, "ready")
        return child, server


if __name__ == "__main__":
    unittest.main()
