"""One list+watch: drives the transitions of `resume` over real connections and tells a sink what is there.

The sink is called synchronously, in order, from one task. It survives everything but a refusal of the kind itself.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fleet.clock import Clock, jitter
from fleet.errors import After, Forbidden, Gone, Invalid, KubeError, NotFound, ServerFailure, Unauthorized, Unreachable
from fleet.kube import resume
from fleet.kube.client import Client, Stream
from fleet.kube.discovery import Resource, path
from fleet.kube.gate import Priority
from fleet.kube.resume import Phase, State, Step, Tell
from fleet.kube.status import classify, decode_status
from fleet.kube.wire import (
    JSON,
    METADATA,
    METADATA_LIST,
    Event,
    Observed,
    decode_bookmark,
    decode_event,
    decode_observed,
    decode_page,
    parse_rv,
)

SILENCE_S = 75.0
"""Bookmarks come about every 60 s, so a longer silence is a dead connection."""
LIST_SILENCE_S = 10.0
"""A server may accept a streaming list and never complete it."""
WATCH_LASTS_S = (240, 480)
OPEN_S = 20.0
STREAMING_LIST = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
PAGE = 500
MOST_LINE_BYTES = 64 * 1024 * 1024
EVENTS_PER_TURN = 50
"""Events handled before others get their turn: about 5 ms of work."""
PROBE_S = 15.0
SHORTEST_S = 1.0
"""A pause is never cut below this: other kinds being fine does not mean that this one is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What of a kind is watched. `whole` asks for whole objects; else only metadata ever reaches this process."""

    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """An object is there, in this state."""

    observed: Observed


@dataclass(frozen=True, slots=True)
class Left:
    """An object was deleted, or left the selection: then `observed` shows the old labels at the new resourceVersion."""

    observed: Observed


@dataclass(frozen=True, slots=True)
class Restarted:
    """A fresh list begins: what is not seen before the next `Synced` is gone. A second one voids the first."""


@dataclass(frozen=True, slots=True)
class Synced:
    """The fresh list is complete."""

    rv: int


@dataclass(frozen=True, slots=True)
class Stalled:
    """Nothing can be observed at the moment; the watch goes on trying, and says so again at each failure."""

    error: KubeError


@dataclass(frozen=True, slots=True)
class Resumed:
    """The server answers again; events that were missed follow."""


WatchEvent = Seen | Left | Restarted | Synced | Stalled | Resumed
Sink = Callable[[WatchEvent], None]


async def run_watch(client: Client, resource: Resource, scope: Scope, sink: Sink, *, clock: Clock) -> None:
    """List and watch one kind, telling `sink` everything, until cancelled.

    Raises: Forbidden, Unauthorized, NotFound (the kind is not served) or Invalid (the selector): trying again by itself
    would not help. Everything else is survived with jittered pauses.
    Cancelled: the connection is closed.
    """
    watch = _Watch(client, resource, scope, sink, clock)
    while True:
        await watch.connect_once()


class _Watch:
    def __init__(self, client: Client, resource: Resource, scope: Scope, sink: Sink, clock: Clock) -> None:
        self._client = client
        self._resource = resource
        self._scope = scope
        self._sink = sink
        self._clock = clock
        self._state = State()
        self._handled = 0
        self._asked_s = 0.0

    async def connect_once(self) -> None:
        """Pause as the last outcome asks, then do what the phase is for, until that connection is over."""
        await self._pause()
        try:
            match self._state.phase:
                case Phase.LISTING | Phase.WATCHING:
                    await self._stream_once()
                case Phase.PAGING:
                    await self._page_once()
                case Phase.PROBING:
                    if await self._probe_once():
                        await self._stream_once()
        except Gone:
            self._take(resume.expired(self._state))
        except (Unauthorized, Forbidden, NotFound, Invalid) as error:
            if not self._is_about_streaming(error):
                raise
            self._take(resume.unsupported(self._state))
        except KubeError as error:
            self._asked_s = error.retry.seconds if isinstance(error.retry, After) else 0.0
            self._take(resume.failed(self._state), error)

    def _is_about_streaming(self, error: KubeError) -> bool:
        """A server without streaming lists answers 422, an old or limited one 400 or 403."""
        return self._state.phase is Phase.LISTING and isinstance(error, Forbidden | Invalid)

    async def _pause(self) -> None:
        """Wait as long as the failures in a row ask; a server found alive by another connection shortens it.

        What the server itself asked for (Retry-After) is waited out.
        """
        pause_s, least_s = resume.pause_s(self._state.failures), max(SHORTEST_S, self._asked_s)
        pause_s, self._asked_s = max(pause_s, self._asked_s), 0.0
        if not pause_s:
            return
        pause_s = jitter(self._clock, pause_s)
        if self._state.stalled and pause_s > least_s:
            await asyncio.sleep(jitter(self._clock, least_s))
            await self._client.wait_heard(pause_s - least_s)
        else:
            await asyncio.sleep(pause_s)

    def _take(self, step: Step, error: KubeError | None = None) -> bool:
        """Adopt a transition; return whether the connection stays open."""
        self._state = step.state
        for tell in step.tell:
            match tell:
                case Tell.RESTARTED:
                    self._sink(Restarted())
                case Tell.SYNCED:
                    self._sink(Synced(parse_rv(self._state.rv)))
                case Tell.STALLED:
                    self._sink(Stalled(error or ServerFailure("the watch fell silent")))
                case Tell.RESUMED:
                    self._sink(Resumed())
        return not step.close

    async def _stream_once(self) -> None:
        listing = self._state.phase is Phase.LISTING
        stream = await self._client.stream(
            self._path,
            self._watch_params(listing=listing),
            accept=JSON if self._scope.whole else METADATA,
            deadline_s=OPEN_S,
            plural=self._resource.plural,
        )
        try:
            self._take(resume.connected(self._state))
            await self._read_events(stream)
        except Unreachable as error:
            if self._state.phase is Phase.LISTING and error.reason == "Timeout" and not self._state.heard:
                self._take(resume.unsupported(self._state))
                return
            raise
        finally:
            stream.close()

    async def _read_events(self, stream: Stream) -> None:
        """Handle events until the stream ends; one that ends at once is not opened again at once."""
        lines, began = Lines(), asyncio.get_running_loop().time()
        while True:
            silence_s = LIST_SILENCE_S if self._state.phase is Phase.LISTING else SILENCE_S
            chunk = await stream.read(silence_s)
            if not chunk:
                if asyncio.get_running_loop().time() - began < SHORTEST_S:
                    self._asked_s = SHORTEST_S
                self._take(resume.ended(self._state))
                return
            for line in lines.feed(chunk):
                if not self._handle(decode_event(line)):
                    return
                self._handled += 1
                if self._handled % EVENTS_PER_TURN == 0:
                    await asyncio.sleep(0)

    def _handle(self, event: Event) -> bool:
        match event.type:
            case "ADDED" | "MODIFIED" | "DELETED":
                return self._handle_change(event)
            case "BOOKMARK":
                mark = decode_bookmark(event.object)
                return self._take(resume.bookmarked(self._state, mark.rv, initial_end=mark.initial_end))
            case "ERROR":
                status = decode_status(event.object)
                raise classify(status.code if status else 500, event.object, {}, plural=self._resource.plural)
            case _:
                raise ServerFailure(f"the watch sent an unknown event type {event.type[:20]!r}", reason="BrokenReply")

    def _handle_change(self, event: Event) -> bool:
        observed = decode_observed(event.object, self._resource.gvk, whole=self._scope.whole)
        if not self._take(resume.changed(self._state, str(observed.rv) if observed.rv else self._state.rv)):
            return False
        self._sink(Left(observed) if event.type == "DELETED" else Seen(observed))
        return True

    async def _page_once(self) -> None:
        params = {**self._selectors(), "limit": str(PAGE)}
        more, rv, first = "", "", True
        while first or more:
            reply = await self._client.request(
                "GET",
                self._path,
                params={**params, "continue": more} if more else params,
                accept=JSON if self._scope.whole else METADATA_LIST,
                priority=Priority.DRIFT,
                plural=self._resource.plural,
            )
            if first:
                self._take(resume.connected(self._state))
                first = False
            page = decode_page(reply.body)
            rv, more = page.rv, page.more
            for count, raw in enumerate(page.items, 1):
                self._sink(Seen(decode_observed(raw, self._resource.gvk, whole=self._scope.whole)))
                if count % EVENTS_PER_TURN == 0:
                    await asyncio.sleep(0)
        self._take(resume.listed(self._state, rv))

    async def _probe_once(self) -> bool:
        """Ask for one object at our position or later: a server that is behind waits 3 s and answers 504.

        Return whether the watch may resume where it was.
        """
        params = {**self._selectors(), "limit": "1", "resourceVersion": self._state.rv}
        params["resourceVersionMatch"] = "NotOlderThan"
        try:
            await self._client.request(
                "GET",
                self._path,
                params=params,
                accept=METADATA_LIST,
                priority=Priority.DRIFT,
                deadline_s=PROBE_S,
                idempotent=False,
                plural=self._resource.plural,
            )
        except ServerFailure as error:
            if not any(cause.reason == "ResourceVersionTooLarge" for cause in error.causes):
                raise
            self._take(resume.probed(self._state, reached=False))
            return False
        self._take(resume.probed(self._state, reached=True))
        return True

    @property
    def _path(self) -> str:
        return path(self._resource, self._scope.namespace)

    def _selectors(self) -> dict[str, str]:
        chosen = {"labelSelector": self._scope.label_selector, "fieldSelector": self._scope.field_selector}
        return {name: value for name, value in chosen.items() if value}

    def _watch_params(self, *, listing: bool) -> dict[str, str]:
        lasts_s = self._clock.rng.randint(*WATCH_LASTS_S)
        params = {**self._selectors(), "watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(lasts_s)}
        if listing:
            params.update(STREAMING_LIST)
        params["resourceVersion"] = "" if listing else self._state.rv
        return params


class Lines:
    """Cuts a byte stream into lines, of several megabytes if need be."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that `chunk` completes. Raises: ServerFailure when a line has no end."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._parts.append(chunk[start:end])
            line = b"".join(self._parts) if len(self._parts) > 1 else self._parts[0]
            self._parts, self._size = [], 0
            start = end + 1
            if line.strip():
                yield line
        if start < len(chunk):
            self._parts.append(chunk[start:] if start else chunk)
            self._size += len(chunk) - start
            if self._size > MOST_LINE_BYTES:
                raise ServerFailure("the watch sent a line without an end", reason="BrokenReply")
