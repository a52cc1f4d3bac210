"""A listener on loopback that libgit2 fetches through: credentials, TLS and the real network stay on this side.

It lives for one fetch, answers only under a token that nobody else is told, and forwards two requests: the list of
refs and the pack. libgit2 sees plain HTTP. It must run in another process: it blocks, and the loop here serves it.
"""

import hmac
import secrets
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import aiohttp
from aiohttp import web

from fleet.errors import FetchFailed, FleetError, SourceError

MOST_REQUEST_BYTES = 32 << 20
SERVICE = "git-upload-pack"
_TOKEN_BYTES = 24
_ROUTES = {
    ("GET", "info/refs"): {"Accept": f"application/x-{SERVICE}-advertisement"},
    ("POST", SERVICE): {
        "Accept": f"application/x-{SERVICE}-result",
        "Content-Type": f"application/x-{SERVICE}-request",
    },
}


class Upstream(Protocol):
    """The real remote."""

    def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Send a request for a path of the repository; yield a good answer.

        Raises: FetchFailed, also for what goes wrong while the answer is read.
        """
        ...


class _ReaderGone(Exception):
    """libgit2 hung up: its worker was killed, or it had enough."""


@asynccontextmanager
async def open_relay(upstream: Upstream) -> AsyncIterator[str]:
    """Listen, and yield the URL to fetch from.

    Raises: FetchFailed of the upstream in place of the SourceError that libgit2 made of it.
    """
    relay = _Relay(upstream)
    # whoever is still reading when the fetch has ended reads for nothing
    runner = web.ServerRunner(
        web.Server(relay.handle, handler_cancellation=True, access_log=None), shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        _, port = runner.addresses[0][:2]
        yield f"http://127.0.0.1:{port}/{relay.token}"
    except SourceError as error:
        if relay.failure is not None:
            raise relay.failure from error
        raise
    finally:
        await runner.cleanup()


class _Relay:
    def __init__(self, upstream: Upstream) -> None:
        self.token = secrets.token_urlsafe(_TOKEN_BYTES)
        self.failure: FleetError | None = None
        self._upstream = upstream

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        token, _, path = request.path.removeprefix("/").partition("/")
        headers = _ROUTES.get((request.method, path))
        if headers is None or not hmac.compare_digest(token.encode(), self.token.encode()):
            return web.Response(status=404)
        try:
            return await self._forward(request, path, headers)
        except FleetError as error:
            self.failure = self.failure or error
        except _ReaderGone:
            pass
        # after a first byte only a broken connection tells that the rest is missing
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)

    async def _forward(self, request: web.BaseRequest, path: str, headers: Mapping[str, str]) -> web.StreamResponse:
        body = await _read_body(request) if request.method == "POST" else None
        async with self._upstream.request(request.method, path, headers=headers, body=body) as answer:
            response = web.StreamResponse(headers={"Content-Type": answer.content_type, "Cache-Control": "no-cache"})
            await _write(response.prepare(request))
            async for chunk in answer.content.iter_any():
                await _write(response.write(chunk))
        await _write(response.write_eof())
        return response


async def _read_body(request: web.BaseRequest) -> bytes:
    """Read a request whole: some servers take no chunks."""
    parts: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > MOST_REQUEST_BYTES:
            raise FetchFailed("the request for a pack is too large; the repository has too many refs")
        parts.append(chunk)
    return b"".join(parts)


async def _write(writing: Awaitable[object]) -> None:
    """Tell a reader that is gone from an upstream that is."""
    try:
        await writing
    except (ConnectionError, aiohttp.ClientConnectionError) as error:
        raise _ReaderGone from error
