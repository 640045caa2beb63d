"""What the tests share: clusters, sessions and uploads, with our stubs or with those of existing clients."""

import atexit
import contextlib
import hashlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import grpc

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
for source in ["ops/lib", ".build/stubs/ours", ".build/stubs/seeds"]:
    sys.path.insert(0, os.path.join(ROOT, source))

import file_service_pb2  # noqa: E402  (the paths are set above)
import file_service_pb2_grpc  # noqa: E402
import file_transfer_pb2  # noqa: E402
import file_transfer_pb2_grpc  # noqa: E402
import push_pb2  # noqa: E402
import push_pb2_grpc  # noqa: E402
from filetransfer.v1 import filetransfer_pb2, filetransfer_pb2_grpc  # noqa: E402
from push.v1 import files_pb2, files_pb2_grpc, jobs_pb2, jobs_pb2_grpc  # noqa: E402
from push.v1 import push_pb2 as push_v1_pb2, push_pb2_grpc as push_v1_pb2_grpc  # noqa: E402

import processes  # noqa: E402

CONFIGURATION = os.environ.get("FLEETPUSH_TEST_CONFIGURATION", "debug")
PROGRAMS = os.path.join(ROOT, ".build", CONFIGURATION)
CLUSTER = os.path.join(ROOT, "ops", "cluster")
SECONDS = 20  # No single answer may take longer.
WORK = os.path.join(ROOT, ".build", "test-work")  # Folders of clusters and agents; what an earlier run left goes.

# Past its time the test command sends SIGTERM: end as usual, so that the clusters are stopped.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
shutil.rmtree(WORK, ignore_errors=True)


def folder(prefix):
    """A new folder for a cluster or an agent."""
    os.makedirs(WORK, exist_ok=True)
    return tempfile.mkdtemp(prefix=prefix + "-", dir=WORK)


class Ours:
    """Stubs made from Protos/."""

    push, files, transfer = push_v1_pb2, files_pb2, filetransfer_pb2
    PushStub = push_v1_pb2_grpc.PushServiceStub
    FileStub = files_pb2_grpc.FileServiceStub
    TransferStub = filetransfer_pb2_grpc.FileTransferServiceStub


class Seeds:
    """Stubs made from the contract of existing clients, on its own paths."""

    push, files, transfer = push_pb2, file_service_pb2, file_transfer_pb2
    PushStub = push_pb2_grpc.PushServiceStub
    FileStub = file_service_pb2_grpc.FileServiceStub
    TransferStub = file_transfer_pb2_grpc.FileTransferServiceStub


