"""Uploads: pushctl against uploaders that die, behind nginx, interrupted; and clients of the existing contract that resume."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import unittest

import grpc

from support import (PROGRAMS, ROOT, SECONDS, Cluster, Ours, Seeds, Upload, chunk, eventually, folder, md5, metrics, processes,
                     shared)
from test_contract import fresh

MIB = 1 << 20
BLOCK = 20 * MIB


def make_file(size, name="file"):
    """A file of random bytes in a folder of its own; gives (path, content)."""
    path = os.path.join(folder("source"), name)
    content = random.Random(size).randbytes(size)
    with open(path, "wb") as file:
        file.write(content)
    return path, content


def stored(cluster, file_id):
    """The bytes that stand under the final name."""
    with open(os.path.join(cluster.info["store"], "files", md5(file_id.encode())[:2], file_id), "rb") as file:
        return file.read()


def begin(cluster, path, *options, uploaders=None):
    """pushctl upload, running."""
    addresses = uploaders or [server["listen"] for server in cluster.uploaders]
    return subprocess.Popen([f"{PROGRAMS}/pushctl", "upload", path, "--uploader", ",".join(addresses), "--json", *options],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(child):
    """(exit code, what it printed as JSON, stderr)"""
    out, err = child.communicate(timeout=120)
    return child.returncode, json.loads(out) if out.strip() else None, err


def taken(server):
    """Bytes of chunks that an uploader has written since it was started."""
    return metrics(server).get("fleetpush_upload_bytes_total", 0)


class Client(unittest.TestCase):
    """pushctl upload."""

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("--uploaders", "3")

    @classmethod
    def tearDownClass(cls):
        cls.cluster.down()

    def owner(self, least, timeout=SECONDS):
        """The uploader that has taken most since the test began, once it has taken so much."""
        def found():
            most = max(self.alive, key=lambda server: taken(server) - self.before[server["name"]])
            return most if taken(most) - self.before[most["name"]] >= least else None
        return eventually(found, f"an uploader with {least} bytes", timeout)

    def setUp(self):
        self.alive = list(self.cluster.uploaders)
        self.before = {server["name"]: taken(server) for server in self.alive}

    def restart(self, server):
        self.cluster.run("start", server["name"])

    def test_the_uploader_is_killed_and_the_next_one_ends_it(self):
        path, content = make_file(192 * MIB)
        child = begin(self.cluster, path)
        owner = self.owner(24 * MIB)
        self.cluster.run("kill", owner["name"])
        self.addCleanup(self.restart, owner)
        code, report, error = end(child)
        self.assertEqual(code, 0, error)
        self.assertEqual(report["md5"], md5(content))
        self.assertTrue(stored(self.cluster, report["file_id"]) == content)

    def test_all_uploaders_are_killed_and_come_back(self):
        path, content = make_file(128 * MIB)
        child = begin(self.cluster, path)
        self.owner(24 * MIB)
        for server in self.alive:
            self.cluster.run("kill", server["name"])
        for server in self.alive:
            self.restart(server)
        code, report, error = end(child)
        self.assertEqual(code, 0, error)
        self.assertTrue(stored(self.cluster, report["file_id"]) == content)

    def test_the_client_is_interrupted_and_the_same_command_goes_on(self):
        for number, code in [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]:
            with self.subTest(number.name):
                path, content = make_file(192 * MIB + number)
                before = {server["name"]: taken(server) for server in self.alive}
                self.before = before
                child = begin(self.cluster, path)
                self.owner(48 * MIB)
                child.send_signal(number)
                ended, report, error = end(child)
                self.assertEqual(ended, code, error)
                self.assertIsNone(report)
                ended, report, error = end(begin(self.cluster, path))
                self.assertEqual(ended, 0, error)
                self.assertGreaterEqual(report["bytes_known"], 8 * MIB)
                self.assertLessEqual(report["bytes_sent"], len(content) - report["bytes_known"])
                self.assertTrue(stored(self.cluster, report["file_id"]) == content)
                # Once more: it is there.
                ended, again, error = end(begin(self.cluster, path))
                self.assertEqual(ended, 0, error)
                self.assertEqual((again["file_id"], again["md5"], again["bytes_sent"]),
                                 (report["file_id"], md5(content), 0))

    def test_folders_with_many_files(self):
        top = folder("tree")
        contents = {}
        for index in range(300):
            path = os.path.join(top, str(index % 9), f"{index}.bin")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            contents[path] = random.Random(index).randbytes(index * 61)
            with open(path, "wb") as file:
                file.write(contents[path])
        code, reports, error = end(begin(self.cluster, top))
        self.assertEqual(code, 0, error)
        self.assertEqual([report["path"] for report in reports], sorted(contents))
        for report in reports:
            self.assertEqual(report["md5"], md5(contents[report["path"]]))
            self.assertEqual(stored(self.cluster, report["file_id"]), contents[report["path"]])

    def test_one_that_fails_is_named_and_the_others_arrive(self):
        path, content = make_file(3 * MIB)
        child = subprocess.Popen([f"{PROGRAMS}/pushctl", "upload", path, "/no/such", *self.cluster.control(), "--json"],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        code, reports, error = end(child)
        self.assertEqual(code, 1)
        self.assertEqual(reports[0]["md5"], md5(content))
        self.assertEqual(reports[1]["error"], "/no/such: No such file or directory")
        self.assertIn("/no/such: No such file or directory", error)


class Breakpoints(unittest.TestCase):
    """What an upload that broke off goes through before it goes on."""

    def setUp(self):
        self.cluster = Cluster("--uploaders", "2")
        self.addCleanup(self.cluster.down)

    def broken_off(self, size, least):
        """An upload by pushctl that was killed, with so much of it safe; gives (path, content, file id)."""
        path, content = make_file(size)
        name = fresh("broken")
        child = begin(self.cluster, path, "--file-id", name)
        stub = Ours.TransferStub(self.cluster.channel(self.cluster.uploaders[0]))
        request = Ours.transfer.FileIdentifier(file_id=name)
        eventually(lambda: sum(stub.QueryUploadedChunks(request, timeout=SECONDS).lengths) >= least, "enough is safe")
        child.kill()
        end(child)
        return path, content, name

    def restart_uploaders(self):
        for server in self.cluster.uploaders:
            self.cluster.run("kill", server["name"])
        for server in self.cluster.uploaders:
            self.cluster.run("start", server["name"])

    def test_uploaded_40_MiB_damaged_on_disk_and_sent_on(self):
        path, content, name = self.broken_off(208 * MIB, 2 * BLOCK)
        incoming = os.path.join(self.cluster.info["store"], "incoming")
        part = next(os.path.join(incoming, file) for file in os.listdir(incoming)
                    if file.startswith(name) and file.endswith(".part"))
        with open(part, "r+b") as file:
            file.seek(BLOCK // 2)
            byte = file.read(1)
            file.seek(BLOCK // 2)
            file.write(bytes([byte[0] ^ 1]))
            file.flush()
            os.fsync(file.fileno())
        self.restart_uploaders()
        code, report, error = end(begin(self.cluster, path, "--file-id", name))
        self.assertEqual(code, 0, error)
        self.assertEqual(report["md5"], md5(content))
        self.assertTrue(stored(self.cluster, name) == content)

    def test_uploaders_restarted_between(self):
        path, content, name = self.broken_off(192 * MIB, 2 * BLOCK)
        self.restart_uploaders()
        code, report, error = end(begin(self.cluster, path, "--file-id", name))
        self.assertEqual(code, 0, error)
        self.assertGreaterEqual(report["bytes_known"], BLOCK)
        self.assertTrue(stored(self.cluster, name) == content)

    def test_two_clients_the_second_session_is_told_until_when(self):
        name, data = fresh("held"), random.randbytes(3 * MIB)

        def first_chunk(session):
            message = chunk(Ours, name, data, 0, MIB)
            message.meta.session_id = session
            return message
        holder = Upload(Ours, self.cluster.channel(self.cluster.uploaders[0]))
        holder.send(first_chunk("one"))
        stub = Ours.TransferStub(self.cluster.channel(self.cluster.uploaders[1]))
        eventually(lambda: stub.QueryUploadedChunks(Ours.transfer.FileIdentifier(file_id=name), timeout=SECONDS).total_size,
                   "the first session has begun")
        for server in self.cluster.uploaders:
            other = Upload(Ours, self.cluster.channel(server))
            other.send(first_chunk("two"))
            with self.assertRaises(grpc.RpcError) as refused:
                other.finish()
            self.assertEqual(refused.exception.code(), grpc.StatusCode.ABORTED)
            left = dict(refused.exception.trailing_metadata()).get("grpc-retry-pushback-ms")
            self.assertGreater(int(left), 0)
        # pushctl says so, and its own exit code.
        path = os.path.join(folder("source"), "file")
        with open(path, "wb") as file:
            file.write(data)
        code, _, error = end(begin(self.cluster, path, "--file-id", name))
        self.assertEqual(code, 1)
        self.assertIn("nother session", error)
        for offset in [MIB, 2 * MIB]:
            holder.send(chunk(Ours, name, data, offset, MIB))
        self.assertTrue(holder.finish().success)
        self.assertTrue(stored(self.cluster, name) == data)


@unittest.skipUnless(shutil.which("nginx"), "nginx is not installed and could not be (ops/packages test)")
class BehindNginx(unittest.TestCase):
    """ops/nginx.conf before three uploaders."""

    def setUp(self):
        self.cluster = Cluster("--uploaders", "3")
        self.addCleanup(self.cluster.down)
        self.address = f"127.0.0.1:{processes.free_port()}"
        place = folder("nginx")
        with open(os.path.join(ROOT, "ops", "nginx.conf"), encoding="utf-8") as file:
            text = file.read()
        # The same file with the addresses of this machine.
        text = text.replace("listen 7100 http2;", f"listen {self.address} http2;")
        servers = re.findall(r"^ *server uploader-1:7100 (.*);$", text, re.MULTILINE)
        self.assertEqual(len(servers), 1)
        text = re.sub(r"^ *server uploader-\d:7100 .*;\n", "", text, flags=re.MULTILINE)
        lines = "".join(f"    server {server['listen']} {servers[0]};\n" for server in self.cluster.uploaders)
        text = text.replace("consistent;\n", "consistent;\n" + lines, 1)
        log = os.path.join(place, "error.log")
        config = os.path.join(place, "nginx.conf")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"daemon off;\npid {place}/nginx.pid;\nerror_log {log} info;\n" + text)
        self.nginx = subprocess.Popen(["nginx", "-p", place, "-e", log, "-c", config], stderr=subprocess.DEVNULL)
        self.addCleanup(self.stop)
        eventually(lambda: processes.accepts(self.address), "nginx listens")

    def stop(self):
        self.nginx.terminate()
        self.nginx.wait(SECONDS)

    def shares(self):
        return {server["name"]: taken(server) for server in self.cluster.uploaders}

    def test_all_streams_of_a_file_reach_one_node(self):
        nodes = set()
        for number in range(6):
            path, content = make_file(40 * MIB + number)
            before = self.shares()
            code, report, error = end(begin(self.cluster, path, "--streams", "4", uploaders=[self.address]))
            self.assertEqual(code, 0, error)
            self.assertTrue(stored(self.cluster, report["file_id"]) == content)
            wrote = [name for name, count in self.shares().items() if count > before[name]]
            self.assertEqual(len(wrote), 1, wrote)
            nodes.update(wrote)
        self.assertGreater(len(nodes), 1, "files are spread")

    def test_small_files_are_spread_over_the_nodes(self):
        top = folder("tree")
        for index in range(200):
            with open(os.path.join(top, f"{index:03}"), "wb") as file:
                file.write(random.Random(index).randbytes(4096))
        code, reports, error = end(begin(self.cluster, top, uploaders=[self.address]))
        self.assertEqual(code, 0, error)
        self.assertEqual(len(reports), 200)
        self.assertTrue(all(count > 20 * 4096 for count in self.shares().values()), self.shares())

    def test_the_node_of_a_file_is_killed_and_another_ends_it(self):
        path, content = make_file(192 * MIB)
        before = self.shares()
        child = begin(self.cluster, path, "--streams", "4", uploaders=[self.address])

        def busy():
            return next((s for s in self.cluster.uploaders if taken(s) - before[s["name"]] > 24 * MIB), None)
        owner = eventually(busy, "a node takes the file")
        self.cluster.run("kill", owner["name"])
        code, report, error = end(child)
        self.assertEqual(code, 0, error)
        self.assertEqual(report["md5"], md5(content))
        self.assertTrue(stored(self.cluster, report["file_id"]) == content)
        # Its files go to others as well as long as it is away.
        path, content = make_file(5 * MIB)
        code, report, error = end(begin(self.cluster, path, uploaders=[self.address]))
        self.assertEqual(code, 0, error)


class Resuming:
    """Clients of the contract as it was, once for each set of stubs."""

    def setUp(self):
        self.cluster = shared()
        self.channels = [self.cluster.channel(server) for server in self.cluster.uploaders]
        self.stub = self.wire.TransferStub(self.channels[0])

    def uploaded(self, name, channel=None):
        stub = self.wire.TransferStub(channel) if channel else self.stub
        return list(stub.QueryUploadedChunks(self.wire.transfer.FileIdentifier(file_id=name), timeout=SECONDS).offsets)

    def cut(self, name, data, offsets):
        """Sends chunks and breaks the stream once they are safe."""
        stream = Upload(self.wire, self.channels[0])
        for offset in offsets:
            stream.send(chunk(self.wire, name, data, offset, MIB))
        stub = Ours.TransferStub(self.channels[0])
        request = Ours.transfer.FileIdentifier(file_id=name)
        eventually(lambda: sum(stub.QueryUploadedChunks(request, timeout=SECONDS).lengths) == len(offsets) * MIB,
                   "what was sent is safe")
        stream.answer.cancel()

    def resume(self, name, data, offsets, channel=None):
        stream = Upload(self.wire, channel or self.channels[0])
        for offset in offsets:
            stream.send(chunk(self.wire, name, data, offset, MIB))
        return stream.finish()

    def test_interrupted_at_20_MiB_the_rest_is_sent(self):
        name, data = fresh("cut"), random.randbytes(45 * MIB)
        self.cut(name, data, range(0, BLOCK, MIB))
        # The breakpoint, by either way of asking, at either node.
        for channel in self.channels:
            known = Ours.TransferStub(channel).QueryUploadStatus(
                Ours.transfer.QueryUploadRequest(file_id=name), timeout=SECONDS)
            self.assertTrue(known.has_breakpoint)
            self.assertEqual(known.resume_offset, BLOCK)
            self.assertGreater(known.last_update_time, 0)
            self.assertEqual(min(self.uploaded(name, channel)), 0)
        status = self.resume(name, data, range(BLOCK, len(data), MIB), self.channels[1])
        self.assertTrue(status.success, status.message)
        self.assertIn(md5(data), status.message)
        self.assertTrue(stored(self.cluster, name) == data)

    def test_interrupted_with_holes_what_is_missing_is_told(self):
        name, data = fresh("holes"), random.randbytes(12 * MIB)
        sent = [0, MIB, 4 * MIB, 9 * MIB]
        self.cut(name, data, sent)
        status = self.resume(name, data, [11 * MIB])
        self.assertFalse(status.success)
        self.assertIn(f"{7 * MIB} of {len(data)} bytes are missing", status.message)
        rest = [offset for offset in range(0, len(data), MIB) if offset not in [*sent, 11 * MIB]]
        self.assertTrue(self.resume(name, data, rest).success)
        self.assertTrue(stored(self.cluster, name) == data)

    def test_two_clients_at_once_send_the_same_file(self):
        name, data = fresh("both"), random.randbytes(16 * MIB)
        answers = []
        senders = [threading.Thread(target=lambda channel=channel, order=order: answers.append(
            self.resume(name, data, order, channel))) for channel, order in
            [(self.channels[0], range(0, len(data), MIB)), (self.channels[0], range(15 * MIB, -1, -MIB))]]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(SECONDS)
        self.assertEqual(len(answers), 2)
        self.assertTrue(all(answer.success for answer in answers), answers)
        self.assertTrue(stored(self.cluster, name) == data)

    def test_any_order_over_two_streams(self):
        name, data = fresh("order"), random.randbytes(24 * MIB)
        offsets = list(range(0, len(data), MIB))
        random.Random(7).shuffle(offsets)
        streams = [Upload(self.wire, self.channels[0]) for _ in range(2)]
        for index, offset in enumerate(offsets):
            streams[index % 2].send(chunk(self.wire, name, data, offset, MIB))
        answers = [stream.finish() for stream in streams]
        self.assertTrue(any(answer.success for answer in answers), answers)
        self.assertTrue(stored(self.cluster, name) == data)

    def test_an_offset_past_the_end_is_invalid(self):
        name, data = fresh("past"), random.randbytes(2 * MIB)
        self.cut(name, data, [0])
        stream = Upload(self.wire, self.channels[0])
        wrong = chunk(self.wire, name, data, MIB, MIB)
        wrong.offset = len(data) + 1
        stream.send(wrong)
        with self.assertRaises(grpc.RpcError) as refused:
            stream.finish()
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        # What was there stays.
        self.assertTrue(self.resume(name, data, [MIB]).success)


class ResumingWithOurStubs(Resuming, unittest.TestCase):
    wire = Ours

    def test_a_chunk_with_another_md5_is_asked_for_again(self):
        name, data = fresh("damaged"), random.randbytes(3 * MIB)
        stream = Upload(self.wire, self.channels[0])
        stream.send(chunk(self.wire, name, data, 0, MIB))
        wrong = chunk(self.wire, name, data, MIB, MIB)
        wrong.data = bytes([wrong.data[0] ^ 1]) + wrong.data[1:]
        stream.send(wrong)
        with self.assertRaises(grpc.RpcError) as refused:
            stream.finish()
        self.assertEqual(refused.exception.code(), grpc.StatusCode.DATA_LOSS)
        self.assertTrue(self.resume(name, data, [0, MIB, 2 * MIB]).success)
        self.assertTrue(stored(self.cluster, name) == data)


class ResumingWithStubsOfExistingClients(Resuming, unittest.TestCase):
    wire = Seeds


if __name__ == "__main__":
    unittest.main()
