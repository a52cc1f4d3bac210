"""Structured concurrency: the only module that creates tasks.

- `spawn` starts a named task in a TaskGroup.
- `supervise` runs something that may fail for ever, with backoff, so that its failure reaches nobody else.
- `Children` keeps a keyed family of tasks equal to a wanted set.
- `finish` lets a short, idempotent write end although its caller is cancelled.
- `Pulse` wakes one waiter however often it was set.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Mapping
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import structlog

from fleet.clock import Clock, jitter
from fleet.errors import After, FleetError, OnChange

log = structlog.get_logger()

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def spawn(group: asyncio.TaskGroup, name: str, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that cannot outlive `group`. `name` is `kind/subject`, shown in dumps."""
    return group.create_task(coro, name=name)


class Pulse:
    """A wake-up that coalesces: any number of `set` before a `wait` is one wake-up."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake the waiter now or at its next `wait`."""
        self._event.set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for a set; return False when `timeout_s` passed first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class OnFailure(Protocol):
    """Told about each failed attempt, before the pause."""

    def __call__(self, error: FleetError, retry_in_s: float) -> None: ...


async def supervise(
    name: str,
    attempt: Callable[[], Coroutine[Any, Any, None]],
    *,
    clock: Clock,
    on_failure: OnFailure,
    first_s: float = 1.0,
    most_s: float = 60.0,
) -> None:
    """Run `attempt` until it returns; after each failure pause, doubling from `first_s` to `most_s` with jitter.

    An attempt that lasted longer than `most_s` counts as a fresh start. A bug (anything that is not a FleetError) is
    logged with its traceback and reported as `InternalError`.

    Cancelled: passes through; the attempt has been cancelled and awaited.
    """
    loop = asyncio.get_running_loop()
    delay_s = first_s
    while True:
        started = loop.time()
        try:
            return await attempt()
        except Exception as error:  # noqa: BLE001 - the one place where a failure is contained
            failure = as_fleet_error(error, name)
        if loop.time() - started > most_s:
            delay_s = first_s
        pause_s = failure.retry.seconds if isinstance(failure.retry, After) else jitter(clock, delay_s)
        delay_s = most_s if isinstance(failure.retry, OnChange) else min(delay_s * 2, most_s)
        on_failure(failure, pause_s)
        await asyncio.sleep(pause_s)


def as_fleet_error(error: Exception, where: str) -> FleetError:
    """Return the FleetError inside `error`; anything else is a bug: logged with its traceback, named `InternalError`."""
    inner: BaseException = error
    while isinstance(inner, BaseExceptionGroup):
        known = [e for e in inner.exceptions if isinstance(e, FleetError)]
        inner = known[0] if known else inner.exceptions[0]
    if isinstance(inner, FleetError):
        return inner
    log.error("internal error", where=where, exc_info=error)
    return FleetError(f"{type(inner).__name__} in {where}; the log has the traceback", reason="InternalError")


class Children(Generic[K]):
    """A family of tasks, one per key, kept equal to a wanted set by `adjust`.

    Each child must contain its own failures (`supervise`): one that raises ends the whole family.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._group = asyncio.TaskGroup()
        self._tasks: dict[K, tuple[object, asyncio.Task[None]]] = {}

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, task in self._tasks.values():
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    def __len__(self) -> int:
        return len(self._tasks)

    async def adjust(self, wanted: Mapping[K, tuple[object, Callable[[], Coroutine[Any, Any, None]]]]) -> None:
        """Stop what is no longer wanted, restart what changed, start what is new; in that order.

        `wanted` maps a key to (fingerprint, start). A running child is kept while its fingerprint is equal. Returns
        when every stopped child has ended.
        """
        self._tasks = {key: entry for key, entry in self._tasks.items() if not entry[1].done()}
        stopping = []
        for key, (fingerprint, task) in list(self._tasks.items()):
            if key not in wanted or wanted[key][0] != fingerprint:
                task.cancel()
                stopping.append(task)
                del self._tasks[key]
        if stopping:
            await asyncio.wait(stopping)
        for key, (fingerprint, start) in wanted.items():
            if key not in self._tasks:
                self._tasks[key] = (fingerprint, spawn(self._group, f"{self._name}/{key}", start()))


async def finish(coro: Coroutine[Any, Any, T], deadline_s: float = 10.0) -> T:
    """Run a short idempotent coroutine to its end even when the caller is cancelled meanwhile.

    Cancelled: raised to the caller only after `coro` has ended or its deadline has passed.
    """

    async def bounded() -> T:
        async with asyncio.timeout(deadline_s):
            return await coro

    task = asyncio.create_task(bounded(), name="finish")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            log.error("write failed while stopping", exc_info=task.exception())
        raise


async def first_done(*coros: Coroutine[Any, Any, Any]) -> None:
    """Return when the first of `coros` returns; the others are cancelled and awaited. Errors propagate."""
    tasks = [asyncio.create_task(coro) for coro in coros]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()
