"""When a mirror polls: its interval, its patience with a remote that fails, and what wakes it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from fleet.aio import spawn
from fleet.child import InlineWorkers
from fleet.errors import After, FetchFailed, FleetError
from fleet.git.order import Good, Holdings, OpenOrder, decode, encode
from fleet.git.repository import Mirror, Snapshot
from tests.harness.gitrepo import GitRepository
from tests.integration.git.conftest import Site, make_document, open_site
from tests.integration.git.virtual.conftest import VirtualClock


@asynccontextmanager
async def _running(site: Site) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = spawn(group, "mirror/test", site.mirror.run())
        yield
        task.cancel()


async def test_a_running_mirror_follows_by_itself(
    tmp_path: Path, repository: GitRepository, clock: VirtualClock
) -> None:
    """A commit is there within one interval (and its jitter) without anybody asking."""
    first = repository.commit()
    document = make_document("config", repository.path, interval="30s")
    async with open_site(tmp_path / "store", [document], InlineWorkers(), clock=clock) as site, _running(site):
        await site.until(lambda: site.revision() == first)
        loop = asyncio.get_running_loop()
        started = loop.time()
        second = repository.commit()
        await site.until(lambda: site.revision() == second)
        assert loop.time() - started <= 30 * 1.1
        site.workers.take()
        await asyncio.sleep(600)
        assert set(site.workers.jobs) == {"list_refs"}
        assert 18 <= len(site.workers.take()) <= 23


async def test_the_shortest_interval_counts_and_a_change_wakes(
    tmp_path: Path, repository: GitRepository, clock: VirtualClock
) -> None:
    """Following another document polls at once, and from then on as often as it wants."""
    repository.commit()
    slow = make_document("slow", repository.path, interval="1h")
    fast = make_document("fast", repository.path, interval="10s")
    async with open_site(tmp_path / "store", [slow], InlineWorkers(), clock=clock) as site, _running(site):
        await asyncio.sleep(60)
        site.workers.take()
        site.mirror.follow([slow, fast])
        await asyncio.sleep(0.1)
        assert site.revision("fast") == repository.head()
        await asyncio.sleep(100)
        assert 9 <= site.workers.take().count("list_refs") <= 13
        site.mirror.follow([slow])
        await asyncio.sleep(0.1)
        site.workers.take()
        await asyncio.sleep(1000)
        assert site.workers.take() == []


async def test_nothing_to_follow_asks_nothing(tmp_path: Path, repository: GitRepository, clock: VirtualClock) -> None:
    """Without documents the remote is left alone."""
    document = make_document("config", repository.path)
    async with open_site(tmp_path / "store", [document], InlineWorkers(), clock=clock) as site, _running(site):
        await asyncio.sleep(1)
        site.mirror.follow([])
        site.workers.take()
        await asyncio.sleep(100_000)
        assert site.workers.take() == []


async def test_a_failing_remote_is_asked_ever_less_and_recovers(tmp_path: Path, clock: VirtualClock) -> None:
    """The pause grows to a minute, the error is told once, and the repository is found when it appears."""
    path = tmp_path / "late"
    document = make_document("config", path, interval="5s")
    async with open_site(tmp_path / "store", [document], InlineWorkers(), clock=clock) as site, _running(site):
        await asyncio.sleep(3600)
        assert 50 <= site.workers.take().count("list_refs") <= 80
        assert [told.error.reason for told in site.told if told.error] == ["RepositoryNotFound"]
        first = GitRepository(path).commit()
        await site.until(lambda: site.revision() == first)
        assert asyncio.get_running_loop().time() <= 3600 + 60 * 1.2
        site.workers.take()
        await asyncio.sleep(100)
        assert 18 <= site.workers.take().count("list_refs") <= 23


class _Remote:
    """A remote in memory that can be told how to behave."""

    name = "fake"

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.closed = 0
        self.failure: FleetError | BaseException | None = None
        self.gate: asyncio.Event | None = None

    async def list_refs(self, prefixes: Sequence[str]) -> Mapping[str, str]:
        self.asked.append(asyncio.get_running_loop().time())
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return {"refs/heads/main": "a" * 40}

    @asynccontextmanager
    async def relay(self) -> AsyncIterator[str]:
        yield "nowhere"

    async def close(self) -> None:
        self.closed += 1


class _Holding:
    """Workers of a store that holds the remote's commit already."""

    async def call(self, job: object, payload: bytes, *, deadline_s: float) -> bytes:
        assert decode(payload, OpenOrder).store
        return encode(Holdings(exists=True, good={"config": Good("refs/heads/main", "a" * 40)}, commits=["a" * 40]))


