"""Tasks that live, fail and end as they should. Runs in virtual time."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
import structlog

from fleet.aio import Children, Pulse, as_fleet_error, finish, first_done, spawn, supervise
from fleet.errors import After, FetchFailed, FleetError, InventoryError
from fleet.sim.loop import SimLoop

Start = Callable[[], Coroutine[Any, Any, None]]


class StillClock:
    """A clock without chance: jitter is none."""

    class _Middle(Random):
        def uniform(self, a: float, b: float) -> float:
            return (a + b) / 2

    def __init__(self) -> None:
        self.rng: Random = self._Middle(1)

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run in virtual time."""
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main)


def now_s() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


class Failures:
    """Remembers what supervise reported, and when."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float]] = []

    def __call__(self, error: FleetError, retry_in_s: float) -> None:
        self.seen.append((error.reason, retry_in_s))

    @property
    def pauses(self) -> list[float]:
        """The announced pauses, in seconds."""
        return [pause for _, pause in self.seen]


async def supervised(attempt: Start, told: Failures) -> None:
    """Run `supervise` with its defaults."""
    await supervise("test", attempt, clock=StillClock(), on_failure=told)


def test_pauses_double_up_to_a_minute() -> None:
    """A failing attempt is repeated after 1, 2, 4 ... seconds, never later than after 60, and ends when it succeeds."""
    told, began = Failures(), []

    async def attempt() -> None:
        began.append(now_s())
        if len(began) < 10:
            raise FetchFailed("down")

    run(supervised(attempt, told))
    assert told.pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert [after - before for before, after in itertools.pairwise(began)] == told.pauses


def test_a_long_life_forgets_old_failures() -> None:
    """What ran for more than a minute starts over with the shortest pause."""
    told, lives = Failures(), iter([0, 0, 0, 61, 0])

    async def attempt() -> None:
        lasts_s = next(lives, None)
        if lasts_s is None:
            return
        await asyncio.sleep(lasts_s)
        raise FetchFailed("down")

    run(supervised(attempt, told))
    assert told.pauses == [1, 2, 4, 1, 2]


def test_an_error_may_name_its_own_pause() -> None:
    """`After` is obeyed to the second; an error that only a change can cure is tried rarely."""
    told = Failures()
    errors = iter([FetchFailed("busy", retry=After(7)), InventoryError("empty"), InventoryError("empty")])

    async def attempt() -> None:
        error = next(errors, None)
        if error is not None:
            raise error

    run(supervised(attempt, told))
    assert told.pauses == [7, 2, 60]


def test_a_bug_is_contained_and_named() -> None:
    """An unexpected exception is reported as InternalError, its traceback logged, its text shown to nobody."""
    told, texts = Failures(), iter(["hunter2"])

    async def attempt() -> None:
        for text in texts:
            raise KeyError(text)

    with structlog.testing.capture_logs() as logs:
        run(supervised(attempt, told))
    assert [reason for reason, _ in told.seen] == ["InternalError"]
    assert [(entry["event"], type(entry["exc_info"])) for entry in logs] == [("internal error", KeyError)]
    assert "hunter2" not in as_fleet_error(KeyError("hunter2"), "here").message


def test_our_error_is_found_inside_groups() -> None:
    """A failure raised below nested task groups keeps its reason; a bug beside it is logged all the same."""
    alone = ExceptionGroup("outer", [ExceptionGroup("inner", [FetchFailed("down")])])
    beside = ExceptionGroup("outer", [KeyError("x"), alone])
    with structlog.testing.capture_logs() as logs:
        assert as_fleet_error(alone, "here").reason == "FetchFailed"
        assert logs == []
        assert as_fleet_error(beside, "here").reason == "FetchFailed"
    assert [entry["event"] for entry in logs] == ["internal error"]


def test_cancelling_ends_the_attempt_first() -> None:
    """A cancelled supervisor is gone only when its attempt has cleaned up."""
    log: list[str] = []

    async def attempt() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)
            log.append("clean")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = spawn(group, "test", supervised(attempt, Failures()))
            await asyncio.sleep(5)
            task.cancel()
        log.append("over")

    run(main())
    assert log == ["clean", "over"]


def test_a_failed_group_is_not_a_cancellation() -> None:
    """An attempt whose own TaskGroup fails while it waits for its children begins again."""
    attempts = 0

    async def fail() -> None:
        await asyncio.sleep(1)
        raise FetchFailed("no")

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            async with asyncio.TaskGroup() as group:
                spawn(group, "fail", fail())
                spawn(group, "wait", asyncio.sleep(60))

    told = Failures()
    run(supervised(attempt, told))
    assert (attempts, told.pauses) == (3, [1.0, 2.0])


def test_an_error_while_stopping_does_not_restart() -> None:
    """A task group turns a cancellation into an error when a child fails while it is cancelled: that is still the end."""
    begun: list[float] = []

    async def child() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise FetchFailed("down")

    async def attempt() -> None:
        begun.append(now_s())
        async with asyncio.TaskGroup() as group:
            spawn(group, "child", child())

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = spawn(group, "test", supervised(attempt, Failures()))
            await asyncio.sleep(5)
            task.cancel()
        assert task.cancelled()

    run(main())
    assert begun == [0]


class Family:
    """Children that note when they begin and end."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def child(self, name: str, *, ends_after_s: float = 1.0) -> Start:
        """Return what starts one child."""

        async def live() -> None:
            self.log.append(f"+{name}")
            try:
                await asyncio.sleep(1000)
            finally:
                await finish(self._end(name, ends_after_s), 60)

        return live

    async def _end(self, name: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.log.append(f"-{name}")

    async def settle(self) -> list[str]:
        """Let new children begin; return what happened since the last call."""
        await asyncio.sleep(0)
        seen, self.log = self.log, []
        return seen


def test_a_family_follows_what_is_wanted() -> None:
    """Unwanted children end, changed ones end before they begin again, equal ones are left alone."""
    family = Family()

    async def main() -> None:
        async with Children[str]("test") as children:
            await children.adjust({"a": (1, family.child("a1")), "b": (1, family.child("b1"))})
            assert await family.settle() == ["+a1", "+b1"]
            await children.adjust({"a": (1, family.child("other")), "b": (1, family.child("other"))})
            assert await family.settle() == []
            await children.adjust({"a": (2, family.child("a2")), "c": (1, family.child("c1"))})
            assert await family.settle() == ["-a1", "-b1", "+a2", "+c1"]
            assert len(children) == 2
        assert sorted(await family.settle()) == ["-a2", "-c1"]

    run(main())


def test_a_child_that_ended_by_itself_begins_again_when_still_wanted() -> None:
    """Adjusting revives what returned; nothing else does."""
    begun: list[int] = []

    async def short() -> None:
        begun.append(1)

    async def main() -> None:
        async with Children[str]("test") as children:
            for _ in range(3):
                await children.adjust({"a": (1, short)})
                await asyncio.sleep(1)

    run(main())
    assert len(begun) == 3


def test_a_cancelled_family_leaves_nobody_behind() -> None:
    """Cancelling the owner, even while it waits for a child to stop, ends every child."""
    family = Family()

    async def owner() -> None:
        async with Children[str]("test") as children:
            await children.adjust({"a": (1, family.child("a")), "b": (1, family.child("b", ends_after_s=10))})
            await asyncio.sleep(1)
            await children.adjust({"a": (1, family.child("a"))})

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = spawn(group, "owner", owner())
            await asyncio.sleep(3)
            task.cancel()

    run(main())
    assert sorted(family.log) == ["+a", "+b", "-a", "-b"]


def test_a_child_that_fails_ends_the_family() -> None:
    """Children contain their own failures; one that does not takes its siblings along and is told."""
    family = Family()

    async def fail() -> None:
        await asyncio.sleep(1)
        raise FetchFailed("down")

    async def main() -> None:
        async with Children[str]("test") as children:
            await children.adjust({"a": (1, family.child("a")), "b": (1, fail)})
            await asyncio.sleep(1000)

    with pytest.raises(ExceptionGroup) as ended:
        run(main())
    assert as_fleet_error(ended.value, "here").reason == "FetchFailed"
    assert family.log == ["+a", "-a"]


@pytest.mark.parametrize("times", [1, 3])
def test_a_write_ends_although_its_caller_is_cancelled(times: int) -> None:
    """`finish` hands the cancellation on only after the write is done, however often it is asked."""
    log: list[str] = []

    async def write() -> None:
        await asyncio.sleep(2)
        log.append("written")

    async def caller() -> None:
        try:
            await finish(write())
        finally:
            log.append(f"caller at {now_s():g}")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = spawn(group, "caller", caller())
            for _ in range(times):
                await asyncio.sleep(0.5)
                task.cancel()
        assert task.cancelled()

    run(main())
    assert log == ["written", "caller at 2"]


def test_a_write_has_a_deadline() -> None:
    """What does not end is given up at its deadline, cancelled caller or not."""

    async def hang() -> None:
        await asyncio.sleep(1000)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await finish(hang(), 5)
        assert now_s() == 5
        async with asyncio.TaskGroup() as group:
            task = spawn(group, "caller", finish(hang(), 5))
            await asyncio.sleep(1)
            task.cancel()
        assert task.cancelled()
        assert now_s() == 10

    run(main())


def test_a_write_returns_and_raises_like_a_call() -> None:
    """`finish` is transparent: results and errors pass; an error after a cancellation is logged instead."""

    async def fail(after_s: float) -> None:
        await asyncio.sleep(after_s)
        raise FetchFailed("down")

    async def main() -> None:
        assert await finish(asyncio.sleep(0, "value")) == "value"
        with pytest.raises(FetchFailed):
            await finish(fail(0))
        async with asyncio.TaskGroup() as group:
            task = spawn(group, "caller", finish(fail(2)))
            await asyncio.sleep(1)
            task.cancel()
        assert task.cancelled()

    with structlog.testing.capture_logs() as logs:
        run(main())
    assert [entry["event"] for entry in logs] == ["write failed while stopping"]


def test_pulses_coalesce() -> None:
    """Many sets before a wait are one wake-up; a set is never lost, not even to a timeout."""

    async def main() -> None:
        pulse = Pulse()
        assert not await pulse.wait(1)
        assert now_s() == 1
        for _ in range(3):
            pulse.set()
        assert await pulse.wait(1)
        assert not await pulse.wait(1)
        async with asyncio.TaskGroup() as group:
            waiting = spawn(group, "wait", pulse.wait())
            await asyncio.sleep(1)
            pulse.set()
            waiting.cancel()
        assert await pulse.wait(0.1)

    run(main())


def test_the_first_to_return_ends_the_others() -> None:
    """Whoever is not first has been cancelled and awaited when `first_done` returns."""
    family = Family()

    async def main() -> None:
        await first_done(asyncio.sleep(5), family.child("slow")())
        assert now_s() == 6

    run(main())
    assert family.log == ["+slow", "-slow"]


def test_errors_of_the_first_pass() -> None:
    """An error of the first one is raised; so is one that another raises while it is cancelled."""

    async def fail() -> None:
        raise FetchFailed("down")

    async def fail_when_cancelled() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise FetchFailed("unclean")

    async def main() -> None:
        with pytest.raises(FetchFailed, match="down"):
            await first_done(fail(), asyncio.sleep(1000))
        with pytest.raises(FetchFailed, match="unclean"):
            await first_done(asyncio.sleep(1), fail_when_cancelled())
        with pytest.raises(FetchFailed, match="down"):
            await first_done(fail(), fail())

    run(main())


def test_first_done_is_cancelled_as_a_whole() -> None:
    """Cancelling the caller ends every one of them before the cancellation goes on."""
    family = Family()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = spawn(group, "caller", first_done(family.child("a")(), family.child("b")()))
            await asyncio.sleep(1)
            task.cancel()
        assert task.cancelled()

    run(main())
    assert sorted(family.log) == ["+a", "+b", "-a", "-b"]
