"""grpcio does what the agent and pushctl do: with stubs made from Protos/, and with those of existing clients on their paths."""

import os
import time
import unittest
import uuid

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from support import SECONDS, Ours, Seeds, Session, Upload, chunk, jobs_pb2, jobs_pb2_grpc, md5, online, shared, upload

CHUNK = 100_000


def fresh(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


class Contract:
    """The flow, once for each set of stubs."""

    wire = None

    def setUp(self):
        self.cluster = shared()
        self.gateway = self.cluster.channel(self.cluster.gateways[0])
        self.other = self.cluster.channel(self.cluster.gateways[1])
        self.push = self.wire.PushStub(self.gateway)
        self.files = self.wire.FileStub(self.gateway)
        self.transfer = self.wire.TransferStub(self.cluster.channel(self.cluster.uploaders[0]))

    def session(self, client_id, channel=None):
        session = Session(self.wire, channel or self.gateway, client_id)
        self.addCleanup(session.close)
        online(self.cluster, client_id)
        return session

    def test_text_to_a_client_of_this_gateway(self):
        client = fresh("client")
        session = self.session(client)
        answer = self.push.PushToClient(self.wire.push.PushRequest(client_id=client, message="good morning"), timeout=SECONDS)
        self.assertTrue(answer.success, answer.error)
        self.assertEqual(session.next("text").text.content, "good morning")

    def test_text_to_a_client_of_the_other_gateway(self):
        client = fresh("client")
        session = self.session(client, self.other)
        answer = self.push.PushToClient(self.wire.push.PushRequest(client_id=client, message="good evening"), timeout=SECONDS)
        self.assertTrue(answer.success, answer.error)
        self.assertEqual(session.next("text").text.content, "good evening")

    def test_an_unknown_client_is_an_answer_with_a_reason(self):
        answer = self.push.PushToClient(self.wire.push.PushRequest(client_id=fresh("nobody"), message="hello"), timeout=SECONDS)
        self.assertFalse(answer.success)
        self.assertIn(" ", answer.error)

    def test_heartbeats_keep_the_stream_and_a_reconnect_takes_over(self):
        client = fresh("client")
        session = self.session(client)
        session.send(heartbeat=self.wire.push.Heartbeat(client_id=client, timestamp=int(time.time() * 1000)))
        answer = self.push.PushToClient(self.wire.push.PushRequest(client_id=client, message="one"), timeout=SECONDS)
        self.assertTrue(answer.success, answer.error)
        session.next("text")
        session.close()
        again = Session(self.wire, self.other)
        self.addCleanup(again.close)
        again.send(reconnect=self.wire.push.ReconnectRequest(client_id=client, last_session_id="unknown"))
        online(self.cluster, client)

        def delivered():
            return self.push.PushToClient(self.wire.push.PushRequest(client_id=client, message="two"), timeout=SECONDS).success
        deadline = time.monotonic() + SECONDS
        while not delivered() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(again.next("text").text.content, "two")

    def test_notice_names_the_uploaded_file(self):
        client, file_id = fresh("client"), fresh("file")
        session = self.session(client)
        upload(self.cluster, b"x" * CHUNK, file_id)
        job = jobs_pb2.Job(targets=jobs_pb2.Targets(client_ids=[client]), file_id=file_id)
        jobs_pb2_grpc.JobServiceStub(self.other).Submit(jobs_pb2.SubmitRequest(job=job), timeout=SECONDS)
        notice = session.next("file_notice").file_notice
        self.assertEqual((notice.file_id, notice.file_size), (file_id, CHUNK))

    def test_event_to_a_client(self):
        client = fresh("client")
        session = self.session(client)
        job = jobs_pb2.Job(targets=jobs_pb2.Targets(client_ids=[client]), event=Ours.push.NotifyEvent(type="update", details="now"))
        jobs_pb2_grpc.JobServiceStub(self.other).Submit(jobs_pb2.SubmitRequest(job=job), timeout=SECONDS)
        event = session.next("event").event
        self.assertEqual((event.type, event.details), ("update", "now"))

    def test_three_chunks_in_the_wrong_order_over_two_streams(self):
        file_id, data = fresh("file"), os.urandom(2 * CHUNK + 1234)
        first = Upload(self.wire, self.cluster.channel(self.cluster.uploaders[0]))
        second = Upload(self.wire, self.cluster.channel(self.cluster.uploaders[0]))
        second.send(chunk(self.wire, file_id, data, 2 * CHUNK, CHUNK))  # The tail, marked as last, comes first.
        first.send(chunk(self.wire, file_id, data, 0, CHUNK))
        partial = second.finish()
        self.assertFalse(partial.success)
        self.assertIn(" ", partial.message)
        name = self.wire.transfer.FileIdentifier(file_id=file_id)
        deadline = time.monotonic() + SECONDS
        while len(self.transfer.QueryUploadedChunks(name, timeout=SECONDS).offsets) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertEqual(sorted(self.transfer.QueryUploadedChunks(name, timeout=SECONDS).offsets), [0, 2 * CHUNK])
        first.send(chunk(self.wire, file_id, data, CHUNK, CHUNK))
        status = first.finish()
        self.assertTrue(status.success, status.message)
        self.assertIn(md5(data), status.message)
        self.assertEqual(self.transfer.CheckFileIntegrity(name, timeout=SECONDS).server_md5, md5(data))
        self.assertEqual(self.download(file_id), data)

    def test_offsets_of_neighbouring_chunks_all_count(self):
        """A client that resumes skips the offsets that it finds here: neighbours must not melt into one."""
        file_id, data = fresh("file"), os.urandom(3 * CHUNK)
        stream = Upload(self.wire, self.cluster.channel(self.cluster.uploaders[0]))
        stream.send(chunk(self.wire, file_id, data, 0, CHUNK))
        stream.send(chunk(self.wire, file_id, data, CHUNK, CHUNK))
        self.assertFalse(stream.finish().success)
        name = self.wire.transfer.FileIdentifier(file_id=file_id)
        self.assertEqual(sorted(self.transfer.QueryUploadedChunks(name, timeout=SECONDS).offsets), [0, CHUNK])

    def download(self, file_id, **fields):
        """The bytes of a download; checks the numbering and the end."""
        chunks = list(self.files.DownloadFile(self.wire.files.FileRequest(file_id=file_id, **fields), timeout=SECONDS))
        self.assertEqual([piece.sequence for piece in chunks], list(range(len(chunks))))
        self.assertEqual([piece.is_last for piece in chunks], [False] * (len(chunks) - 1) + [True])
        return b"".join(piece.content for piece in chunks)


class WithOurStubs(Contract, unittest.TestCase):
    wire = Ours

    def test_a_range_of_a_file(self):
        file_id, data = fresh("file"), os.urandom(300_000)
        upload(self.cluster, data, file_id)
        self.assertEqual(self.download(file_id, offset=70_001, length=131_072), data[70_001:70_001 + 131_072])
        self.assertEqual(self.download(file_id, offset=299_999), data[299_999:])
        self.assertEqual(self.download(file_id, offset=300_000), b"")

    def test_integrity_compares_with_the_clients_digest(self):
        file_id, data = fresh("file"), os.urandom(CHUNK)
        upload(self.cluster, data, file_id)
        right = Ours.transfer.FileIdentifier(file_id=file_id, client_md5=md5(data))
        wrong = Ours.transfer.FileIdentifier(file_id=file_id, client_md5=md5(b"other"))
        self.assertTrue(self.transfer.CheckFileIntegrity(right, timeout=SECONDS).match)
        answer = self.transfer.CheckFileIntegrity(wrong, timeout=SECONDS)
        self.assertEqual((answer.match, answer.server_md5), (False, md5(data)))
        self.assertIn(" ", answer.message)

    def test_an_upload_over_two_nodes(self):
        """Chunks may reach any node, and the end may be told by either."""
        file_id, data = fresh("file"), os.urandom(2 * CHUNK)
        one = Upload(Ours, self.cluster.channel(self.cluster.uploaders[0]))
        one.send(chunk(Ours, file_id, data, 0, CHUNK))
        self.assertFalse(one.finish().success)
        two = Upload(Ours, self.cluster.channel(self.cluster.uploaders[1]))
        two.send(chunk(Ours, file_id, data, CHUNK, CHUNK))
        status = two.finish()
        self.assertTrue(status.success, status.message)
        self.assertEqual(self.download(file_id), data)

    def test_registered_and_heartbeat_answers(self):
        session = self.session(fresh("client"))
        registered = session.next("registered").registered
        self.assertEqual(registered.node_id, "gateway-1")
        self.assertTrue(registered.session_id)
        session.send(heartbeat=Ours.push.Heartbeat(timestamp=77))
        self.assertEqual(session.next("heartbeat").heartbeat.timestamp, 77)


class WithExistingStubs(Contract, unittest.TestCase):
    wire = Seeds


class StandardServices(unittest.TestCase):
    """Health and reflection, as grpcio's own packages speak them."""

    def setUp(self):
        cluster = shared()
        self.servers = {"gateway": cluster.channel(cluster.gateways[0]), "uploader": cluster.channel(cluster.uploaders[0])}

    def test_health(self):
        for name, channel in self.servers.items():
            with self.subTest(name):
                stub = health_pb2_grpc.HealthStub(channel)
                whole = stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
                self.assertEqual(whole.status, health_pb2.HealthCheckResponse.SERVING)
                with self.assertRaises(grpc.RpcError) as raised:
                    stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=SECONDS)
                self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_reflection_lists_the_services(self):
        expected = {
            "gateway": {"push.v1.PushService", "push.v1.FileService", "push.v1.JobService", "push.v1.DirectoryService"},
            "uploader": {"filetransfer.v1.FileTransferService"}}
        for name, channel in self.servers.items():
            with self.subTest(name):
                services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
                self.assertLessEqual(expected[name] | {"grpc.health.v1.Health"}, services)

    def test_reflection_describes_a_service(self):
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self.servers["gateway"]))
        service = pool.FindServiceByName("push.v1.PushService")
        self.assertEqual([method.name for method in service.methods], ["Connect", "PushToClient"])
        self.assertEqual(service.methods_by_name["Connect"].input_type.full_name, "push.v1.ClientMessage")


if __name__ == "__main__":
    unittest.main()
