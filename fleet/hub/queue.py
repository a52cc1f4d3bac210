"""Keyed work: one run at a time per key, marks that come meanwhile are one more run, and marks for later.

There is no pool of workers and no queue that could fill: a key costs a task only while it runs.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import structlog

from fleet.aio import as_fleet_error, spawn
from fleet.clock import Clock, jitter

log = structlog.get_logger()

K = TypeVar("K")
RETRY_S = 5.0
"""Pause after a bug: the key is tried again, and the log has the traceback each time."""


class Runner(Generic[K]):
    """Runs `run(key)` whenever a key is marked. `run` contains its own failures; what escapes is a bug."""

    def __init__(
        self, name: str, group: asyncio.TaskGroup, clock: Clock, run: Callable[[K], Coroutine[Any, Any, None]]
    ) -> None:
        self._name = name
        self._group = group
        self._clock = clock
        self._run = run
        self._marked: set[K] = set()
        self._running: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._idle: dict[K, list[asyncio.Future[None]]] = {}

    @property
    def busy(self) -> frozenset[K]:
        """The keys that are marked or running."""
        return frozenset(self._running)

    def mark(self, key: K) -> None:
        """Run the key now, or once more after the run that is under way."""
        self._cancel_timer(key)
        self._marked.add(key)
        if key not in self._running:
            self._running.add(key)
            try:
                spawn(self._group, f"{self._name}/{key}", self._work(key))
            except RuntimeError:  # the group is ending, and what could come of the mark with it
                self._running.discard(key)

    def mark_later(self, key: K, delay_s: float) -> None:
        """Run the key after a delay, unless it is marked earlier; of two delays the shorter counts."""
        due = asyncio.get_running_loop().time() + delay_s
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= due:
            return
        self._cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_at(due, self.mark, key)

    def forget(self, key: K) -> None:
        """Drop a key's mark and timer; a run under way ends by itself."""
        self._cancel_timer(key)
        self._marked.discard(key)

    def close(self) -> None:
        """Drop all marks and timers, so that nothing starts any more."""
        for key in list(self._timers):
            self._cancel_timer(key)
        self._marked.clear()

    async def settle(self, key: K) -> None:
        """Wait until the key is neither marked nor running."""
        if key in self._running:
            idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.setdefault(key, []).append(idle)
            await idle

    def _cancel_timer(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def _work(self, key: K) -> None:
        try:
            while key in self._marked:
                self._marked.discard(key)
                try:
                    await self._run(key)
                except Exception as error:  # noqa: BLE001 - a bug in one key's run must not end the others
                    as_fleet_error(error, f"{self._name}/{key}")
                    self.mark_later(key, jitter(self._clock, RETRY_S))
        finally:
            self._running.discard(key)
            for idle in self._idle.pop(key, ()):
                if not idle.done():
                    idle.set_result(None)
