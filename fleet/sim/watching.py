"""WATCH: one stream of changes, resumed anywhere in the history, told as the selectors see them.

`Watch` is the pure part: it turns stored changes into lines. `run_watch` drives it in time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fleet.sim import status
from fleet.sim.reading import parse_version
from fleet.sim.representation import event_line, shown, wants_metadata
from fleet.sim.request import Request
from fleet.sim.state import State
from fleet.sim.storage import Event, HistoryGone, Object, Subscription

BOOKMARK_EVERY_S: Final = 60.0
BOOKMARK_BEFORE_END_S: Final = 2.0
INITIAL_END: Final = {"k8s.io/initial-events-end": "true"}


class Watch:
    """What one watch request is owed: its initial lines, then lines for changes."""

    def __init__(self, state: State, request: Request, wake: Callable[[], None]) -> None:
        """Raises ApiError: 400, 406, 422; a version too old is not raised but told in the stream."""
        self._state = state
        self._resource = request.resource
        self._metadata_only = wants_metadata(request.accept)
        self._selection = request.selection()
        self.bookmarks = request.flag("allowWatchBookmarks")
        self._initial = _wants_initial(request)
        try:
            self._asked = parse_version(request.query.get("resourceVersion", ""))
        except ValueError as error:
            raise status.internal(str(error)) from error
        self._streams_list = request.flag("sendInitialEvents")
        self._wake = wake
        self.subscription: Subscription | None = None

    def open(self) -> list[bytes]:
        """Subscribe, and return the first lines; after an ERROR line there is no subscription."""
        try:
            since = self._state.storage.rv if self._asked == 0 or self._initial else self._asked
            self.subscription = self._state.storage.subscribe(self._resource.collection, since, self._wake)
        except HistoryGone as gone:
            error = status.expired(f"too old resource version: {self._asked} ({gone.oldest})")
            return [event_line("ERROR", error.body())]
        lines = []
        if self._initial:
            objects = self._state.storage.items(self._resource.collection, self._selection.namespace)
            lines = [self._line("ADDED", obj) for obj in objects if self._selection.matches(obj)]
        if self._streams_list and self.bookmarks:
            lines.append(self.bookmark(initial=True))
        return lines

    def drain(self) -> list[bytes]:
        """Return the lines of all changes that are pending."""
        assert self.subscription is not None
        lines = []
        while self.subscription.pending:
            line = self._tell(self.subscription.pending.popleft())
            if line:
                lines.append(line)
        return lines

    @property
    def ended(self) -> bool:
        """Whether the server closed the stream and everything was told."""
        return self.subscription is None or (self.subscription.closed and not self.subscription.pending)

    def bookmark(self, *, initial: bool = False) -> bytes:
        """Return a BOOKMARK at the present version."""
        assert self.subscription is not None
        rv = max(self._state.storage.rv, self.subscription.since)
        metadata: dict[str, Any] = {"resourceVersion": str(rv)}
        if initial:
            metadata["annotations"] = INITIAL_END
        kind, version = self._resource.kind, self._resource.api_version
        if self._metadata_only:
            kind, version = "PartialObjectMetadata", "meta.k8s.io/v1"
        return event_line("BOOKMARK", {"kind": kind, "apiVersion": version, "metadata": metadata})

    def close(self) -> None:
        if self.subscription is not None:
            self._state.storage.unsubscribe(self._resource.collection, self.subscription)

    def _tell(self, event: Event) -> bytes | None:
        now_in = event.type != "DELETED" and self._selection.matches(event.obj)
        was_in = event.previous is not None and self._selection.matches(event.previous)
        if now_in:
            return self._line("MODIFIED" if was_in else "ADDED", event.obj)
        if was_in:
            assert event.previous is not None
            return self._line("DELETED", _at_version(event.previous, event.rv))
        return None

    def _line(self, kind: str, obj: Object) -> bytes:
        return event_line(kind, shown(obj, self._resource, metadata_only=self._metadata_only))


def _at_version(obj: Object, rv: int) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(rv)}}


def _wants_initial(request: Request) -> bool:
    """Tell whether the present content is streamed first; a malformed wish is 422."""
    asked = request.query.get("sendInitialEvents", "")
    match = request.query.get("resourceVersionMatch", "")
    if asked and match != "NotOlderThan":
        raise _invalid_options("Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    if match and not asked:
        raise _invalid_options(
            "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        )
    if asked:
        return request.flag("sendInitialEvents")
    return request.query.get("resourceVersion", "") in ("", "0")


def _invalid_options(message: str) -> status.ApiError:
    cause = {"reason": "FieldValueForbidden", "message": message, "field": "resourceVersionMatch"}
    return status.invalid("meta.k8s.io", "ListOptions", "", [cause])


async def run_watch(
    watch: Watch, changed: asyncio.Event, send: Callable[[bytes], Awaitable[None]], timeout_s: float
) -> None:
    """Send lines until `timeout_s` is over or the server ends the stream.

    `changed` is what the watch's wake sets. Cancelled: the subscription is dropped.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + timeout_s
    mark_at = _next_mark(loop.time(), ends_at)
    try:
        await _send_all(send, watch.open())
        while not watch.ended and loop.time() < ends_at:
            await _wait(changed, min(mark_at, ends_at))
            changed.clear()
            await _send_all(send, watch.drain())
            if loop.time() >= mark_at:
                mark_at = _next_mark(mark_at, ends_at)
                if watch.bookmarks and not watch.ended:
                    await send(watch.bookmark())
    finally:
        watch.close()


def _next_mark(after: float, ends_at: float) -> float:
    last = ends_at - BOOKMARK_BEFORE_END_S
    return min(after + BOOKMARK_EVERY_S, last) if last > after else after + BOOKMARK_EVERY_S


async def _send_all(send: Callable[[bytes], Awaitable[None]], lines: list[bytes]) -> None:
    if lines:
        await send(b"".join(lines))


async def _wait(changed: asyncio.Event, until: float) -> None:
    if changed.is_set():
        return
    try:
        async with asyncio.timeout_at(until):
            await changed.wait()
    except TimeoutError:
        return