def _make_mirror(remote: _Remote, tmp_path: Path, clock: VirtualClock, told: list[Snapshot]) -> Mirror:
    mirror = Mirror(remote, directory=tmp_path, workers=_Holding(), clock=clock, timeout_s=60.0, on_change=told.append)
    mirror.follow([make_document("config", "/nowhere", interval="10s")])
    return mirror


async def test_a_hanging_remote_is_an_error_within_half_a_minute(tmp_path: Path, clock: VirtualClock) -> None:
    """A listing that never ends is given up, the last good revision is known meanwhile, and an answer clears it."""
    remote, told = _Remote(), list[Snapshot]()
    remote.gate = asyncio.Event()
    mirror = _make_mirror(remote, tmp_path, clock, told)
    async with asyncio.TaskGroup() as group:
        task = spawn(group, "mirror/test", mirror.run())
        await asyncio.sleep(1)
        assert mirror.snapshot("config").revision == "a" * 40
        await asyncio.sleep(29)
        error = mirror.snapshot("config").error
        assert error is not None
        assert (error.reason, error.message) == ("Timeout", "fake did not answer within 20 s")
        remote.gate.set()
        await asyncio.sleep(60)
        assert mirror.snapshot("config").error is None
        task.cancel()
    assert remote.closed == 1


async def test_a_remote_says_when_to_come_again(tmp_path: Path, clock: VirtualClock) -> None:
    """Retry-After replaces the mirror's own patience; somebody who asks is answered nevertheless."""
    remote, told = _Remote(), list[Snapshot]()
    remote.failure = FetchFailed("fake answered with HTTP 429", retry=After(1000.0))
    mirror = _make_mirror(remote, tmp_path, clock, told)
    async with asyncio.TaskGroup() as group:
        task = spawn(group, "mirror/test", mirror.run())
        await asyncio.sleep(2500)
        assert remote.asked == [0.0, 1000.0, 2000.0]
        remote.failure = None
        await mirror.sync()
        assert mirror.snapshot("config").error is None
        task.cancel()


async def test_a_bug_is_contained(tmp_path: Path, clock: VirtualClock) -> None:
    """An unexpected exception is an InternalError in the snapshot and not the end of the mirror."""
    remote, told = _Remote(), list[Snapshot]()
    remote.failure = ZeroDivisionError("oops")
    mirror = _make_mirror(remote, tmp_path, clock, told)
    await mirror.sync()
    error = mirror.snapshot("config").error
    assert error is not None
    assert error.reason == "InternalError"
    remote.failure = None
    await mirror.sync()
    assert mirror.snapshot("config").error is None


async def test_callers_at_the_same_time_share_a_poll(tmp_path: Path, clock: VirtualClock) -> None:
    """Many that ask while a poll is at work are answered by one more, which began after they asked."""
    remote, told = _Remote(), list[Snapshot]()
    remote.gate = asyncio.Event()
    mirror = _make_mirror(remote, tmp_path, clock, told)
    async with asyncio.TaskGroup() as group:
        spawn(group, "sync/0", mirror.sync())
        await asyncio.sleep(1)
        for number in range(10):
            spawn(group, f"sync/{number + 1}", mirror.sync())
        await asyncio.sleep(1)
        remote.gate.set()
    assert len(remote.asked) == 2


async def test_a_cancelled_caller_leaves_the_poll_to_the_next(tmp_path: Path, clock: VirtualClock) -> None:
    """Whoever waited behind a caller that was cancelled polls itself."""
    remote, told = _Remote(), list[Snapshot]()
    remote.gate = asyncio.Event()
    mirror = _make_mirror(remote, tmp_path, clock, told)
    async with asyncio.TaskGroup() as group:
        first = spawn(group, "sync/1", mirror.sync())
        await asyncio.sleep(1)
        second = spawn(group, "sync/2", mirror.sync())
        await asyncio.sleep(1)
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        await asyncio.sleep(1)
        remote.gate.set()
        await second
    assert len(remote.asked) == 2
    assert mirror.snapshot("config").error is None


@pytest.mark.parametrize("seed", range(3))
async def test_mirrors_do_not_poll_in_step(tmp_path: Path, clock: VirtualClock, seed: int) -> None:
    """The pauses between polls differ, within a tenth of the interval."""
    clock.rng.seed(seed)
    remote, told = _Remote(), list[Snapshot]()
    mirror = _make_mirror(remote, tmp_path, clock, told)
    async with asyncio.TaskGroup() as group:
        task = spawn(group, "mirror/test", mirror.run())
        await asyncio.sleep(200)
        task.cancel()
    pauses = [round(after - before, 6) for before, after in zip(remote.asked, remote.asked[1:], strict=False)]
    assert len(set(pauses)) > 10
    assert all(9.0 <= pause <= 11.0 for pause in pauses)
