"""A client that registers and then reads nothing any more: its TCP window closes.

HTTP/2 by hand, so that nothing reads on its behalf: all credit is given at the start, then only heartbeats go out.
"""

import socket
import struct
import threading
import time

HEARTBEAT_SECONDS = 5
RECEIVE_BUFFER_BYTES = 4096
DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0, 1, 4, 8
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4
LARGEST_WINDOW = 2**31 - 1


class StalledClient:
    def __init__(self, address, client_id):
        host, _, port = address.rpartition(":")
        self.client_id = client_id.encode()
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self.socket.connect((host, int(port)))
        self.socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, LARGEST_WINDOW))
            + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_WINDOW - 65_535))
            + frame(HEADERS, END_HEADERS, 1, headers(address)))
        # ClientMessage{register{client_id, acknowledges: true}}
        register = field(1, self.client_id) + b"\x18\x01"
        self.send(field(1, register))
        self.ended = threading.Event()
        self.heartbeats = threading.Thread(target=self.live, daemon=True)
        self.heartbeats.start()

    def send(self, message):
        self.socket.sendall(frame(DATA, 0, 1, b"\0" + struct.pack(">I", len(message)) + message))

    def live(self):
        while not self.ended.wait(HEARTBEAT_SECONDS):
            # ClientMessage{heartbeat{client_id}}
            self.send(field(2, field(1, self.client_id)))

    def close(self):
        self.ended.set()
        self.heartbeats.join()
        self.socket.close()


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers(authority):
    """HPACK without Huffman codes and without the dynamic table."""
    def text(value):
        return bytes([len(value)]) + value.encode()
    return (b"\x83\x86"  # :method POST, :scheme http
            + b"\x04" + text("/push.v1.PushService/Connect") + b"\x01" + text(authority)
            + b"\x0f\x10" + text("application/grpc") + b"\x00" + text("te") + text("trailers"))


def field(number, value):
    """A length-delimited field of less than 128 bytes."""
    return bytes([number << 3 | 2, len(value)]) + value
