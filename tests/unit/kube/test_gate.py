"""The gate: how many requests, and whose go first. Runs in virtual time."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from random import Random
from typing import Any

from fleet.aio import spawn
from fleet.errors import After, Invalid, KubeError, ServerFailure, Throttled
from fleet.kube.gate import Gate, Priority
from fleet.sim.loop import SimLoop


class _Middle(Random):
    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class StillClock:
    """A clock without chance: jitter is none."""

    def __init__(self) -> None:
        self.rng: Random = _Middle(1)

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run in virtual time."""
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main)


async def work(gate: Gate, priority: Priority, log: list[str], name: str, *, lasts_s: float = 1.0) -> None:
    """Hold a place for a while and note when it came."""
    async with gate.enter(priority):
        log.append(name)
        await asyncio.sleep(lasts_s)


async def fail(gate: Gate, error: KubeError) -> None:
    """Make a request that fails."""
    try:
        async with gate.enter(Priority.APPLY):
            await asyncio.sleep(0)
            raise error
    except KubeError:
        pass


def test_limit_bounds_requests() -> None:
    """Never more in flight than the limit, whatever is asked."""

    async def main() -> None:
        gate = Gate(StillClock(), most=3)
        most = 0

        async def one() -> None:
            nonlocal most
            async with gate.enter(Priority.APPLY):
                most = max(most, gate.in_flight)
                await asyncio.sleep(0.1)

        async with asyncio.TaskGroup() as group:
            for n in range(20):
                spawn(group, f"one/{n}", one())
        assert most == 3
        assert gate.in_flight == 0

    run(main())


def test_urgent_requests_go_first() -> None:
    """Waiting requests are served by priority, and inside one priority in order."""

    async def main() -> None:
        gate, log = Gate(StillClock(), most=1), list[str]()
        async with asyncio.TaskGroup() as group:
            for n, priority in enumerate(
                (Priority.AUDIT, Priority.APPLY, Priority.DRIFT, Priority.APPLY, Priority.USER, Priority.ROLLOUT)
            ):
                spawn(group, f"work/{n}", work(gate, priority, log, f"{priority.name}{n}"))
        assert log == ["AUDIT0", "USER4", "ROLLOUT5", "DRIFT2", "APPLY1", "APPLY3"]

    run(main())


def test_nobody_starves() -> None:
    """A stream of urgent requests lets the oldest other one through within eight turns."""

    async def main() -> None:
        gate, log = Gate(StillClock(), most=1), list[str]()
        async with asyncio.TaskGroup() as group:
            spawn(group, "hold", work(gate, Priority.USER, log, "first"))
            await asyncio.sleep(0)
            spawn(group, "audit", work(gate, Priority.AUDIT, log, "audit"))
            for n in range(30):
                spawn(group, f"user/{n}", work(gate, Priority.USER, log, "user"))
        assert log.index("audit") <= 8

    run(main())


def test_overload_halves_once_per_round() -> None:
    """Requests refused together halve the limit once; successes raise it again, one per window."""

    async def main() -> None:
        gate = Gate(StillClock(), most=32)
        assert gate.limit == 16
        async with asyncio.TaskGroup() as group:
            for n in range(16):
                spawn(group, f"fail/{n}", fail(gate, ServerFailure("down", status=503)))
        assert gate.limit == 8
        for _ in range(9):
            await work(gate, Priority.APPLY, [], "ok")
        assert gate.limit == 9
        for _ in range(2000):
            await work(gate, Priority.APPLY, [], "ok")
        assert gate.limit == 32
        for _ in range(10):
            await fail(gate, ServerFailure("down", status=504))
        assert gate.limit == 1

    run(main())


def test_errors_of_the_object_teach_nothing() -> None:
    """A wrong manifest says nothing about the server's load."""

    async def main() -> None:
        gate = Gate(StillClock())
        await fail(gate, Invalid("wrong", status=422))
        await fail(gate, ServerFailure("webhook", status=500))
        assert gate.limit == 16

    run(main())


def test_retry_after_pauses_everybody() -> None:
    """Nobody gets in before the time that the server asked for."""

    async def main() -> None:
        gate = Gate(StillClock())
        await fail(gate, Throttled("slow down", status=429, retry=After(5.0)))
        began = asyncio.get_running_loop().time()
        async with gate.enter(Priority.USER):
            assert asyncio.get_running_loop().time() - began == 5.0

    run(main())


def test_cancelled_waiters_leave_no_trace() -> None:
    """A waiter cancelled before, at or after its admission frees its place exactly once."""

    async def main() -> None:
        gate, log = Gate(StillClock(), most=1), list[str]()
        async with asyncio.TaskGroup() as group:
            first = spawn(group, "first", work(gate, Priority.APPLY, log, "first"))
            await asyncio.sleep(0)
            waiting = [spawn(group, f"w/{n}", work(gate, Priority.APPLY, log, f"w{n}")) for n in range(4)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            first.cancel()  # frees the place in the same turn in which the next one is cancelled
            await asyncio.sleep(0)
            waiting[1].cancel()
        assert gate.in_flight == 0
        assert log == ["first", "w2", "w3"]

    run(main())
