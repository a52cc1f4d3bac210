"""An in-memory network: byte streams between aiohttp clients and servers of one loop, with faults.

It owns everything that a real network may do to a stream: latency, jitter, pieces of any size, back-pressure, streams
that stall without an end, cuts, refused and hanging connects. Bytes arrive in order or not at all, as with TCP.
"""

import asyncio
import errno
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Protocol, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.helpers import ceil_timeout

HIGH_WATER_BYTES: Final = 64 * 1024
LOW_WATER_BYTES: Final = 16 * 1024

_FIN: Final = b""
"""Marks the end of a stream among its chunks; data chunks are never empty."""

Address = tuple[str, int]
Listener = Callable[[], asyncio.BaseProtocol]


class Destination(Protocol):
    """What a connector needs to know of the other end."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


@dataclass(slots=True, kw_only=True)
class Conditions:
    """How the way to one address behaves; changes count at once, also for open connections.

    `latency_s` is one way; `jitter_s` is added at random and never reorders. `chunk_bytes`: bytes arrive in random
    pieces of at most this size (0: as written). `stall_requests` and `stall_replies` hold what is sent until they are
    set back: the half-open connection that says nothing.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    chunk_bytes: int = 0
    refuse: bool = False
    hang: bool = False
    stall_requests: bool = False
    stall_replies: bool = False


