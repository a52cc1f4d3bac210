"""Virtual time: an event loop whose clock jumps to the next timer instead of waiting for it.

Run a coroutine in virtual time with ``asyncio.Runner(loop_factory=SimLoop)`` or `run_virtual`. A test directory runs
wholly in virtual time when its ``conftest.py`` says::

    def pytest_asyncio_loop_factories(config, item):
        return {"virtual": SimLoop}
"""

import asyncio
import contextlib
import random
import selectors
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import aiohttp.connector

T = TypeVar("T")

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""Wall time at loop time 0."""


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set: in virtual time nothing can ever happen again."""


class _Selector(selectors.DefaultSelector):
    """Never blocks. Where a real selector would sleep, it asks `idle` to move the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.idle: Callable[[], None] = lambda: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and (timeout is None or timeout > 0):
            self.idle()
        return ready


class SimLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time: same callbacks, same order, no waiting.

    Work given to executors runs inline, so that its result arrives at the same point in every run. Sockets work as long
    as both ends live in this loop; threads and child processes do not: the loop would not wait for them.
    """

    def __init__(self) -> None:
        self._virtual_s = 0.0
        selector = _Selector()
        super().__init__(selector)
        selector.idle = self._jump

    def time(self) -> float:
        return self._virtual_s

    def now(self) -> datetime:
        """Return wall time: `EPOCH` plus the virtual seconds passed."""
        return EPOCH + timedelta(seconds=self._virtual_s)

    def _jump(self) -> None:
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if not timers:
            raise Deadlock(f"nothing is ready and no timer is set; waiting tasks:\n{describe_tasks(self)}")
        self._virtual_s = max(self._virtual_s, timers[0].when())

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - an executor hands any error to the awaiting task
            future.set_exception(error)
        return future


def describe_tasks(loop: asyncio.AbstractEventLoop) -> str:
    """Return one line per unfinished task: its name and where it waits."""
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    return "\n".join(f"  {task.get_name()}: {_place(task)}" for task in tasks)


def _place(task: asyncio.Task[Any]) -> str:
    stack = task.get_stack()
    if not stack:
        return "not started"
    frame = stack[-1]
    return f"{frame.f_code.co_qualname} at {frame.f_code.co_filename}:{frame.f_lineno}"


@contextlib.contextmanager
def deterministic(loop: asyncio.AbstractEventLoop, *, seed: int = 0) -> Iterator[None]:
    """Close the leaks of the outside into a virtual run: aiohttp's own clock and the global random generator."""
    monotonic = aiohttp.connector.monotonic  # type: ignore[attr-defined]
    state = random.getstate()
    aiohttp.connector.monotonic = loop.time  # type: ignore[attr-defined]
    random.seed(seed)
    try:
        yield
    finally:
        aiohttp.connector.monotonic = monotonic  # type: ignore[attr-defined]
        random.setstate(state)


def run_virtual(main: Coroutine[Any, Any, T], *, seed: int = 0) -> T:
    """Run `main` to its end in virtual time.

    Raises:
        Deadlock: nothing could ever happen again before `main` was done.
    """
    with asyncio.Runner(loop_factory=SimLoop) as runner, deterministic(runner.get_loop(), seed=seed):
        return runner.run(main)
