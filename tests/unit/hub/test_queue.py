"""Keyed runs: one at a time per key, marks coalesce, delays shorten."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from fleet.clock import SystemClock
from fleet.hub.queue import RETRY_S, Runner


class Work:
    """Notes each run's key and time; takes a second."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, float]] = []
        self.running = 0
        self.most_running = 0
        self.fail = 0

    async def __call__(self, key: str) -> None:
        self.runs.append((key, round(asyncio.get_running_loop().time() - self.start, 1)))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(1)
            if self.fail:
                self.fail -= 1
                raise RuntimeError("a bug")
        finally:
            self.running -= 1

    start = 0.0


@pytest.fixture
async def work() -> Work:
    """Work that counts from now."""
    made = Work()
    made.start = asyncio.get_running_loop().time()
    return made


@pytest.fixture
async def runner(work: Work) -> AsyncIterator[Runner[str]]:
    """A runner of that work."""
    async with asyncio.TaskGroup() as group:
        made = Runner("test", group, SystemClock(), work)
        yield made
        made.close()


async def test_marks_during_a_run_are_one_more_run(runner: Runner[str], work: Work) -> None:
    """However often a key is marked while it runs, it runs once more, and never twice at a time."""
    runner.mark("a")
    await asyncio.sleep(0.5)
    for _ in range(10):
        runner.mark("a")
    await asyncio.sleep(10)
    assert work.runs == [("a", 0.0), ("a", 1.0)]
    assert work.most_running == 1


async def test_keys_run_side_by_side(runner: Runner[str], work: Work) -> None:
    """Another key does not wait."""
    for key in ("a", "b", "c"):
        runner.mark(key)
    await asyncio.sleep(10)
    assert work.most_running == 3


async def test_the_shorter_delay_counts(runner: Runner[str], work: Work) -> None:
    """Of two delays the shorter one counts, and a mark overtakes both."""
    runner.mark_later("a", 60)
    runner.mark_later("a", 5)
    runner.mark_later("a", 30)
    runner.mark_later("b", 5)
    runner.mark("b")
    await asyncio.sleep(120)
    assert work.runs == [("b", 0.0), ("a", 5.0)]


async def test_a_forgotten_key_does_not_run(runner: Runner[str], work: Work) -> None:
    """What is dropped before its time never runs."""
    runner.mark_later("a", 5)
    runner.forget("a")
    await asyncio.sleep(60)
    assert work.runs == []


async def test_a_bug_is_tried_again_and_harms_no_other_key(runner: Runner[str], work: Work) -> None:
    """A run that raises comes again after a pause; another key goes on."""
    work.fail = 1
    runner.mark("a")
    await asyncio.sleep(RETRY_S * 3)
    runner.mark("b")
    await asyncio.sleep(5)
    assert [key for key, _ in work.runs] == ["a", "a", "b"]


async def test_settle_waits_for_the_last_run(runner: Runner[str], work: Work) -> None:
    """Whoever settles a key sees it neither running nor marked; an idle key is settled at once."""
    runner.mark("a")
    await asyncio.sleep(0.5)
    runner.mark("a")
    await runner.settle("a")
    assert len(work.runs) == 2
    assert work.running == 0
    await runner.settle("a")