class MemoryTransport(asyncio.Transport):
    """One end of a connection; what is written here arrives at `peer`."""

    def __init__(self, network: "MemoryNetwork", site: "_Site", extra: dict[str, Any], *, client: bool) -> None:
        super().__init__(extra)
        self._network = network
        self._loop = network.loop
        self._site = site
        self._conditions = site.conditions
        self._client = client
        self._protocol: asyncio.Protocol
        self.peer: MemoryTransport
        self._flying: deque[bytes] = deque()
        self._inbox: deque[bytes] = deque()
        self._unread_bytes = 0
        self._arrives_at = 0.0
        self._due = 0
        self._reading = True
        self._writing_paused = False
        self._closing = False
        self._dead = False
        self._limits = (LOW_WATER_BYTES, HIGH_WATER_BYTES)

    # What asyncio asks of a transport.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.call_soon(self._read)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        high = HIGH_WATER_BYTES if high is None else high
        self._limits = (high // 4 if low is None else low, high)

    def get_write_buffer_size(self) -> int:
        return self._unread_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._limits

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        whole = bytes(data)
        self._unread_bytes += len(whole)
        for piece in self._network.pieces(whole, self._conditions.chunk_bytes):
            self._send(piece)
        if self._unread_bytes > self._limits[1] and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._send(_FIN)
            self._loop.call_soon(self._lose, None)

    def abort(self) -> None:
        self._closing = True
        self._flying.clear()
        self._loop.call_soon(self._lose, None)
        self._loop.call_later(self._conditions.latency_s, self.peer.reset)

    # What the network does to it.

    def reset(self) -> None:
        """End this side as a reset connection: bytes under way are lost."""
        self._closing = True
        self._flying.clear()
        self._inbox.clear()
        self._lose(ConnectionResetError(errno.ECONNRESET, "connection reset by peer"))

    def wake(self) -> None:
        """Deliver what was held by a stall that is over."""
        due, self._due = self._due, 0
        for _ in range(due):
            self._loop.call_soon(self._arrive)

    def _stalled(self) -> bool:
        return self._conditions.stall_requests if self._client else self._conditions.stall_replies

    def _send(self, piece: bytes) -> None:
        self._flying.append(piece)
        delay_s = self._network.delay_s(self._conditions)
        if not delay_s and self._arrives_at <= self._loop.time():
            self._loop.call_soon(self._arrive)
            return
        self._arrives_at = max(self._arrives_at, self._loop.time() + delay_s)
        self._loop.call_at(self._arrives_at, self._arrive)

    def _arrive(self) -> None:
        if self._stalled():
            self._due += 1
        elif self._flying:
            self.peer._receive(self._flying.popleft())

    def _receive(self, piece: bytes) -> None:
        self._inbox.append(piece)
        self._read()

    def _read(self) -> None:
        while self._inbox and self._reading and not self._dead:
            piece = self._inbox.popleft()
            if piece == _FIN:
                if not self._protocol.eof_received():
                    self.close()
                return
            self.peer._taken(len(piece))
            if not self._closing:
                self._protocol.data_received(piece)

    def _taken(self, count: int) -> None:
        self._unread_bytes -= count
        if self._writing_paused and self._unread_bytes <= self._limits[0] and not self._dead:
            self._writing_paused = False
            self._protocol.resume_writing()

    def _lose(self, error: Exception | None) -> None:
        if self._dead:
            return
        self._dead = True
        if self in self._site.connections:
            self._site.connections.remove(self)
        self._protocol.connection_lost(error)


@dataclass(slots=True)
class _Site:
    """One address: who listens there, how the way to it behaves, and the client ends of its open connections."""

    conditions: Conditions = field(default_factory=Conditions)
    listener: Listener | None = None
    connections: list[MemoryTransport] = field(default_factory=list)


class MemoryNetwork:
    """Addresses and the connections between them, all in one loop.

    Args:
        seed: Seed of jitter and of the size of pieces.
    """

    def __init__(self, *, seed: int = 0, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop or asyncio.get_running_loop()
        self._rng = Random(seed)
        self._sites: dict[Address, _Site] = {}
        self._dialled = 0

    def listen(self, host: str, port: int, listener: Listener) -> None:
        """Accept connections at an address; each gets a protocol from `listener`."""
        self._site(host, port).listener = listener

    def unlisten(self, host: str, port: int) -> None:
        """Refuse connections from now on; open ones stay."""
        self._site(host, port).listener = None

    def conditions(self, host: str, port: int) -> Conditions:
        """Return the conditions of the way to an address, to be changed in place.

        After ending a stall call `settle`, else held bytes stay where they are.
        """
        return self._site(host, port).conditions

    def settle(self, host: str, port: int) -> None:
        """Deliver what a stall held that is over now."""
        for transport in list(self._site(host, port).connections):
            transport.wake()
            transport.peer.wake()

    def cut(self, host: str, port: int) -> None:
        """Reset every open connection to an address; bytes under way are lost."""
        for transport in list(self._site(host, port).connections):
            transport.reset()
            transport.peer.reset()

    def connection_count(self, host: str, port: int) -> int:
        """Return how many connections to an address are open."""
        return len(self._site(host, port).connections)

    async def connect(self, host: str, port: int, factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.BaseProtocol:
        """Open a connection and return the client's protocol.

        Raises:
            ConnectionRefusedError: Nobody listens there, or the conditions refuse.
        """
        site = self._site(host, port)
        await asyncio.sleep(self.delay_s(site.conditions) + self.delay_s(site.conditions))
        if site.conditions.hang:
            await self.loop.create_future()
        if site.conditions.refuse or site.listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"connection to {host}:{port} refused")
        return self._join(site, (host, port), factory(), site.listener())

    def _join(
        self, site: _Site, address: Address, client: asyncio.BaseProtocol, server: asyncio.BaseProtocol
    ) -> asyncio.BaseProtocol:
        self._dialled += 1
        origin = ("memory", self._dialled)
        near = MemoryTransport(self, site, {"peername": address, "sockname": origin}, client=True)
        far = MemoryTransport(self, site, {"peername": origin, "sockname": address}, client=False)
        near.peer, far.peer = far, near
        near.set_protocol(client)
        far.set_protocol(server)
        site.connections.append(near)
        server.connection_made(far)
        client.connection_made(near)
        return client

    def delay_s(self, conditions: Conditions) -> float:
        """Return how long the next piece takes one way."""
        jitter_s = self._rng.random() * conditions.jitter_s if conditions.jitter_s else 0.0
        return conditions.latency_s + jitter_s

    def pieces(self, data: bytes, chunk_bytes: int) -> list[bytes]:
        """Return `data` cut into random pieces of at most `chunk_bytes` (0: whole)."""
        if not chunk_bytes:
            return [data]
        pieces, start = [], 0
        while start < len(data):
            end = start + self._rng.randint(1, chunk_bytes)
            pieces.append(data[start:end])
            start = end
        return pieces

    def _site(self, host: str, port: int) -> _Site:
        return self._sites.setdefault((host, port), _Site())


class MemoryConnector(aiohttp.BaseConnector):
    """An aiohttp connector that dials one address of a memory network. TLS is not spoken: https works as http does."""

    def __init__(self, network: MemoryNetwork, address: Address, *, limit: int) -> None:
        super().__init__(limit=limit)
        self._network = network
        self._address = address

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        try:
            async with ceil_timeout(timeout.sock_connect, ceil_threshold=timeout.ceil_threshold):
                protocol = await self._network.connect(*self._address, self._factory)
        except OSError as error:
            if error.errno is None and isinstance(error, TimeoutError):
                raise
            raise aiohttp.ClientConnectorError(req.connection_key, error) from error
        return cast("ResponseHandler", protocol)


class MemoryReach:
    """Way into a memory network for code that asks for aiohttp connectors."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network

    def connector(
        self, to: Destination, *, limit: int, refuse: Callable[[str], bool] | None = None
    ) -> aiohttp.BaseConnector:
        """Return a connector that dials `to` whatever URL is asked for; at most `limit` connections (0: any).

        Names lead to no addresses here, so that there is nothing to `refuse`.
        """
        return MemoryConnector(self._network, (to.host, to.port), limit=limit)
