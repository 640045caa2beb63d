"""The network between endpoints and gateways: a TCP proxy in which connections can be cut, or go dead on one side."""

import asyncio
import contextlib
import time

HALF_OPEN_SECONDS = 12  # A side that nobody reads any more is closed after this, if its gateway hasn't done so.


class Wire:
    """One connection of an endpoint, and its continuation to a gateway."""

    def __init__(self, client, gateway):
        self.client, self.gateway = client, gateway
        self.opened = time.monotonic()
        self.near = self.far = None  # Transports: the endpoint's side, the gateway's side.
        self.answered = 0  # Bytes that came from the gateway.
        self.is_mute = False  # What the endpoint says doesn't arrive any more, as acknowledgements; it ends so.
        self.is_dead = False  # The endpoint has gone, its gateway doesn't know.
        self.ended = None  # When the endpoint lost it.
        self.told = None  # When its gateway said something, or closed, after it was dead.


class Wires:
    """Every endpoint has an address for each gateway. Whoever has a session is known here by its newest wire."""

    def __init__(self, gateways):
        self.gateways = gateways  # HOST:PORT each.
        self.servers = []
        self.newest = {}  # By client.
        self.route = {}  # Client -> the gateway that its next connection goes to, whichever it asks for.
        self.lost = [0] * len(gateways)  # Live wires that ended at each gateway.
        self.opened = 0
        self.all = set()

    async def listen(self, clients):
        """Gives the addresses of each client, one for each gateway in turn."""
        loop = asyncio.get_running_loop()
        addresses = {}
        for position, client in enumerate(clients):
            addresses[client] = []
            for step in range(len(self.gateways)):
                gateway = (position + step) % len(self.gateways)
                server = await loop.create_server(
                    lambda client=client, gateway=gateway: Near(self, client, gateway), "127.0.0.1", 0)
                self.servers.append(server)
                addresses[client].append("127.0.0.1:%d" % server.sockets[0].getsockname()[1])
        return addresses

    def live(self, client):
        """The client's wire, if both sides stand and its gateway has said something."""
        wire = self.newest.get(client)
        return wire if wire and wire.ended is None and wire.answered else None

    def mute(self, gateway):
        """From now on that gateway hears nothing from its endpoints; to be followed by the end of their connections."""
        for wire in self.all:
            if wire.gateway == gateway and wire.ended is None:
                wire.is_mute = True

    def cut(self, client, back=None):
        """Resets the client's connection on both sides. With `back` its next one goes to that gateway."""
        wire = self.live(client)
        if wire is None:
            return None
        if back is not None:
            self.route[client] = back
        wire.near.abort()
        wire.far.abort()
        return wire

    def strand(self, client, to):
        """Resets the endpoint's side only: the gateway goes on with a stream that nobody reads. The client's next
        connection goes to the gateway `to`."""
        wire = self.live(client)
        if wire is None:
            return None
        self.route[client] = to
        wire.is_dead = True
        wire.near.abort()
        asyncio.get_running_loop().call_later(HALF_OPEN_SECONDS, wire.far.abort)
        return wire

    def close(self):
        for server in self.servers:
            server.close()
        for wire in list(self.all):
            for side in (wire.near, wire.far):
                if side is not None:
                    side.abort()


class Near(asyncio.Protocol):
    """The endpoint's side."""

    def __init__(self, wires, client, gateway):
        self.wires, self.client, self.gateway = wires, client, gateway
        self.wire = None

    def connection_made(self, transport):
        gateway = self.wires.route.pop(self.client, self.gateway)
        self.wire = Wire(self.client, gateway)
        self.wire.near = transport
        self.wires.all.add(self.wire)
        transport.pause_reading()
        self.connecting = asyncio.ensure_future(self.connect(gateway))

    async def connect(self, gateway):
        host, _, port = self.wires.gateways[gateway].rpartition(":")
        try:
            await asyncio.get_running_loop().create_connection(lambda: Far(self.wires, self.wire), host, int(port))
        except OSError:
            return self.wire.near.abort()
        if self.wire.near.is_closing():
            return self.wire.far.abort()
        self.wires.newest[self.client] = self.wire
        self.wires.opened += 1
        self.wire.near.resume_reading()

    def data_received(self, data):
        if not self.wire.is_dead and not self.wire.is_mute:
            self.wire.far.write(data)

    def connection_lost(self, _):
        if self.wire.ended is None:
            self.wire.ended = time.monotonic()
            if self.wire.answered:
                self.wires.lost[self.wire.gateway] += 1
        if self.wire.far is None or self.wire.far.is_closing():
            self.wires.all.discard(self.wire)
        elif not self.wire.is_dead:
            self.wire.far.abort()


class Far(asyncio.Protocol):
    """The gateway's side."""

    def __init__(self, wires, wire):
        self.wires, self.wire = wires, wire

    def connection_made(self, transport):
        self.wire.far = transport

    def data_received(self, data):
        if self.wire.is_dead:
            self.wire.told = self.wire.told or time.monotonic()
            return
        self.wire.answered += len(data)
        with contextlib.suppress(RuntimeError):
            self.wire.near.write(data)

    def connection_lost(self, _):
        if self.wire.is_dead:
            self.wire.told = self.wire.told or time.monotonic()
        if self.wire.near.is_closing():
            self.wires.all.discard(self.wire)
        else:
            self.wire.near.abort()
