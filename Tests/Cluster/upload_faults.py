"""Uploads while uploaders, Redis and the disk fail: what test_upload_faults.py runs briefly and ops/soak-uploads at length.

What is checked is the bytes, not the status: every file ends right, is never visible before it is, and every endpoint
sees one notice of it. A seed replays a run's choices.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import grpc  # noqa: E402
import support  # noqa: E402
from filetransfer.v1 import filetransfer_pb2 as pb, filetransfer_pb2_grpc as stubs  # noqa: E402
from push.v1 import jobs_pb2, push_pb2  # noqa: E402

CHUNK = 1 << 20
PATIENCE = 90  # Seconds that one file may take, whatever fails.

# Every arrow of receive and finalise (Sources/Ground/Safeguards/FailPoint.swift) that a run of a few dozen MiB reaches.
BEGINNING = ["partCreated", "journalCreated"]
TAKEOVER = ["claimed", "partRenamed", "journalRenamed", "stateMerged"]
RECEIVING = ["chunkChecked", "chunkWritten", "dataSynced", "journalWritten", "journalSynced", "chunksRecorded",
             "blocksDigested", "prefixDigested"]
FINALISING = ["noticeIndexed", "finalisingBegun", "wholeDigested", "fileSynced", "fileNamed", "directoriesSynced",
              "sidecarWritten", "sidecarNamed", "verified", "noticeSent", "published", "journalRemoved"]
POINTS = BEGINNING + TAKEOVER + RECEIVING + FINALISING


class Uploader:
    """An uploader of a cluster, started and ended by the test."""

    def __init__(self, rig, index):
        self.rig = rig
        self.listen = f"127.0.0.1:{support.processes.free_port()}"
        self.admin = f"127.0.0.1:{support.processes.free_port()}"
        self.log = open(os.path.join(rig.cluster.directory, "logs", f"faulty-{index}.log"), "ab")
        self.process = None
        self.channel = None

    def start(self, fail_at=None):
        environment = dict(os.environ, FLEETPUSH_FAIL_AT=fail_at or "")
        self.process = subprocess.Popen(
            [f"{support.PROGRAMS}/uploader", "--listen", self.listen, "--advertise", self.listen, "--admin", self.admin,
             "--redis", self.rig.cluster.info["redis"], "--kafka", self.rig.cluster.info["kafka"], "--store",
             self.rig.store, "--lease", "1s", "--sweep", "1s", "--log-level", "info"],
            env=environment, stderr=self.log, stdout=self.log)
        if not support.processes.wait_until(lambda: support.processes.accepts(self.listen) or self.is_dead(), 20):
            raise AssertionError("an uploader did not start")

    def is_dead(self):
        return self.process is None or self.process.poll() is not None

    def kill(self):
        if not self.is_dead():
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def stub(self):
        if self.channel is None:
            self.channel = grpc.insecure_channel(self.listen, options=[
                ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0),
                ("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)])
        return stubs.FileTransferServiceStub(self.channel)

    def close(self):
        if self.channel:
            self.channel.close()
        if not self.is_dead():
            self.process.terminate()
            self.process.wait(20)
        self.log.close()


class Rig:
    """A cluster, an endpoint that sees notices, and two uploaders that can be made to fail."""

    def __init__(self, seed, store=None):
        self.random = random.Random(seed)
        self.cluster = support.Cluster("--gateways", "1", "--uploaders", "1")
        self.store = store or self.cluster.info["store"]
        self.uploaders = [Uploader(self, 1), Uploader(self, 2)]
        self.session = support.Session(support.Ours, self.cluster.channel(self.cluster.gateways[0]), "watcher")
        support.online(self.cluster, "watcher")
        self.is_over = threading.Event()
        self.heart = threading.Thread(target=self.beat, daemon=True)
        self.heart.start()
        self.notices = {}
        self.kills = 0
        self.refused = 0
        self.problems = []
        self.number = 0

    def beat(self):
        """A silent endpoint would be closed."""
        while not self.is_over.wait(5):
            self.session.send(heartbeat=push_pb2.Heartbeat(client_id="watcher", timestamp=int(time.time() * 1000)))

    def close(self):
        self.is_over.set()
        for uploader in self.uploaders:
            uploader.close()
        self.session.close()
        self.cluster.down()

    # MARK: one file

    def file(self, low, high):
        self.number += 1
        size = self.random.randint(low, high)
        return f"file-{os.getpid()}-{self.number}", self.random.randbytes(size)

    def send(self, uploader, name, data, offsets, streams=3, seconds=20):
        """Sends chunks over several streams; gives the statuses, or errors in their place."""
        results = []
        digest = hashlib.md5(data).hexdigest()
        job = jobs_pb2.Job(job_id=f"job-{name}", targets=jobs_pb2.Targets(client_ids=["watcher"]))

        def requests(mine):
            for position, offset in enumerate(mine):
                piece = data[offset:offset + CHUNK]
                chunk = pb.FileChunk(file_id=name, offset=offset, total_size=len(data), data=piece,
                                     chunk_md5=hashlib.md5(piece).hexdigest())
                if position == 0:
                    chunk.meta.CopyFrom(pb.FileMeta(file_name=name + ".bin", file_md5=digest, session_id="s-" + name, job=job))
                yield chunk

        def stream(mine):
            try:
                results.append(uploader.stub().Upload(requests(mine), timeout=seconds))
            except grpc.RpcError as error:
                results.append(error)
        threads = [threading.Thread(target=stream, args=(offsets[i::streams],)) for i in range(streams) if offsets[i::streams]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    def missing(self, uploader, name, data):
        """The offsets of chunks that are not durable, as the uploader says; all when it doesn't answer."""
        every = list(range(0, len(data), CHUNK))
        try:
            known = uploader.stub().QueryUploadedChunks(pb.FileIdentifier(file_id=name), timeout=5)
        except grpc.RpcError:
            return None
        there = dict(zip(known.offsets, known.lengths))
        return [offset for offset in every if there.get(offset, 0) < min(CHUNK, len(data) - offset)]

    def visible(self, name):
        """The published file's bytes; None while it has no sidecar."""
        path = os.path.join(self.store, "files", hashlib.md5(name.encode()).hexdigest()[:2], name)
        if not os.path.exists(path + "~.json"):
            return None
        with open(path, "rb") as file:
            return file.read()

    def check_visible(self, name, data, what):
        seen = self.visible(name)
        if seen is not None and seen != data:
            self.problems.append(f"{what}: {name} is visible with wrong bytes")

    def complete(self, name, data, what, revive=()):
        """Goes on until the file is done, over whichever uploader answers; dead ones of `revive` come back by and by."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.check_visible(name, data, what)
            for uploader in revive:
                if uploader.is_dead() and self.random.random() < 0.5:
                    uploader.start()
            alive = [uploader for uploader in self.uploaders if not uploader.is_dead()]
            if not alive:
                time.sleep(0.05)
                continue
            uploader = self.random.choice(alive)
            offsets = self.missing(uploader, name, data)
            if offsets is None:
                time.sleep(0.1)
                continue
            results = self.send(uploader, name, data, offsets or [0])
            if any(getattr(result, "success", False) for result in results):
                break
            time.sleep(0.05)
        else:
            self.problems.append(f"{what}: {name} not done within {PATIENCE} s")
            return
        if self.visible(name) != data:
            self.problems.append(f"{what}: {name} has wrong bytes in the end")
        if not self.noticed(name):
            # An uploader may have told it on its own while a Redis without data didn't know any endpoint yet.
            status, _ = self.cluster.pushctl("status", f"job-{name}", check=False)
            if "No client of this id" in json.dumps(status):
                self.refused += 1
            else:
                self.problems.append(f"{what}: no notice of {name}: {status}")

    def noticed(self, name, seconds=30):
        """Whether the endpoint has heard of the file."""
        deadline = time.monotonic() + seconds
        while name not in self.notices and time.monotonic() < deadline:
            self.drain_notices(0.2)
        return name in self.notices

    def drain_notices(self, seconds=0.0):
        with contextlib.suppress(Exception):
            while True:
                message = self.session.received.get(timeout=seconds)
                if isinstance(message, push_pb2.ServerMessage) and message.WhichOneof("payload") == "file_notice":
                    self.notices.setdefault(message.file_notice.file_id, set()).add(message.message_id)

    def check_notices(self):
        """Ids are what an agent dedupes by: one a file is one notice seen."""
        self.drain_notices(1.0)
        for name, ids in self.notices.items():
            if len(ids) != 1:
                self.problems.append(f"{name} was announced as {len(ids)} messages")

    # MARK: rounds

    def kill_at(self, point, second_alive):
        """An uploader dies by its own hand at a fail point while it takes a file in; what it left is gone on with."""
        first, second = self.uploaders
        what = f"{point}, {'two nodes' if second_alive else 'alone'}"
        name, data = self.file(21 << 20, 26 << 20) if point in RECEIVING[-2:] else self.file(3 << 20, 9 << 20)
        second.kill()
        if first.is_dead():
            first.start()
        if point not in BEGINNING:
            # What an earlier life of it has begun.
            offsets = list(range(0, len(data), CHUNK))
            self.send(first, name, data, self.random.sample(offsets, len(offsets) // 3))
        first.kill()
        turn = self.random.randint(1, 3) if point in RECEIVING[:2] else 1
        first.start(f"{point}:{turn}")
        if second_alive:
            second.start()
        results = self.send(first, name, data, self.missing(first, name, data) or [0])
        self.check_visible(name, data, what)
        # What is done after the answer, or by the relay.
        if support.processes.wait_until(first.is_dead, 20) and first.process.returncode == -signal.SIGKILL:
            self.kills += 1
        else:
            self.problems.append(f"{what}: the point was not reached: {results}")
            first.kill()
        self.complete(name, data, what, revive=[first])

    def redis_dies(self, with_data):
        """Redis is killed while chunks come, and comes back with its data or without."""
        what = f"redis {'with' if with_data else 'without'} its data"
        for uploader in self.uploaders:
            if uploader.is_dead():
                uploader.start()
        name, data = self.file(20 << 20, 30 << 20)
        offsets = list(range(0, len(data), CHUNK))
        sender = threading.Thread(target=self.send, args=(self.uploaders[0], name, data, offsets))
        sender.start()
        time.sleep(self.random.uniform(0.02, 0.4))
        self.cluster.run("kill", "redis")
        self.kills += 1
        if not with_data:
            shutil.rmtree(os.path.join(self.cluster.directory, "redis", "appendonlydir"), ignore_errors=True)
        time.sleep(self.random.uniform(0, 0.5))
        self.cluster.run("start", "redis")
        sender.join()
        if not with_data:
            # A notice for an endpoint that the registry doesn't know yet again would be refused.
            support.online(self.cluster, "watcher", seconds=40)
        self.complete(name, data, what)

    def client_dies(self):
        """The client is gone in the middle of its streams, without a word."""
        what = "client killed"
        if self.uploaders[0].is_dead():
            self.uploaders[0].start()
        name, data = self.file(10 << 20, 20 << 20)
        offsets = list(range(0, len(data), CHUNK))
        self.send(self.uploaders[0], name, data, offsets, seconds=self.random.uniform(0.02, 0.3))
        self.kills += 1
        self.complete(name, data, what)

    # MARK: the disk

    def disk_fails(self, disk, what, rules, code, at_once=True):
        """The disk misbehaves while chunks come: the client is told `code`; afterwards the upload goes on where it was.

        With `at_once` the rules hold from the first chunk, else when a third of the file is there.
        """
        for uploader in self.uploaders:
            if uploader.is_dead():
                uploader.start()
        name, data = self.file(24 << 20, 30 << 20)
        offsets = list(range(0, len(data), CHUNK))
        if not at_once:
            self.send(self.uploaders[0], name, data, offsets[:len(offsets) // 3])
        before = self.missing(self.uploaders[0], name, data)
        disk.behave(rules)
        results = self.send(self.uploaders[0], name, data, before or offsets)
        codes = {result.code().name if isinstance(result, grpc.RpcError) else "answered" for result in results}
        if code and code not in codes:
            self.problems.append(f"{what}: {codes} instead of {code}")
        if code and any(getattr(result, "success", False) for result in results):
            self.problems.append(f"{what}: said to be done")
        self.check_visible(name, data, what)
        disk.behave({})
        durable = len(offsets) - len(self.missing(self.uploaders[0], name, data) or [])
        self.complete(name, data, what)
        return f"{what}: {', '.join(sorted(codes))}; {durable} of {len(offsets)} chunks durable; ended right afterwards"


class FaultyDisk:
    """A directory behind faultfs.py, whose operations are slow or fail as `behave` says."""

    def __init__(self, tool):
        self.folder = support.folder("disk")
        self.mountpoint = os.path.join(self.folder, "store")
        self.control = os.path.join(self.folder, "control.json")
        for path in [self.mountpoint, os.path.join(self.folder, "backing")]:
            os.mkdir(path)
        self.behave({})
        self.process = subprocess.Popen(
            ["/usr/bin/python3", tool, os.path.join(self.folder, "backing"), self.mountpoint, self.control],
            stderr=subprocess.DEVNULL)
        if not support.processes.wait_until(lambda: os.path.ismount(self.mountpoint), 10):
            raise AssertionError("faultfs did not mount")

    def behave(self, rules):
        with open(self.control + ".new", "w", encoding="utf-8") as file:
            json.dump(rules, file)
        os.rename(self.control + ".new", self.control)

    def close(self):
        subprocess.run(["fusermount3", "-u", "-z", self.mountpoint], check=False)
        self.process.wait(10)


class SmallDisk:
    """A real file system of few MiB, which takes a part of the last write before it is full."""

    def __init__(self, mebibytes):
        self.mountpoint = support.folder("small-disk")
        self.mebibytes = mebibytes
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", self.mountpoint], check=True)

    def behave(self, rules):
        """{"size": n} makes it n MiB; {} makes it large enough."""
        size = rules.get("size", 512)
        subprocess.run(["mount", "-o", f"remount,size={size}m", self.mountpoint], check=True)

    def close(self):
        subprocess.run(["umount", "-l", self.mountpoint], check=False)


# What a disk does, and what the client hears of it.
DISK_FAULTS = [
    ("ENOSPC on write", {"write": {"errno": "ENOSPC", "match": ".part"}}, "RESOURCE_EXHAUSTED"),
    ("EDQUOT on write", {"write": {"errno": "EDQUOT", "match": ".part"}}, "RESOURCE_EXHAUSTED"),
    ("EIO on write", {"write": {"errno": "EIO", "match": ".part"}}, "UNAVAILABLE"),
    ("ESTALE on write", {"write": {"errno": "ESTALE", "match": ".part"}}, "UNAVAILABLE"),
    ("EIO on fsync of the data", {"fsync": {"errno": "EIO", "match": ".part"}}, "UNAVAILABLE"),
    ("ENOSPC on fsync of the data", {"fsync": {"errno": "ENOSPC", "match": ".part"}}, "RESOURCE_EXHAUSTED"),
    ("EIO on write of the journal", {"write": {"errno": "EIO", "match": ".journal"}}, "UNAVAILABLE"),
    ("EIO on fsync of the journal", {"fsync": {"errno": "EIO", "match": ".journal"}}, "UNAVAILABLE"),
    ("EIO on read", {"read": {"errno": "EIO", "match": ".part"}}, None),
    ("EIO on rename", {"rename": {"errno": "EIO", "match": ".part"}}, "UNAVAILABLE"),
    ("one operation in ten fails", {kind: {"errno": "EIO", "p": 0.1} for kind in ["write", "fsync", "rename"]}, None),
    ("every sync takes 0.5 s", {"fsync": {"delay": 0.5}}, None),
]
