"""How many requests one API server gets at once, and whose go first.

The limit follows the server: one more per window of successes, half when it says it is overloaded. Requests are bounded,
never the coroutines that want to make them.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from enum import IntEnum

from fleet.clock import Clock, jitter
from fleet.errors import After, KubeError

START = 16
MOST_PAUSE_S = 120.0
OLDEST_FIRST_EVERY = 8
_OVERLOADED = (429, 503, 504)


class Priority(IntEnum):
    """Why a request is made; the lower number goes first."""

    USER = 0
    ROLLOUT = 1
    DRIFT = 2
    APPLY = 3
    AUDIT = 4


class Gate:
    """Bounds the requests in flight to one API server.

    Among waiting requests the most urgent goes first; every eighth turn goes to whoever has waited longest, so that a
    steady stream of urgent ones starves nobody. `most` bounds the limit; a limit below 1 cannot occur.
    """

    def __init__(self, clock: Clock, *, most: int = START) -> None:
        self._clock = clock
        self._most = max(1, most)
        self._limit = float(min(START, self._most))
        self._in_flight = 0
        self._waiting: tuple[deque[_Waiter], ...] = tuple(deque() for _ in Priority)
        self._arrivals = 0
        self._turns = 0
        self._round = 0
        self._paused_until = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return int(self._limit)

    @property
    def most(self) -> int:
        """The limit's upper bound."""
        return self._most

    @property
    def in_flight(self) -> int:
        """How many requests are in flight now."""
        return self._in_flight

    @contextlib.asynccontextmanager
    async def enter(self, priority: Priority) -> AsyncIterator[None]:
        """Wait for a place; the outcome of the body teaches the gate.

        Cancelled: while waiting, the place in the queue is given up; inside, the place is freed.
        """
        await self._acquire(priority)
        begun = self._round
        try:
            yield
        except KubeError as error:
            self._learn_failure(error, begun)
            raise
        else:
            self._limit = min(self._most, self._limit + 1 / self._limit)
        finally:
            self._in_flight -= 1
            self._admit()

    async def _acquire(self, priority: Priority) -> None:
        self._arrivals += 1
        waiter = _Waiter(self._arrivals)
        self._waiting[priority].append(waiter)
        self._admit()
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter.admitted.done() and not waiter.admitted.cancelled():
                self._in_flight -= 1
                self._admit()
            elif waiter in self._waiting[priority]:
                self._waiting[priority].remove(waiter)
            raise

    def _admit(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._paused_until:
            if self._alarm is None:
                self._alarm = loop.call_at(self._paused_until, self._end_pause)
            return
        while self._in_flight < int(self._limit) and (queue := self._next_queue()) is not None:
            waiter = queue.popleft()
            if waiter.admitted.done():  # cancelled, and its task has not run yet
                continue
            self._in_flight += 1
            self._turns += 1
            waiter.admitted.set_result(None)

    def _end_pause(self) -> None:
        self._alarm = None
        self._admit()

    def _next_queue(self) -> "deque[_Waiter] | None":
        waiting = [queue for queue in self._waiting if queue]
        if waiting and self._turns % OLDEST_FIRST_EVERY == OLDEST_FIRST_EVERY - 1:
            return min(waiting, key=lambda queue: queue[0].arrival)
        return waiting[0] if waiting else None

    def _learn_failure(self, error: KubeError, begun: int) -> None:
        """Halve once per round: sixteen requests refused together are one piece of news, not sixteen."""
        if error.status not in _OVERLOADED:
            return
        if begun == self._round:
            self._round += 1
            self._limit = max(1.0, self._limit / 2)
        if isinstance(error.retry, After):
            pause_s = min(jitter(self._clock, error.retry.seconds), MOST_PAUSE_S)
            self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + pause_s)


class _Waiter:
    def __init__(self, arrival: int) -> None:
        self.arrival = arrival
        self.admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
