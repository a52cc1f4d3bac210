"""The bare minimum: a loop of server-side applies that knows what to send and looks at nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager

import aiohttp

from fleet.aio import spawn
from fleet.sim.real import ControlPlane

IN_FLIGHT = 16
"""What fleet's gate starts with, so that both ask as much of the server."""
HEADERS = {"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"}


@asynccontextmanager
async def open_session(plane: ControlPlane) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session to an API server as its admin."""
    connector = aiohttp.TCPConnector(ssl=plane.ssl_context(), limit=0)
    async with aiohttp.ClientSession(plane.url, connector=connector) as session:
        yield session


async def apply_all(session: aiohttp.ClientSession, requests: Iterable[tuple[str, bytes]]) -> float:
    """Send every request, `IN_FLIGHT` at a time; return the seconds it took."""
    loop, left = asyncio.get_running_loop(), iter(requests)
    started = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(IN_FLIGHT):
            spawn(group, f"bare/{number}", _send(session, left))
    return loop.time() - started


async def _send(session: aiohttp.ClientSession, left: Iterator[tuple[str, bytes]]) -> None:
    for path, body in left:
        async with session.patch(
            path, params={"fieldManager": "bare", "force": "true"}, data=body, headers=HEADERS
        ) as reply:
            text = await reply.text()
            if reply.status not in (200, 201):
                raise RuntimeError(f"the bare loop got {reply.status} for {path}: {text[:300]}")
