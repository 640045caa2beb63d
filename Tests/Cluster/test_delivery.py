"""Records through Kafka, jobs through pushctl, and agents whose gateway is killed."""

import collections
import hashlib
import os
import random
import re
import subprocess
import unittest

from support import (PROGRAMS, SECONDS, Cluster, Gate, Ours, Session, eventually, folder, jobs_pb2, jobs_pb2_grpc, md5, metrics,
                     online, processes, shared)
from test_contract import fresh

MIB = 1 << 20


def counters(server):
    seen = metrics(server, 'topic="client-push"')
    return {how: seen.get(f"fleetpush_records_{how}_total", 0) for how in ("consumed", "kept", "filtered")}


class Agent:
    """A running agent, in a folder of its own, with its output in a file."""

    def __init__(self, client_id, gateways, tags=None):
        self.client_id = client_id
        self.tags = [part for name, value in (tags or {}).items() for part in ("--tag", f"{name}={value}")]
        self.directory = folder("agent")
        self.log = os.path.join(self.directory, "log")
        self.files = os.path.join(self.directory, "files")
        os.mkdir(self.files)
        self.start(gateways)

    def start(self, gateways):
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                [f"{PROGRAMS}/agent", "--client-id", self.client_id, "--gateway", ",".join(gateways),
                 "--dir", self.files, *self.tags], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self):
        self.child.terminate()
        return self.child.wait(timeout=SECONDS)


def ended(cluster, job):
    """The status of a job whose rows have all ended."""
    def status():
        found, _ = cluster.pushctl("status", job)
        return found if found["state"] != "RUNNING" else None
    return eventually(status, f"{job} ended", 120)


class Filter(unittest.TestCase):
    @unittest.skipIf("KAFKA_BOOTSTRAP" in os.environ, "needs a topic of one partition")
    def test_two_gateways_on_one_partition(self):
        """Both consume every record; the one that a record isn't for drops it."""
        cluster = Cluster("--gateways", "2", "--uploaders", "1", "--partitions", "1")
        self.addCleanup(cluster.down)
        client = fresh("client")
        session = Session(Ours, cluster.channel(cluster.gateways[0]), client)
        self.addCleanup(session.close)
        online(cluster, client)
        before = [counters(gateway) for gateway in cluster.gateways]
        jobs = jobs_pb2_grpc.JobServiceStub(cluster.channel(cluster.gateways[1]))
        for number in range(5):
            job = jobs_pb2.Job(targets=jobs_pb2.Targets(client_ids=[client]), text=Ours.push.TextMessage(content=str(number)))
            jobs.Submit(jobs_pb2.SubmitRequest(job=job), timeout=SECONDS)
        self.assertEqual(sorted(session.next("text").text.content for _ in range(5)), list("01234"))

        def grown(index):
            now = counters(cluster.gateways[index])
            return {how: now[how] - before[index][how] for how in now}
        eventually(lambda: grown(1)["filtered"] >= 5, "the other gateway filters five records")
        self.assertEqual(grown(0), {"consumed": 5, "kept": 5, "filtered": 0})
        self.assertEqual(grown(1), {"consumed": 5, "kept": 0, "filtered": 5})


