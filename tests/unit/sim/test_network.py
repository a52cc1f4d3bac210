"""The in-memory network: order, latency, pieces, back-pressure, cuts and stalls."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fleet.sim.loop import run_virtual
from fleet.sim.network import MemoryNetwork, MemoryReach

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
URL = "http://one/"


async def _echo(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=await request.read())


def _run(handler: Handler, act: Callable[[MemoryNetwork, aiohttp.ClientSession], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        network = MemoryNetwork(seed=1)
        server = web.Server(handler, access_log=None)
        network.listen("one", 80, server)
        connector = MemoryReach(network).connector(SimpleNamespace(host="one", port=80), limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            await act(network, session)
        network.cut("one", 80)
        await server.shutdown(0)

    run_virtual(main())


def test_round_trip_takes_latency() -> None:
    """A request over a slow network takes connect and request round trips of virtual time."""

    async def act(network: MemoryNetwork, session: aiohttp.ClientSession) -> None:
        network.conditions("one", 80).latency_s = 0.5
        async with session.post(URL, data=b"x" * 10) as response:
            assert await response.read() == b"x" * 10
        assert asyncio.get_running_loop().time() == pytest.approx(2.0)

    _run(_echo, act)


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000])
def test_pieces_keep_the_bytes(chunk_bytes: int) -> None:
    """Bytes that arrive in small pieces at jittering times are the bytes that were sent."""
    body = bytes(range(256)) * 30

    async def act(network: MemoryNetwork, session: aiohttp.ClientSession) -> None:
        conditions = network.conditions("one", 80)
        conditions.chunk_bytes, conditions.jitter_s = chunk_bytes, 0.01
        async with session.post(URL, data=body) as response:
            assert await response.read() == body

    _run(_echo, act)


def test_large_bodies_pass_back_pressure() -> None:
    """A body far over the buffer limits arrives whole."""
    body = b"y" * 900_000

    async def act(_: MemoryNetwork, session: aiohttp.ClientSession) -> None:
        async with session.post(URL, data=body) as response:
            assert await response.read() == body

    _run(_echo, act)


def test_refused() -> None:
    """Nobody listening, or conditions that refuse, are a connector error."""

    async def act(network: MemoryNetwork, session: aiohttp.ClientSession) -> None:
        network.conditions("one", 80).refuse = True
        with pytest.raises(aiohttp.ClientConnectorError, match="refused"):
            await session.get(URL)
        network.conditions("one", 80).refuse = False
        network.unlisten("one", 80)
        with pytest.raises(aiohttp.ClientConnectorError, match="refused"):
            await session.get(URL)

    _run(_echo, act)


def test_hanging_connect_times_out() -> None:
    """A connect that never completes ends by the client's own deadline."""

    async def act(network: MemoryNetwork, session: aiohttp.ClientSession) -> None:
        network.conditions("one", 80).hang = True
        with pytest.raises(TimeoutError):
            await session.get(URL, timeout=aiohttp.ClientTimeout(sock_connect=5))
        assert asyncio.get_running_loop().time() == pytest.approx(5)

    _run(_echo, act)


def test_cut_ends_a_running_reply() -> None:
    """Cutting the way in the middle of a reply is an error for the reader."""

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"line\n")
        await asyncio.sleep(1000)
        return response

    async def act(network: MemoryNetwork, session: aiohttp.ClientSession) -> None:
        response = await session.get(URL)
        assert await response.content.readline() == b"line\n"
        assert network.connection_count("one", 80) == 1
        network.cut("one", 80)
        with pytest.raises(aiohttp.ClientError):
            await response.content.read()
        response.close()
        assert network.connection_count("one", 80) == 0

    _run(endless, act)


def test_stall_holds_and_settle_delivers() -> None:
    """A half-open way says nothing until it is whole again; then what was held arrives."""

    async def act(network: MemoryNetwork, session: aiohttp.ClientSession) -> None:
        async with session.get(URL) as response:
            await response.read()
        network.conditions("one", 80).stall_replies = True
        with pytest.raises(TimeoutError):
            await session.get(URL, timeout=aiohttp.ClientTimeout(total=10))
        reply = asyncio.get_running_loop().create_task(session.post(URL, data=b"later").__aenter__())
        await asyncio.sleep(100)
        assert not reply.done()
        network.conditions("one", 80).stall_replies = False
        network.settle("one", 80)
        async with await reply as response:
            assert await response.read() == b"later"

    _run(_echo, act)
