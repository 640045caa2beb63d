"""Every bad input gets a gRPC status and a sentence, and the server goes on serving."""

import socket
import unittest

import grpc
import h2.config
import h2.connection
import h2.events
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support import SECONDS, Ours, Session, Upload, chunk, jobs_pb2, jobs_pb2_grpc, md5, shared, upload
from test_contract import fresh

Code = grpc.StatusCode
OVER_THE_LIMIT = 32 << 20


def raw(channel, path, body, kind="unary_unary"):
    """Calls a method with bytes that no stub would send."""
    call = getattr(channel, kind)(path, request_serializer=None, response_deserializer=None)
    if kind == "unary_unary":
        return call(body, timeout=SECONDS)
    return list(call(iter([body]) if kind.startswith("stream") else body, timeout=SECONDS))


class BadInput(unittest.TestCase):
    def setUp(self):
        self.cluster = shared()
        self.gateway = self.cluster.channel(self.cluster.gateways[0])
        self.uploader = self.cluster.channel(self.cluster.uploaders[0])
        self.files = Ours.FileStub(self.gateway)
        self.transfer = Ours.TransferStub(self.uploader)

    def tearDown(self):
        """The same connections go on serving."""
        for channel in (self.gateway, self.uploader):
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)

    def refused(self, code, call, *arguments):
        """The call ends with one of these codes and a sentence."""
        with self.assertRaises(grpc.RpcError) as raised:
            call(*arguments)
        self.check(code, raised.exception)

    def check(self, code, error):
        codes = code if isinstance(code, tuple) else (code,)
        self.assertIn(error.code(), codes, error.details())
        self.assertIn(" ", error.details().strip(), "no sentence")

    def download(self, **fields):
        return list(self.files.DownloadFile(Ours.files.FileRequest(**fields), timeout=SECONDS))

    def send(self, message):
        stream = Upload(Ours, self.uploader)
        stream.send(message)
        return stream.finish()

    def published(self):
        file_id = fresh("file")
        upload(self.cluster, b"0123456789", file_id)
        return file_id

    # Downloads

    def test_download_of_an_unknown_file(self):
        self.refused(Code.NOT_FOUND, lambda: self.download(file_id=fresh("nothing")))

    def test_download_past_the_size(self):
        file_id = self.published()
        self.refused(Code.INVALID_ARGUMENT, lambda: self.download(file_id=file_id, offset=11))

    def test_download_with_negative_numbers(self):
        file_id = self.published()
        self.refused(Code.INVALID_ARGUMENT, lambda: self.download(file_id=file_id, offset=-1))
        self.refused(Code.INVALID_ARGUMENT, lambda: self.download(file_id=file_id, length=-1))

    def test_file_ids_that_are_paths(self):
        for file_id in ["../../etc/passwd", "..", "", "a/b", "a\0b", "x" * 129]:
            with self.subTest(file_id=file_id):
                self.refused(Code.INVALID_ARGUMENT, lambda: self.download(file_id=file_id))
                message = Ours.transfer.FileChunk(file_id=file_id, offset=0, total_size=1, data=b"x")
                self.refused(Code.INVALID_ARGUMENT, lambda: self.send(message))
                name = Ours.transfer.FileIdentifier(file_id=file_id)
                self.refused(Code.INVALID_ARGUMENT, lambda: self.transfer.QueryUploadedChunks(name, timeout=SECONDS))

    # Uploads

    def test_chunk_with_a_wrong_md5(self):
        file_id = fresh("file")
        damaged = Ours.transfer.FileChunk(file_id=file_id, total_size=5, data=b"hello", chunk_md5=md5(b"hallo"))
        self.refused(Code.DATA_LOSS, lambda: self.send(damaged))
        self.assertTrue(self.send(chunk(Ours, file_id, b"hello", 0, 5)).success)

    def test_chunk_past_the_size(self):
        for offset in [6, 4, 1 << 62]:
            message = Ours.transfer.FileChunk(file_id=fresh("file"), offset=offset, total_size=5, data=b"xy")
            with self.subTest(offset=offset):
                self.refused(Code.INVALID_ARGUMENT, lambda: self.send(message))

    def test_chunk_with_negative_numbers(self):
        for fields in [{"offset": -1, "total_size": 5}, {"offset": 0, "total_size": -5}, {"offset": -(1 << 63), "total_size": 1}]:
            message = Ours.transfer.FileChunk(file_id=fresh("file"), data=b"x", **fields)
            with self.subTest(**fields):
                self.refused(Code.INVALID_ARGUMENT, lambda: self.send(message))

    def test_another_size_than_the_first_chunk_said(self):
        file_id = fresh("file")
        self.assertFalse(self.send(Ours.transfer.FileChunk(file_id=file_id, total_size=10, data=b"01234")).success)
        other = Ours.transfer.FileChunk(file_id=file_id, offset=5, total_size=11, data=b"5")
        self.refused(Code.FAILED_PRECONDITION, lambda: self.send(other))

    # Sessions and jobs

    def test_empty_client_id(self):
        session = Session(Ours, self.gateway, "")
        self.addCleanup(session.close)
        self.check(Code.INVALID_ARGUMENT, session.error())
        request = Ours.push.PushRequest(client_id="", message="hello")
        self.refused(Code.INVALID_ARGUMENT, lambda: Ours.PushStub(self.gateway).PushToClient(request, timeout=SECONDS))

    def test_job_without_anybody(self):
        jobs = jobs_pb2_grpc.JobServiceStub(self.gateway)
        text = Ours.push.TextMessage(content="hello")
        for job in [jobs_pb2.Job(text=text), jobs_pb2.Job(text=text, targets=jobs_pb2.Targets(client_ids=[""])),
                    jobs_pb2.Job(targets=jobs_pb2.Targets(client_ids=["somebody"]))]:
            self.refused(Code.INVALID_ARGUMENT, lambda: jobs.Submit(jobs_pb2.SubmitRequest(job=job), timeout=SECONDS))

    def test_job_with_an_unknown_file(self):
        jobs = jobs_pb2_grpc.JobServiceStub(self.gateway)
        job = jobs_pb2.Job(file_id=fresh("nothing"), targets=jobs_pb2.Targets(client_ids=["somebody"]))
        self.refused(Code.NOT_FOUND, lambda: jobs.Submit(jobs_pb2.SubmitRequest(job=job), timeout=SECONDS))
        self.refused(Code.NOT_FOUND, lambda: jobs.Get(jobs_pb2.GetJobRequest(job_id=fresh("nothing")), timeout=SECONDS))

    def test_second_register_on_a_stream(self):
        session = Session(Ours, self.gateway, fresh("client"))
        self.addCleanup(session.close)
        session.next("registered")
        session.register(fresh("client"))
        self.check((Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT), session.error())

    def test_first_message_is_no_register(self):
        session = Session(Ours, self.gateway)
        self.addCleanup(session.close)
        session.send(heartbeat=Ours.push.Heartbeat(client_id="client", timestamp=1))
        self.check((Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT), session.error())

    # Frames and headers

    def test_message_over_the_limit(self):
        request = Ours.push.PushRequest(client_id="client", message="x" * OVER_THE_LIMIT)
        self.refused(Code.RESOURCE_EXHAUSTED, lambda: Ours.PushStub(self.gateway).PushToClient(request, timeout=SECONDS))
        message = Ours.transfer.FileChunk(file_id=fresh("file"), total_size=OVER_THE_LIMIT, data=bytes(OVER_THE_LIMIT))
        self.refused(Code.RESOURCE_EXHAUSTED, lambda: self.send(message))

    def test_truncated_protobuf(self):
        whole = Ours.push.PushRequest(client_id="client", message="hello").SerializeToString()
        for path, body, kind in [
                ("/push.v1.PushService/PushToClient", whole[:-2], "unary_unary"),
                ("/PushService/PushToClient", b"\x0a", "unary_unary"),
                ("/push.v1.PushService/PushToClient", b"\xff" * 12, "unary_unary"),
                ("/push.v1.FileService/DownloadFile", b"\x0a\x7fabc", "unary_stream"),
                ("/push.v1.PushService/Connect", b"\x0a\x05\x0a\x7fx", "stream_stream")]:
            with self.subTest(path=path, body=body):
                self.refused(Code.INVALID_ARGUMENT, raw, self.gateway, path, body, kind)
        self.refused(Code.INVALID_ARGUMENT, raw, self.uploader, "/filetransfer.v1.FileTransferService/Upload",
                     b"\x22\x7fabc", "stream_stream")

    def test_unknown_methods(self):
        for path in ["/push.v1.PushService/NoSuchMethod", "/no.such.Service/Method", "/x"]:
            with self.subTest(path=path):
                self.refused(Code.UNIMPLEMENTED, raw, self.gateway, path, b"")

    def test_header_blocks_that_are_no_grpc(self):
        """HTTP requests of other kinds get an HTTP error or a gRPC status, and the connection stays."""
        good = {":method": "POST", ":path": "/push.v1.PushService/PushToClient", ":scheme": "http", ":authority": "x",
                "content-type": "application/grpc", "te": "trailers"}
        connection = Http2(self.cluster.gateways[0]["listen"])
        self.addCleanup(connection.close)
        cases = [{"content-type": "text/plain"}, {"content-type": None}, {":method": "GET"}, {":path": "/"},
                 {"grpc-timeout": "soon"}, {"grpc-encoding": "morse"}]
        for change in cases:
            with self.subTest(**{key.strip(":").replace("-", "_"): str(value) for key, value in change.items()}):
                headers = {key: value for key, value in {**good, **change}.items() if value is not None}
                answer = connection.request(headers, b"\0\0\0\0\0")
                refused = answer.get(":status", "").startswith("4") or answer.get("grpc-status", "0") != "0"
                self.assertTrue(refused, answer)
        answer = connection.request({**good, ":path": "/grpc.health.v1.Health/Check"}, b"\0\0\0\0\0")
        self.assertEqual((answer[":status"], answer["grpc-status"]), ("200", "0"))

    def test_bytes_that_are_no_http2(self):
        host, port = self.cluster.gateways[0]["listen"].split(":")
        for garbage in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(range(256)) * 8]:
            with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
                connection.sendall(garbage)
                try:
                    while connection.recv(65536):
                        pass
                except ConnectionResetError:
                    pass

    def test_frame_that_promises_more_than_comes(self):
        """A gRPC prefix of 100 bytes followed by three, then the end of the stream."""
        connection = Http2(self.cluster.gateways[0]["listen"])
        self.addCleanup(connection.close)
        headers = {":method": "POST", ":path": "/push.v1.PushService/PushToClient", ":scheme": "http", ":authority": "x",
                   "content-type": "application/grpc", "te": "trailers"}
        answer = connection.request(headers, b"\0\0\0\0\x64abc")
        self.assertNotEqual(answer.get("grpc-status", "0"), "0", answer)
        self.assertRegex(answer.get("grpc-message", ""), "%20| ")


class Http2:
    """One HTTP/2 connection that sends whatever headers it is told to."""

    def __init__(self, address):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=SECONDS)
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False))
        self.state.initiate_connection()
        self.flush()

    def flush(self):
        self.socket.sendall(self.state.data_to_send())

    def request(self, headers, body):
        """Sends one request; gives headers and trailers of the answer as one dictionary."""
        stream = self.state.get_next_available_stream_id()
        self.state.send_headers(stream, list(headers.items()))
        self.state.send_data(stream, body, end_stream=True)
        self.flush()
        answer = {}
        while True:
            received = self.socket.recv(65536)
            if not received:
                raise AssertionError(f"the connection was closed; so far {answer}")
            for event in self.state.receive_data(received):
                if isinstance(event, h2.events.ConnectionTerminated):
                    raise AssertionError(f"GOAWAY {event.error_code}; so far {answer}")
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                    answer.update(event.headers)
                if isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    self.flush()
                    return answer
            self.flush()

    def close(self):
        self.socket.close()


if __name__ == "__main__":
    unittest.main()
