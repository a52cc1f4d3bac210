"""Server-sent events: what happens, as it happens, resumable by number. Source: WHATWG HTML, 9.2."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from aiohttp import web

from fleet.aio import first_done
from fleet.errors import RequestError
from fleet.hub.view import Hub
from fleet.metric import gauge
from fleet.server.answer import encode_redacted
from fleet.server.model import EventFilter
from fleet.server.read import event_start
from fleet.store.event import Event

HEARTBEAT_S = 15.0
WRITE_S = 30.0
"""A reader that takes nothing for so long is gone."""
MOST_STREAMS = 256

OPEN = gauge("fleet_event_streams", "Readers of the event stream.")


def wants_stream(request: web.Request) -> bool:
    """Tell whether a request asks for a stream of events."""
    return "text/event-stream" in request.headers.get("Accept", "")


class Streams:
    """Every open stream; `stop` ends them with a word."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._stopping = asyncio.Event()
        self._open = 0

    def stop(self) -> None:
        """Tell readers that the hub is stopping, and end their streams."""
        self._stopping.set()

    async def serve(self, request: web.Request, query: EventFilter) -> web.StreamResponse:
        """Stream events until the reader leaves or the hub stops.

        Raises: RequestError with status 503 when there are too many readers.
        """
        start, before = await self._start(request, query)
        if self._open >= MOST_STREAMS:
            raise RequestError(
                f"{MOST_STREAMS} streams are open already; try later", status=503, reason="TooManyStreams"
            )
        self._open += 1
        OPEN.set(self._open)
        try:
            return await self._serve(request, query, start, before)
        finally:
            self._open -= 1
            OPEN.set(self._open)

    async def _start(self, request: web.Request, query: EventFilter) -> tuple[int, list[Event]]:
        """Return the number to follow from, and older events to show first.

        `Last-Event-ID`, which a reader sends when it connects again, comes before `since`.
        """
        last = request.headers.get("Last-Event-ID", "").strip()
        start = int(last) if last.isascii() and last.isdigit() and len(last) < 19 else event_start(query)
        if start >= 0:
            return start, []
        newest = list(await self._hub.events(since=-1, limit=1))
        start = newest[-1].seq if newest else 0
        if not query.limit:
            return start, []
        before = await self._hub.events(
            since=-1,
            limit=query.limit,
            cluster=query.cluster,
            app=query.app,
            kind=query.kind,
            reason=query.reason,
        )
        return max([start, *(event.seq for event in before)]), list(before)

    async def _serve(
        self, request: web.Request, query: EventFilter, start: int, before: list[Event]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        response.headers["Cache-Control"] = "no-store"
        await response.prepare(request)
        pipe = _Pipe(response)
        with contextlib.suppress(ConnectionError, TimeoutError):  # the reader left, or takes nothing
            await pipe.write(b"retry: 2000\n\n" + b"".join(map(_frame, before)))
            await first_done(self._pass_on(pipe, query, start), _beat(pipe), self._stopping.wait())
            await pipe.write(b'event: bye\ndata: {"reason":"Stopping"}\n\n')
        return response

    async def _pass_on(self, pipe: "_Pipe", query: EventFilter, start: int) -> None:
        async with _closing(self._hub.follow(start)) as events:
            async for event in events:
                if _is_meant(event, query):
                    await pipe.write(_frame(event))


class _Pipe:
    """Whole frames to one reader, each with a deadline."""

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response

    async def write(self, frame: bytes) -> None:
        async with asyncio.timeout(WRITE_S):
            await self._response.write(frame)


async def _beat(pipe: _Pipe) -> None:
    """Let the reader know that the silence is true, and ourselves that it is still there."""
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        await pipe.write(b": alive\n\n")


@contextlib.asynccontextmanager
async def _closing(events: AsyncIterator[Event]) -> AsyncIterator[AsyncIterator[Event]]:
    try:
        yield events
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


def _is_meant(event: Event, query: EventFilter) -> bool:
    asked = (query.cluster, query.app, query.kind, query.reason)
    has = (event.cluster, event.app, event.kind, event.reason)
    return all(want in ("", given) for want, given in zip(asked, has, strict=True))


def _frame(event: Event) -> bytes:
    return b"id: %d\ndata: %b\n\n" % (event.seq, encode_redacted(event))
