"""Watches the event loop: how late it is, and where it stood when something held it."""

import asyncio
import contextlib
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable

import structlog

from fleet.aio import spawn
from fleet.metric import histogram

log = structlog.get_logger()

TICK_S = 0.1
STALL_S = 0.1
"""Nothing in the hub may hold the loop for more than 5 ms; at this much somebody should know where."""
LAG = histogram("fleet_event_loop_lag_seconds", "How late the event loop was to a timer.")


@contextlib.asynccontextmanager
async def watching_loop() -> AsyncIterator[None]:
    """Measure the loop's lag for the length of the block; a thread logs the stack of whatever holds it."""
    ticks = _Ticks(asyncio.get_running_loop().time)
    thread = threading.Thread(target=ticks.guard, args=(threading.get_ident(),), name="watchdog", daemon=True)
    thread.start()
    try:
        async with asyncio.TaskGroup() as group:
            task = spawn(group, "watchdog", _tick(ticks))
            try:
                yield
            finally:
                task.cancel()
    finally:
        ticks.stop.set()
        thread.join()


class _Ticks:
    def __init__(self, time: Callable[[], float]) -> None:
        self.stop = threading.Event()
        self.due_at = time() + TICK_S
        self._time = time

    def guard(self, loop_thread: int) -> None:
        """Run in a thread of its own: once per stall log where the loop's thread stands."""
        told = 0.0
        while not self.stop.wait(TICK_S):
            late_s = self._time() - self.due_at
            if late_s > STALL_S and told != self.due_at:
                told = self.due_at
                frame = sys._current_frames().get(loop_thread)  # noqa: SLF001 - there is no other way
                stack = "".join(traceback.format_stack(frame)[-6:]) if frame is not None else ""
                log.warning("event loop held", seconds=round(late_s, 2), stack=stack)


async def _tick(ticks: _Ticks) -> None:
    loop = asyncio.get_running_loop()
    while True:
        ticks.due_at = loop.time() + TICK_S
        await asyncio.sleep(TICK_S)
        LAG.observe(max(loop.time() - ticks.due_at, 0.0))
