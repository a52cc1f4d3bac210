"""Structured concurrency: the only module that creates tasks.

- `spawn` starts a named task in a TaskGroup.
- `supervise` runs something that may fail for ever, with backoff, so that its failure reaches nobody else.
- `Children` keeps a keyed family of tasks equal to a wanted set.
- `finish` lets a short, idempotent write end although its caller is cancelled.
- `Pulse` wakes one waiter however often it was set.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Hashable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import structlog

from fleet.clock import Clock, jitter
from fleet.errors import After, FleetError, OnChange

log = structlog.get_logger()

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def spawn(group: asyncio.TaskGroup, name: str, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that cannot outlive `group`. `name` is `kind/subject`, shown in dumps.

    Raises: RuntimeError when the group is shutting down.
    """
    try:
        return group.create_task(coro, name=name)
    except RuntimeError:
        coro.close()
        raise


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
            return await _apart(name, attempt())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is contained here
            failure = as_fleet_error(error, name)
        if loop.time() - started > most_s:
            delay_s = first_s
        pause_s = failure.retry.seconds if isinstance(failure.retry, After) else jitter(clock, delay_s)
        delay_s = most_s if isinstance(failure.retry, OnChange) else min(delay_s * 2, most_s)
        on_failure(failure, pause_s)
        await asyncio.sleep(pause_s)


async def _apart(name: str, coro: Coroutine[Any, Any, T]) -> T:
    """Run something in a task of its own, which no outside cancellation or failure outlives.

    On Python 3.11 and 3.12 a TaskGroup whose child fails while it is cancelled raises that error in place of the
    cancellation, and one whose child fails while it waits for its children leaves its task counted as cancelled
    (https://github.com/python/cpython/issues/116720). So the inner task cannot be asked whether somebody wants it to end.

    Cancelled: passes through after `coro` has ended, whatever it raises meanwhile.
    """
    task = asyncio.create_task(coro, name=name)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # asked, else asyncio complains that nobody did
        raise
    return task.result()


def as_fleet_error(error: Exception, where: str) -> FleetError:
    """Return the first FleetError inside `error`, `InternalError` when there is none.

    Anything else in it is a bug: logged with its traceback.
    """
    leaves = list(_leaves(error))
    known = [leaf for leaf in leaves if isinstance(leaf, FleetError)]
    bugs = [leaf for leaf in leaves if not isinstance(leaf, FleetError)]
    if bugs:
        log.error("internal error", where=where, exc_info=error)
    if known:
        return known[0]
    return FleetError(f"{type(bugs[0]).__name__} in {where}; the log has the traceback", reason="InternalError")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


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
            if not task.cancelling():  # a second cancel would break into its cleaning up
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

    Cancelled: raised to the caller only after `coro` has ended or its deadline has passed, however often it is cancelled.
    """

    async def bounded() -> T:
        async with asyncio.timeout(deadline_s):
            return await coro

    task = asyncio.create_task(bounded(), name="finish")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            # a TaskGroup that aborts cancels again whoever is still ending
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            log.error("write failed while stopping", exc_info=task.exception())
        raise


async def first_done(*coros: Coroutine[Any, Any, Any]) -> None:
    """Return when the first of `coros` returns; the others are cancelled and awaited. Errors propagate."""
    tasks = [asyncio.create_task(coro, name="first_done") for coro in coros]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        # each is asked, else asyncio complains later of errors that nobody looked at
        errors = [task.exception() for task in tasks if not task.cancelled()]
    for error in filter(None, errors):
        raise error


def tell_loop_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Send what the loop itself complains about to the log; a TLS connection that dies while it closes is no news."""

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        message = str(context.get("message", ""))
        if message == "Fatal error on SSL protocol":
            log.debug("connection lost while closing", error=str(context.get("exception", "")))
        else:
            log.error("event loop", message=message, exc_info=context.get("exception"))

    loop.set_exception_handler(handle)