class Jobs(unittest.TestCase):
    """pushctl and agents."""

    def setUp(self):
        self.cluster = shared()

    def agent(self, order=(0, 1), tags=None):
        agent = Agent(fresh("agent"), [self.cluster.gateways[index]["listen"] for index in order], tags)
        self.addCleanup(agent.stop)
        online(self.cluster, agent.client_id)
        return agent

    def file(self, size):
        data = os.urandom(MIB) * (size // MIB) + os.urandom(size % MIB)
        path = os.path.join(folder("file"), "data.bin")
        with open(path, "wb") as file:
            file.write(data)
        return path, md5(data)

    def test_a_file_to_two_agents(self):
        agents = [self.agent((0, 1)), self.agent((1, 0))]
        path, digest = self.file(5 * MIB + 77)
        upload, _ = self.cluster.pushctl("upload", path)
        self.assertEqual((upload["md5"], upload["size"]), (digest, 5 * MIB + 77))
        targets = [part for agent in agents for part in ("--client", agent.client_id)]
        pushed, _ = self.cluster.pushctl("push", *targets, "--file-id", upload["file_id"])
        final = ended(self.cluster, pushed["job_id"])
        self.assertEqual(final["state"], "SUCCEEDED", final)
        rows = {row["client_id"]: row for row in final["targets"]}
        for agent, gateway in zip(agents, ["gateway-1", "gateway-2"]):
            row = rows[agent.client_id]
            self.assertEqual((row["state"], row["md5"], row["size"], row["gateway"]), ("VERIFIED", digest, 5 * MIB + 77, gateway))
            self.assertTrue(row["path"].startswith(agent.files), row)
            with open(row["path"], "rb") as copy:
                self.assertEqual(hashlib.file_digest(copy, "md5").hexdigest(), digest)

    def test_upload_and_push_in_one(self):
        agent = self.agent()
        path, digest = self.file(100_000)
        pushed, _ = self.cluster.pushctl("push", "--client", agent.client_id, "--file", path)
        final = ended(self.cluster, pushed["job_id"])
        self.assertEqual([(row["state"], row["md5"]) for row in final["targets"]], [("VERIFIED", digest)])

    def test_an_empty_file(self):
        agent = self.agent()
        path, digest = self.file(0)
        pushed, _ = self.cluster.pushctl("push", "--client", agent.client_id, "--file", path)
        final = ended(self.cluster, pushed["job_id"])
        self.assertEqual([(row["state"], row["md5"]) for row in final["targets"]], [("VERIFIED", digest)])

    def test_text_and_event_are_printed_by_the_agent(self):
        agent = self.agent()
        for arguments in [["--text", "hello agent"], ["--event", "update"]]:
            pushed, _ = self.cluster.pushctl("push", "--client", agent.client_id, *arguments)
            self.assertEqual(ended(self.cluster, pushed["job_id"])["state"], "SUCCEEDED")
        eventually(lambda: all(word in processes.tail(agent.log, 100) for word in ["hello agent", "update"]), "printed")

    def test_a_text_to_an_agent_that_is_down(self):
        """It is stored, comes when the agent is back, and comes once, also when the agent starts again."""
        agent = self.agent()
        agent.stop()

        def away():
            clients, _ = self.cluster.pushctl("clients")
            return not next(client for client in clients["clients"] if client["client_id"] == agent.client_id)["online"]
        eventually(away, "the agent is away")
        pushed, _ = self.cluster.pushctl("push", "--client", agent.client_id, "--text", "kept for you")
        self.assertEqual((pushed["target_count"], pushed["stored_count"]), (1, 1))
        status, _ = self.cluster.pushctl("status", pushed["job_id"])
        self.assertEqual((status["state"], status["targets"][0]["state"]), ("RUNNING", "ACCEPTED"))
        agent.start([self.cluster.gateways[1]["listen"]])
        self.assertEqual(ended(self.cluster, pushed["job_id"])["state"], "SUCCEEDED")
        agent.stop()
        agent.start([self.cluster.gateways[0]["listen"]])
        last, _ = self.cluster.pushctl("push", "--client", agent.client_id, "--text", "the last one")
        self.assertEqual(ended(self.cluster, last["job_id"])["state"], "SUCCEEDED")
        with open(agent.log, encoding="utf-8") as log:
            lines = log.read()
        self.assertEqual((lines.count("text: kept for you"), lines.count("text: the last one")), (1, 1))

    def away(self, agent):
        """Stops an agent and waits until the registry knows."""
        agent.stop()

        def gone():
            clients, _ = self.cluster.pushctl("clients")
            return not next(client for client in clients["clients"] if client["client_id"] == agent.client_id)["online"]
        eventually(gone, f"{agent.client_id} is away")

    def test_what_is_cancelled_while_it_waits_does_not_come(self):
        agent = self.agent()
        self.away(agent)
        wrong, right = (self.cluster.pushctl("push", "--client", agent.client_id, "--text", text)[0]
                        for text in ["a mistake", "as it should be"])
        self.assertEqual((wrong["stored_count"], right["stored_count"]), (1, 1))
        for reason in ["think better of it", "said twice"]:
            status, code = self.cluster.pushctl("cancel", wrong["job_id"], "--reason", reason)
            self.assertEqual((code, status["state"], status["reason"]), (0, "CANCELLED", "think better of it"))
            self.assertEqual([row["state"] for row in status["targets"]], ["FAILED"])
        agent.start([self.cluster.gateways[1]["listen"]])
        self.assertEqual(ended(self.cluster, right["job_id"])["state"], "SUCCEEDED")
        last, _ = self.cluster.pushctl("push", "--client", agent.client_id, "--text", "the last")
        self.assertEqual(ended(self.cluster, last["job_id"])["state"], "SUCCEEDED")
        with open(agent.log, encoding="utf-8") as log:
            self.assertEqual(re.findall(r"^text: (.*)$", log.read(), re.MULTILINE), ["as it should be", "the last"])
        self.assertEqual(ended(self.cluster, wrong["job_id"])["state"], "CANCELLED")
        for arguments, expected in [([fresh("job")], 1), ([], 64)]:
            _, code = self.cluster.pushctl("cancel", *arguments, check=False)
            self.assertEqual(code, expected)

    def test_tags_choose_also_who_is_away(self):
        """A text and a file to tags: one agent has them and is there, one has them and is away, one lacks a tag."""
        region = fresh("region")
        here = self.agent(tags={"region": region, "model": "x"})
        gone = self.agent((1, 0), tags={"region": region, "model": "x"})
        other = self.agent((1, 0), tags={"region": region, "model": "y"})
        self.away(gone)
        tags = ["--tag", f"region={region}", "--tag", "model=x"]
        listed, _ = self.cluster.pushctl("clients", *tags)
        self.assertEqual({client["client_id"]: client["online"] for client in listed["clients"]},
                         {here.client_id: True, gone.client_id: False})
        text, _ = self.cluster.pushctl("push", *tags, "--text", "to the tags")
        self.assertEqual((text["target_count"], text["stored_count"]), (2, 1))
        path, digest = self.file(3 * MIB + 5)
        file, _ = self.cluster.pushctl("push", *tags, "--file", path)
        cancelled, _ = self.cluster.pushctl("push", *tags, "--text", "think better of it")
        stub = jobs_pb2_grpc.JobServiceStub(self.cluster.channel(self.cluster.gateways[0]))
        status = stub.Cancel(jobs_pb2.CancelJobRequest(job_id=cancelled["job_id"], reason="no"), timeout=SECONDS)
        self.assertEqual({row.client_id: row.state for row in status.targets}[gone.client_id], jobs_pb2.JobTarget.FAILED)
        wide, _ = self.cluster.pushctl("push", "--tag", f"region={region}", "--text", "to the region")
        self.assertEqual((wide["target_count"], wide["stored_count"]), (3, 1))
        quick, _ = self.cluster.pushctl("push", *tags, "--qos", "0", "--text", "who is there")
        eventually(lambda: "who is there" in processes.tail(here.log, 100), "best effort to the one that is there")
        gone.start([self.cluster.gateways[0]["listen"]])
        for job in (text, file, wide):
            final = ended(self.cluster, job["job_id"])
            self.assertEqual(final["state"], "SUCCEEDED", final)
        rows = {row["client_id"]: (row["state"], row["md5"]) for row in ended(self.cluster, file["job_id"])["targets"]}
        self.assertEqual(rows, {here.client_id: ("VERIFIED", digest), gone.client_id: ("VERIFIED", digest)})
        # Started once more, it gets none of it again.
        gone.stop()
        gone.start([self.cluster.gateways[1]["listen"]])
        last, _ = self.cluster.pushctl("push", "--tag", f"region={region}", "--text", "the last")
        self.assertEqual(ended(self.cluster, last["job_id"])["state"], "SUCCEEDED")

        def texts(agent):
            with open(agent.log, encoding="utf-8") as log:
                return re.findall(r"^text: (.*)$", log.read(), re.MULTILINE)
        self.assertEqual(texts(gone), ["to the tags", "to the region", "the last"])
        self.assertEqual(texts(here)[0], "to the tags")
        self.assertEqual(texts(other), ["to the region", "the last"])

    def test_to_all_also_who_is_away(self):
        agent = self.agent()
        self.away(agent)
        pushed, _ = self.cluster.pushctl("push", "--all", "--text", "kept for all")
        self.assertGreaterEqual(pushed["stored_count"], 1)
        agent.start([self.cluster.gateways[1]["listen"]])
        eventually(lambda: "kept for all" in processes.tail(agent.log, 100), "it comes on return")

    def test_by_the_direct_route(self):
        """Texts through calls between gateways: none of them stands in Kafka."""
        agent = self.agent((1, 0))
        before = counters(self.cluster.gateways[1])
        for qos in ["0", "1"]:
            pushed, _ = self.cluster.pushctl("push", "--client", agent.client_id, "--text", f"directly, {qos}", "--qos", qos,
                                             "--route", "direct")
            self.assertEqual(ended(self.cluster, pushed["job_id"])["state"], "SUCCEEDED")
        eventually(lambda: all(f"text: directly, {qos}" in processes.tail(agent.log, 100) for qos in "01"), "printed")
        self.assertEqual(counters(self.cluster.gateways[1]), before)
        _, code = self.cluster.pushctl("push", "--all", "--text", "no", "--route", "direct", check=False)
        self.assertEqual(code, 1)

    def test_a_push_that_waits_for_the_acknowledgement(self):
        agent = self.agent((1, 0))
        stub = Ours.PushStub(self.cluster.channel(self.cluster.gateways[0]))
        answer = stub.PushToClient(Ours.push.PushRequest(
            client_id=agent.client_id, message="answer me", keep=True, wait=Ours.push.PushRequest.WAIT_ACKNOWLEDGED,
            timeout_ms=SECONDS * 1000), timeout=SECONDS)
        self.assertEqual((answer.success, answer.acknowledged, answer.stored, answer.node_id),
                         (True, True, False, self.cluster.gateways[1]["name"]))
        self.assertIn("text: answer me", processes.tail(agent.log, 100))

    def test_clients_and_nodes(self):
        agent = self.agent((1, 0))
        clients, _ = self.cluster.pushctl("clients")
        row = next(client for client in clients["clients"] if client["client_id"] == agent.client_id)
        self.assertEqual((row["online"], row["node_id"]), (True, "gateway-2"))
        nodes, _ = self.cluster.pushctl("nodes")
        found = {node["node_id"]: node["address"] for node in nodes["nodes"]}
        for gateway in self.cluster.gateways:
            self.assertEqual(found[gateway["name"]], gateway["listen"])

    def test_to_all(self):
        agents = [self.agent((0, 1)), self.agent((1, 0))]
        pushed, _ = self.cluster.pushctl("push", "--all", "--text", "to everybody")
        for agent in agents:
            eventually(lambda: "to everybody" in processes.tail(agent.log, 100), f"{agent.client_id} has the text")
        self.assertTrue(pushed["job_id"])


class FanOut(unittest.TestCase):
    TEXTS = int(os.environ.get("FLEETPUSH_TEST_TEXTS", "3000"))
    AT_ONCE = 200
    BEAT = 50  # One heartbeat for so many texts.

    def test_texts_for_all_arrive_whole_and_in_one_order_beside_heartbeats(self):
        """What grpcio makes of streams whose frames are mostly written past nghttp2, while it asks and is answered on them.
        Calls that are under way together have no order, but all gateways read the same records in the same one."""
        cluster = shared()
        clients = [fresh("listener") for _ in cluster.gateways]
        sessions = [Session(Ours, cluster.channel(gateway), client) for gateway, client in zip(cluster.gateways, clients)]
        for client, session in zip(clients, sessions):
            self.addCleanup(session.close)
            online(cluster, client)
        submit = jobs_pb2_grpc.JobServiceStub(cluster.channel(cluster.gateways[0])).Submit
        under_way = collections.deque()
        for number in range(self.TEXTS):
            if len(under_way) == self.AT_ONCE:
                under_way.popleft().result()
            job = jobs_pb2.Job(targets=jobs_pb2.Targets(all=True), text=Ours.push.TextMessage(content=self.text(number)))
            under_way.append(submit.future(jobs_pb2.SubmitRequest(job=job), timeout=SECONDS))
            if number % self.BEAT == 0:
                for client, session in zip(clients, sessions):
                    session.send(heartbeat=Ours.push.Heartbeat(client_id=client, timestamp=number))
        for call in under_way:
            call.result()
        first, second = (self.heard(session) for session in sessions)
        self.assertEqual(first, second)
        self.assertEqual(sorted(first), list(range(self.TEXTS)))

    def heard(self, session):
        """The numbers of the texts in the order in which they came; all heartbeats have been answered in theirs, too."""
        numbers, beats = [], []
        while len(numbers) < self.TEXTS or len(beats) * self.BEAT < self.TEXTS:
            message = session.received.get(timeout=SECONDS)
            self.assertIsInstance(message, Ours.push.ServerMessage)
            if message.HasField("heartbeat"):
                beats.append(message.heartbeat.timestamp)
            elif message.text.content.startswith(self.id()):
                numbers.append(int(message.text.content.split()[1]))
                self.assertEqual(message.text.content, self.text(numbers[-1]))
        self.assertEqual(beats, list(range(0, self.TEXTS, self.BEAT)))
        return numbers

    def text(self, number):
        return f"{self.id()} {number} " + "x" * (number * 7919 % 900)


class KilledGateway(unittest.TestCase):
    SIZE = 128 * MIB
    PASSED = 40 * MIB  # More than a block of 20 MiB, so that there is something verified to go on from.

    def test_an_agent_goes_on_at_the_other_gateway(self):
        """A gate holds the download back after some bytes, so that kill -9 surely comes in the middle of it."""
        cluster = Cluster("--gateways", "2", "--uploaders", "1")
        self.addCleanup(cluster.down)
        killed, other = cluster.gateways
        gate = Gate(killed["listen"], self.PASSED)
        self.addCleanup(gate.close)
        agent = Agent(fresh("agent"), [gate.address, other["listen"]])
        self.addCleanup(agent.stop)
        online(cluster, agent.client_id, gateway=1)
        path, digest = self.file(agent.directory)
        upload, _ = cluster.pushctl("upload", path)
        cluster.gateways.reverse()  # pushctl talks to the one that stays.
        pushed, _ = cluster.pushctl("push", "--client", agent.client_id, "--file-id", upload["file_id"])
        self.assertTrue(gate.held.wait(SECONDS), "the download went past the gate's limit")
        cluster.run("kill", killed["name"])
        gate.close()

        final = ended(cluster, pushed["job_id"])
        row = final["targets"][0]
        self.assertEqual((row["state"], row["md5"], row["gateway"]), ("VERIFIED", digest, other["name"]))
        with open(row["path"], "rb") as copy:
            self.assertEqual(hashlib.file_digest(copy, "md5").hexdigest(), digest)
        served = metrics(other)["fleetpush_download_bytes_total"]
        self.assertLess(served, self.SIZE, "it began anew instead of going on")
        self.assertGreaterEqual(served, self.SIZE - self.PASSED)

    def file(self, directory):
        path, digest = os.path.join(directory, "source"), hashlib.md5()
        block = os.urandom(MIB)
        with open(path, "wb") as file:
            for number in range(self.SIZE // MIB):
                piece = number.to_bytes(8, "big") + block[8:]
                file.write(piece)
                digest.update(piece)
        return path, digest.hexdigest()


class DirectRouteToADeadNode(unittest.TestCase):
    def test_it_is_stored_and_comes_when_the_client_is_back(self):
        """The gateway of the client is killed and its lease still runs: the call fails, the inbox has the text."""
        cluster = Cluster("--gateways", "2", "--uploaders", "1")
        self.addCleanup(cluster.down)
        client = fresh("client")
        session = Session(Ours, cluster.channel(cluster.gateways[1]), client)
        online(cluster, client)
        cluster.run("kill", cluster.gateways[1]["name"])
        pushed, _ = cluster.pushctl("push", "--client", client, "--text", "after all", "--route", "direct")
        self.assertEqual((pushed["target_count"], pushed["stored_count"]), (1, 1))
        session.close()
        again = Session(Ours, cluster.channel(cluster.gateways[0]), client)
        self.addCleanup(again.close)
        self.assertEqual(again.next("text").text.content, "after all")


class Kills(unittest.TestCase):
    """Accepted means kept: numbered texts to an agent, while it and its gateways are killed with SIGKILL."""
    SEED = int(os.environ.get("FLEETPUSH_TEST_SEED", "1"))
    TEXTS = 80
    AGENT_KILLS, GATEWAY_KILLS = 8, 4

    def test_accepted_texts_come_once_and_in_order(self):
        chance = random.Random(self.SEED)
        cluster = Cluster("--gateways", "2", "--uploaders", "1")
        self.addCleanup(cluster.down)
        gateways = [gateway["listen"] for gateway in cluster.gateways]
        agent = Agent(fresh("agent"), gateways)
        self.addCleanup(agent.stop)
        online(cluster, agent.client_id)
        faults = dict.fromkeys(chance.sample(range(1, self.TEXTS), self.AGENT_KILLS + self.GATEWAY_KILLS), "gateway")
        for place in chance.sample(sorted(faults), self.AGENT_KILLS):
            faults[place] = "agent"

        accepted = []
        for number in range(self.TEXTS):
            fault = faults.get(number)
            if fault == "agent":
                agent.child.kill()
                agent.child.wait(timeout=SECONDS)
                agent.start(chance.sample(gateways, 2))
            elif fault == "gateway":
                name = chance.choice(cluster.gateways)["name"]
                cluster.run("kill", name)
                cluster.run("start", name)
            self.push(cluster, agent.client_id, number)
            accepted.append(number)

        seen = eventually(lambda: self.seen(agent) if set(accepted) <= set(self.seen(agent)) else None,
                          f"every accepted text (seed {self.SEED})", 60)
        first = list(dict.fromkeys(seen))
        self.assertEqual(first, accepted, f"lost or out of order (seed {self.SEED})")
        # A kill between handing over and writing down hands over again, and only that does.
        self.assertLessEqual(len(seen) - len(first), self.AGENT_KILLS, f"repeated (seed {self.SEED})")

    def push(self, cluster, client, number):
        """The same job id again until it is accepted: publishing twice is publishing once."""
        def accepted():
            _, code = cluster.pushctl("push", "--client", client, "--text", f"number {number};", "--job-id", f"{client}-{number}",
                                      check=False)
            return code == 0
        eventually(accepted, f"text {number} is accepted (seed {self.SEED})")

    def seen(self, agent):
        with open(agent.log, encoding="utf-8") as log:
            return [int(number) for number in re.findall(r"^text: number (\d+);$", log.read(), re.MULTILINE)]


if __name__ == "__main__":
    unittest.main()
