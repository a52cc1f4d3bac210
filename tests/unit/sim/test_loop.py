"""Virtual time: jumps, order, deadlocks."""

import asyncio

import pytest

from fleet.sim.loop import EPOCH, Deadlock, SimLoop, run_virtual


def test_sleep_jumps() -> None:
    """A long sleep passes at once, and the loop's clock says it passed."""

    async def main() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 86_400


def test_timers_fire_in_order() -> None:
    """Timers fire by their time, whatever the order they were set in."""
    seen: list[int] = []

    async def wait(seconds: int) -> None:
        await asyncio.sleep(seconds)
        seen.append(seconds)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for seconds in (3, 1, 2):
                group.create_task(wait(seconds))

    run_virtual(main())
    assert seen == [1, 2, 3]


def test_deadlock_names_the_waiting_task() -> None:
    """When nothing can happen any more the run ends and says who waits where."""

    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock, match=r"main at .*test_loop\.py"):
        run_virtual(main())


def test_timeout_in_virtual_time() -> None:
    """A deadline fires when its virtual time has come."""

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 30


def test_executor_runs_inline() -> None:
    """Work for an executor is done when the call returns, and its errors reach the awaiting task."""

    def fail() -> None:
        raise ValueError("no")

    async def main() -> int:
        loop = asyncio.get_running_loop()
        with pytest.raises(ValueError, match="no"):
            await loop.run_in_executor(None, fail)
        return await loop.run_in_executor(None, lambda: 7)

    assert run_virtual(main()) == 7


def test_wall_time_follows_the_loop() -> None:
    """Wall time starts at the epoch and moves with the loop's clock."""

    async def main() -> float:
        await asyncio.sleep(90)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        return (loop.now() - EPOCH).total_seconds()

    assert run_virtual(main()) == 90
