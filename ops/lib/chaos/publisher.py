"""Numbered messages at a steady rate: each is published with the same job id until a gateway has accepted it."""

import asyncio
import hashlib
import random
import time

import grpc
from push.v1 import jobs_pb2, jobs_pb2_grpc, push_pb2

ATTEMPT_SECONDS = 2
DEADLINE_SECONDS = 10  # Then a message is given up: it may arrive or not.
PAUSE_SECONDS = 0.2


def content(client, number, padding):
    text = f"{client} {number} {padding}"
    return f"{text} {hashlib.md5(text.encode()).hexdigest()}"


def parsed(text):
    """(client, number) of a content that is as it was sent; None for anything else."""
    body, _, digest = text.rpartition(" ")
    words = body.split(" ")
    if len(words) != 3 or hashlib.md5(body.encode()).hexdigest() != digest or not words[1].isdigit():
        return None
    return words[0], int(words[1])


def job_id(client, number):
    return f"{client}.{number}"


class Publisher:
    """Sends to one client one message after the other, to all clients in turn as chance has it."""

    def __init__(self, gateways, clients, rate, seed, journal):
        self.chance = random.Random(f"{seed} publisher")
        self.channels = [grpc.aio.insecure_channel(gateway, options=[
            ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 300), ("grpc.enable_http_proxy", 0)]) for gateway in gateways]
        self.jobs = [jobs_pb2_grpc.JobServiceStub(channel) for channel in self.channels]
        self.directory = [jobs_pb2_grpc.DirectoryServiceStub(channel) for channel in self.channels]
        self.idle = list(clients)
        self.rate = rate
        self.next = dict.fromkeys(clients, 0)
        self.accepted = {client: [] for client in clients}  # Numbers in the order of acceptance.
        self.given_up = {client: [] for client in clients}
        self.attempts = 0
        self.skipped = 0  # Ticks at which every client still waited for an earlier message.
        self.running = set()
        self.journal = open(journal, "w", encoding="ascii")  # noqa: SIM115 (it lives as long as the publisher)

    async def run(self, seconds):
        began = time.monotonic()
        for tick in range(int(seconds * self.rate)):
            await asyncio.sleep(max(0, began + tick / self.rate - time.monotonic()))
            if time.monotonic() > began + seconds:
                break
            if not self.idle:
                self.skipped += 1
                continue
            place = self.chance.randrange(len(self.idle))
            self.idle[place], self.idle[-1] = self.idle[-1], self.idle[place]
            task = asyncio.ensure_future(self.publish(self.idle.pop()))
            self.running.add(task)
            task.add_done_callback(self.running.discard)
        if self.running:
            await asyncio.wait(self.running, timeout=DEADLINE_SECONDS + ATTEMPT_SECONDS + 1)
        self.journal.close()

    async def publish(self, client):
        number = self.next[client]
        self.next[client] += 1
        padding = "x" * self.chance.randrange(0, 300)
        job = jobs_pb2.Job(
            job_id=job_id(client, number), targets=jobs_pb2.Targets(client_ids=[client]), qos=jobs_pb2.QOS_AT_LEAST_ONCE,
            text=push_pb2.TextMessage(content=content(client, number, padding)))
        request = jobs_pb2.SubmitRequest(job=job)
        began = time.monotonic()
        gateway = self.chance.randrange(len(self.jobs))
        outcome = "given-up"
        tries = 0
        while time.monotonic() < began + DEADLINE_SECONDS:
            self.attempts += 1
            tries += 1
            try:
                await self.jobs[gateway].Submit(request, timeout=ATTEMPT_SECONDS)
                outcome = "accepted"
                break
            except grpc.aio.AioRpcError as error:
                self.note(f"{client} {number} refused {gateway} {error.code().name} {error.details()}")
                gateway = (gateway + 1) % len(self.jobs)
                await asyncio.sleep(PAUSE_SECONDS)
        (self.accepted if outcome == "accepted" else self.given_up)[client].append(number)
        self.note(f"{client} {number} {outcome} {gateway} {tries} {(time.monotonic() - began) * 1000:.0f}ms")
        self.idle.append(client)

    def note(self, line):
        self.journal.write(f"{time.time():.3f} {line}\n")

    async def close(self):
        for channel in self.channels:
            await channel.close()

    # What the cluster says of itself.

    async def clients(self, gateway):
        """The directory of clients, as one gateway tells it."""
        found, token = {}, ""
        while True:
            page = await self.directory[gateway].ListClients(
                jobs_pb2.ListClientsRequest(page_size=1000, page_token=token), timeout=ATTEMPT_SECONDS)
            found.update((client.client_id, client) for client in page.clients)
            token = page.next_page_token
            if not token:
                return found

    async def unacknowledged(self, messages, limit=64):
        """Those of the messages (client, number) whose rows aren't ACKNOWLEDGED."""
        left, missing = list(messages), []

        async def work(gateway):
            while left:
                client, number = left.pop()
                try:
                    status = await self.jobs[gateway].Get(
                        jobs_pb2.GetJobRequest(job_id=job_id(client, number)), timeout=5)
                    states = [target.state for target in status.targets]
                except grpc.aio.AioRpcError as error:
                    states = [error.code().name]
                if states != [jobs_pb2.JobTarget.ACKNOWLEDGED]:
                    missing.append((client, number, states))
        await asyncio.gather(*(work(index % len(self.jobs)) for index in range(limit)))
        return missing