class Cluster:
    """A cluster of ops/cluster in a folder of its own; its servers as `up --json` prints them."""

    def __init__(self, *options):
        self.directory = folder("cluster")
        self.channels = []
        atexit.register(self.down)
        self.info = self.up(*options)
        self.gateways = self.info["gateways"]
        self.uploaders = self.info["uploaders"]

    def up(self, *options):
        """Starts it, again with other ports where somebody else has bound one of them meanwhile."""
        for _ in range(4):
            done = self.run("up", "--configuration", CONFIGURATION, *options, "--json", check=False)
            if done.returncode == 0 or "already in use" not in done.stderr.lower():
                break
        if done.returncode != 0:
            raise AssertionError(f"cluster up: {done.stderr}")
        return json.loads(done.stdout)

    def run(self, verb, *options, check=True):
        done = subprocess.run([CLUSTER, verb, *options, "--dir", self.directory], capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"cluster {verb}: {done.stderr}")
        return done

    def down(self):
        atexit.unregister(self.down)
        for channel in self.channels:
            channel.close()
        self.channels = []
        return self.run("down")

    def channel(self, server):
        """A connection of its own to a server of `gateways` or `uploaders`."""
        channel = grpc.insecure_channel(server["listen"], options=[
            ("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)])
        self.channels.append(channel)
        return channel

    def control(self):
        """The arguments that lead pushctl to this cluster."""
        return ["--gateway", self.gateways[0]["listen"], "--uploader", self.uploaders[0]["listen"]]

    def pushctl(self, *arguments, check=True):
        """Runs `pushctl … --json`; gives (what it printed as JSON, exit code)."""
        done = subprocess.run([f"{PROGRAMS}/pushctl", *arguments, *self.control(), "--json"],
                              capture_output=True, text=True, timeout=120, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"pushctl {arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return (json.loads(done.stdout) if done.stdout.strip() else None), done.returncode


_shared = []


def shared():
    """One cluster for all tests that break nothing."""
    if not _shared:
        _shared.append(Cluster("--gateways", "2", "--uploaders", "2"))
    return _shared[0]


def metrics(server, label=""):
    """Every sample of a server's /metrics that has the label (all without one) by name, summed over its labels."""
    with urllib.request.urlopen(f"http://{server['admin']}/metrics", timeout=SECONDS) as response:
        lines = response.read().decode().splitlines()
    sums = {}
    for line in lines:
        if line and not line.startswith("#") and label in line:
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0]
            sums[name] = sums.get(name, 0) + float(value)
    return sums


class Session:
    """A Connect stream, with what came on it in a queue."""

    def __init__(self, wire, channel, client_id=None):
        self.wire = wire
        self.received = queue.Queue()
        self.requests = queue.Queue()
        self.call = wire.PushStub(channel).Connect(iter(self.requests.get, None))
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        if client_id is not None:
            self.register(client_id)

    def read(self):
        try:
            for message in self.call:
                self.received.put(message)
            self.received.put(None)
        except grpc.RpcError as error:
            self.received.put(error)

    def register(self, client_id):
        self.send(register=self.wire.push.RegisterRequest(client_id=client_id))

    def send(self, **payload):
        self.requests.put(self.wire.push.ClientMessage(**payload))

    def next(self, kind):
        """The next message of this kind; skips others."""
        deadline = time.monotonic() + SECONDS
        while True:
            message = self.received.get(timeout=max(0, deadline - time.monotonic()))
            if message is None or isinstance(message, grpc.RpcError):
                raise AssertionError(f"the stream ended before a {kind}: {message}")
            if message.WhichOneof("payload") == kind:
                return message

    def error(self):
        """The status that the stream ends with."""
        while True:
            message = self.received.get(timeout=SECONDS)
            if isinstance(message, grpc.RpcError):
                return message
            if message is None:
                raise AssertionError("the stream ended without an error")

    def close(self):
        self.requests.put(None)
        self.call.cancel()
        self.reader.join(SECONDS)


class Upload:
    """An Upload stream that is fed chunk by chunk."""

    def __init__(self, wire, channel):
        self.requests = queue.Queue()
        self.answer = wire.TransferStub(channel).Upload.future(iter(self.requests.get, None))

    def send(self, chunk):
        self.requests.put(chunk)

    def finish(self):
        """Ends the stream and gives the UploadStatus."""
        self.requests.put(None)
        return self.answer.result(timeout=SECONDS)


class Gate:
    """A TCP proxy that lets a number of bytes pass from the server, then holds everything back until it is closed."""

    def __init__(self, target, limit):
        self.target = target
        self.left = limit
        self.held = threading.Event()
        self.lock = threading.Lock()
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            host, _, port = self.target.rpartition(":")
            try:
                server = socket.create_connection((host, int(port)))
            except OSError:
                client.close()
                continue
            self.sockets += [client, server]
            threading.Thread(target=self.copy, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self.copy, args=(server, client, True), daemon=True).start()

    def copy(self, source, sink, counted):
        try:
            while data := source.recv(65536):
                if counted:
                    with self.lock:
                        self.left -= len(data)
                    if self.left < 0:
                        self.held.set()
                        return
                sink.sendall(data)
        except OSError:
            pass

    def close(self):
        for endpoint in [self.listener, *self.sockets]:
            # shutdown wakes a thread that is blocked in accept or recv; close alone does not.
            with contextlib.suppress(OSError):
                endpoint.shutdown(socket.SHUT_RDWR)
            endpoint.close()


def chunk(wire, file_id, data, offset, length, **fields):
    """One chunk of `data`, with its MD5."""
    piece = data[offset:offset + length]
    return wire.transfer.FileChunk(
        file_id=file_id, offset=offset, total_size=len(data), data=piece, chunk_md5=hashlib.md5(piece).hexdigest(),
        is_last=offset + length >= len(data), **fields)


def upload(cluster, data, file_id, length=1 << 20):
    """Uploads a file in the plain way, with our stubs."""
    stream = Upload(Ours, cluster.channel(cluster.uploaders[0]))
    for offset in range(0, len(data), length):
        stream.send(chunk(Ours, file_id, data, offset, length))
    status = stream.finish()
    assert status.success, status.message
    return status


def eventually(condition, what, seconds=SECONDS):
    """Waits until the condition gives something true, and returns it."""
    value = processes.wait_until(condition, seconds)
    if not value:
        raise AssertionError(f"not within {seconds} s: {what}")
    return value


def online(cluster, client_id, gateway=0, seconds=SECONDS):
    """Waits until the registry knows the client as connected."""
    stub = jobs_pb2_grpc.DirectoryServiceStub(cluster.channel(cluster.gateways[gateway]))

    def there():
        page = stub.ListClients(jobs_pb2.ListClientsRequest(online_only=True), timeout=SECONDS)
        return any(client.client_id == client_id for client in page.clients)
    eventually(there, f"{client_id} online", seconds)


def md5(data):
    return hashlib.md5(data).hexdigest()
