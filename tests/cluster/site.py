"""Real servers that a whole test run shares, driven from a thread with a loop of its own.

Tests get function-scoped loops, so nothing here belongs to a test's loop: processes are plain children, and the pod
simulators live in the site's thread.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from fleet.sim.pod import Rules, run_pods
from fleet.sim.real import ControlPlane, Rack, rack

POLL_S = 0.05
GROW_TIMEOUT_S = 300.0

T = TypeVar("T")


async def until(probe: Callable[[], Awaitable[T]], *, timeout_s: float = 45.0) -> T:
    """Ask until the answer is true, and return it; the deadline is there for a broken test, not to measure."""
    try:
        async with asyncio.timeout(timeout_s):
            while not (answer := await probe()):
                await asyncio.sleep(POLL_S)
            return answer
    except TimeoutError:
        raise AssertionError(f"still {answer!r} after {timeout_s:.0f} s") from None


class Site:
    """One etcd with as many control planes as tests asked for, each with running pods."""

    def __init__(self, binaries: Path, root: Path) -> None:
        self._binaries = binaries
        self._root = root
        self._planes: list[ControlPlane] = []
        self._rules: dict[str, Rules] = {}
        self._rack: Rack
        self._tasks: asyncio.TaskGroup
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="site")

    def start(self) -> None:
        """Start etcd; control planes come when they are asked for."""
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def close(self) -> None:
        """End every process and the thread."""
        if self._error is None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def planes(self, count: int) -> list[ControlPlane]:
        """Return `count` control planes that run, starting what is missing or was left stopped."""
        return self._call(self._ensure(count))[:count]

    def rules(self, plane: ControlPlane) -> Rules:
        """Return the rules of the pods of one control plane."""
        return self._rules[plane.name]

    def compact(self) -> None:
        """Make etcd forget all history before now; see `Rack.compact`."""
        self._call(self._rack.compact())

    def _call(self, coro: Coroutine[Any, Any, T]) -> T:
        if self._error is not None:
            coro.close()
            raise RuntimeError("the servers of this test run have ended") from self._error
        return asyncio.run_coroutine_threadsafe(coro, self._loop).result(GROW_TIMEOUT_S)

    async def _ensure(self, count: int) -> list[ControlPlane]:
        for plane in self._planes:
            await plane.resume()
            await plane.start()
        if (missing := count - len(self._planes)) > 0:
            for plane in await self._rack.grow(missing):
                self._planes.append(plane)
                rules = self._rules[plane.name] = Rules()
                pods = run_pods(plane.url, ssl_context=plane.ssl_context(), rules=rules)
                self._tasks.create_task(pods, name=f"pods/{plane.name}")
        return self._planes

    def _run(self) -> None:
        try:
            asyncio.run(self._hold())
        except BaseException as error:
            self._error = error
        finally:
            self._started.set()

    async def _hold(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with rack(self._binaries, self._root) as self._rack, asyncio.TaskGroup() as self._tasks:
            keeper = asyncio.current_task()
            self._started.set()
            await self._stop.wait()
            for task in asyncio.all_tasks() - {keeper}:
                task.cancel()
