"""The event log: what happened, stored in order and passed on to whoever follows.

Appending never waits for the disk: events of one turn of the loop are one write, made by one task.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from fleet.aio import Pulse
from fleet.errors import StoreError
from fleet.store.event import Event, EventStore

log = structlog.get_logger()

MOST_WAITING = 10_000
MOST_BEHIND = 1000
PAGE = 500

_GOOD_KINDS = frozenset({"audit", "adopt", "drift", "prune"})
_GOOD_REASONS = frozenset(
    {
        "Applied",
        "Approval",
        "Approved",
        "BatchDone",
        "Checking",
        "Connected",
        "Done",
        "Freeze",
        "IdentityAccepted",
        "InventoryChanged",
        "InventoryLoaded",
        "NotFetched",
        "NothingChanges",
        "PreflightPassed",
        "Promoted",
        "ReleaseCreated",
        "Renamed",
        "Resumed",
        "Retried",
        "Started",
        "Synced",
        "TakenOver",
        "Window",
    }
)
"""What is news but no trouble: everything else is logged as a warning."""
_GRAVE_REASONS = frozenset({"InventoryUnreadable"})
"""What keeps the hub as a whole from its work: logged as an error."""


class EventLog(Protocol):
    """Takes events and gives them back by number."""

    def append(self, event: Event) -> None:
        """Store an event soon, after those before it."""
        ...

    async def since(self, seq: int, *, limit: int = PAGE) -> Sequence[Event]:
        """Read events after a number, oldest first."""
        ...


def _voice(event: Event) -> Callable[..., object]:
    """Return the log method of an event's weight."""
    if event.reason in _GRAVE_REASONS:
        return log.error  # type: ignore[no-any-return]
    return log.info if event.kind in _GOOD_KINDS or event.reason in _GOOD_REASONS else log.warning  # type: ignore[no-any-return]


class StoredEvents:
    """An EventLog over the store."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._waiting: deque[Event] = deque(maxlen=MOST_WAITING)
        self._pulse = Pulse()
        self._followers: set[asyncio.Queue[Event]] = set()

    def append(self, event: Event) -> None:
        """Store an event soon, after those before it."""
        names = {"cluster": event.cluster, "app": event.app, "object": event.object, "actor": event.actor}
        shown = {name: value for name, value in names.items() if value}
        _voice(event)(event.reason, kind=event.kind, message=event.message, **shown)
        self._waiting.append(event)
        self._pulse.set()

    async def run(self) -> None:
        """Write what was appended, until cancelled."""
        while True:
            await self._pulse.wait()
            await self.flush()

    async def flush(self) -> None:
        """Write everything appended so far; a database that refuses is logged, and the events are lost."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), PAGE))]
            try:
                numbers = await self._store.append(batch)
            except StoreError as error:
                log.error("events lost", count=len(batch), error=str(error))
                return
            for event, seq in zip(batch, numbers, strict=True):
                self._pass_on(replace(event, seq=seq))

    def _pass_on(self, event: Event) -> None:
        for follower in self._followers:
            if follower.full():
                follower.get_nowait()
            follower.put_nowait(event)

    async def since(self, seq: int, *, limit: int = PAGE) -> Sequence[Event]:
        """Read events after a number, oldest first."""
        return await self._store.since(seq, limit=limit)

    async def follow(self, since: int) -> AsyncIterator[Event]:
        """Yield stored events after `since`, then new ones as they happen; a reader that is too slow misses some."""
        queue: asyncio.Queue[Event] = asyncio.Queue(MOST_BEHIND)
        self._followers.add(queue)
        try:
            last = since
            while page := await self._store.since(last):
                for event in page:
                    yield event
                last = page[-1].seq
            while True:
                event = await queue.get()
                if event.seq > last:
                    last = event.seq
                    yield event
        finally:
            self._followers.discard(queue)
