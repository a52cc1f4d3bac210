"""Live reload in virtual time: a directory on disk, changes announced by the test."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from random import Random

from fleet.aio import Pulse, spawn
from fleet.errors import InventoryError
from fleet.inventory.value import Inventory
from fleet.inventory.watch import run_inventory
from fleet.sim.loop import EPOCH, run_virtual
from tests.unit.inventory.build import app, cluster, environment, repository

QUIET_S = 10.0


class FixedClock:
    """A clock whose chance is seeded."""

    rng = Random(0)

    def now(self) -> datetime:
        """Return the start of virtual time."""
        return EPOCH


class Bench:
    """A running reload with everything it said, and when."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hint = Pulse()
        self.seen: list[tuple[float, Inventory]] = []
        self.errors: list[tuple[float, InventoryError | None]] = []

    async def wait(self) -> None:
        """Be the `Changes` of the run."""
        await self.hint.wait()

    def now(self) -> float:
        """Return virtual seconds."""
        return asyncio.get_running_loop().time()

    def write(self, name: str, text: str) -> None:
        """Write a file and announce it."""
        (self.directory / name).write_text(text)
        self.hint.set()

    def delete(self, name: str) -> None:
        """Delete a file and announce it."""
        (self.directory / name).unlink()
        self.hint.set()

    @property
    def last(self) -> Inventory:
        """The inventory in force."""
        return self.seen[-1][1]


def run(directory: Path, story: Callable[[Bench], Awaitable[None]]) -> Bench:
    """Run a story beside `run_inventory` in virtual time."""
    bench = Bench(directory)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = spawn(
                group,
                "run",
                run_inventory(
                    directory,
                    bench,
                    FixedClock(),
                    removal_quiet_s=QUIET_S,
                    sink=lambda inventory: bench.seen.append((bench.now(), inventory)),
                    report=lambda error: bench.errors.append((bench.now(), error)),
                ),
            )
            await asyncio.sleep(1)
            await story(bench)
            task.cancel()

    run_virtual(main())
    return bench


def fill(directory: Path) -> Path:
    """Write a small inventory."""
    directory.mkdir(exist_ok=True)
    (directory / "base.yaml").write_text(repository() + environment("dev"))
    (directory / "app.yaml").write_text(app())
    (directory / "cluster.yaml").write_text(cluster("a") + cluster("b"))
    return directory


def test_the_first_inventory_comes_at_once_and_again_when_quiet(tmp_path: Path) -> None:
    """At the start absence is no removal; after the quiet time it is."""

    async def story(_: Bench) -> None:
        await asyncio.sleep(100)

    bench = run(fill(tmp_path), story)
    assert [(at, value.authoritative) for at, value in bench.seen] == [(0.0, False), (QUIET_S, True)]


def test_a_change_is_in_force_within_a_second(tmp_path: Path) -> None:
    """Additions and changes wait for the short pause alone."""

    async def story(bench: Bench) -> None:
        bench.write("new.yaml", cluster("c"))
        await asyncio.sleep(1)
        assert list(bench.last.clusters) == ["a", "b", "c"]
        bench.write("app.yaml", app(spec="prune: false"))
        await asyncio.sleep(1)
        assert not bench.last.apps["shop"].spec.prune

    run(fill(tmp_path), story)


def test_a_directory_that_never_rests_is_read_nevertheless(tmp_path: Path) -> None:
    """Constant writing delays a change by less than a second."""

    async def story(bench: Bench) -> None:
        bench.write("new.yaml", cluster("c"))
        for count in range(9):
            await asyncio.sleep(0.1)
            bench.write("noise.txt", str(count))
        assert list(bench.last.clusters) == ["a", "b", "c"]

    run(fill(tmp_path), story)


def test_a_removal_waits_for_the_quiet_time(tmp_path: Path) -> None:
    """A vanished document, by file or by shrinking file, leaves only after quiet; noise starts the wait anew."""

    async def story(bench: Bench) -> None:
        await asyncio.sleep(20)
        bench.write("cluster.yaml", cluster("a"))
        await asyncio.sleep(QUIET_S - 1)
        assert (list(bench.last.clusters), bench.last.authoritative) == (["a", "b"], False)
        bench.write("app.yaml", app(spec="prune: false"))
        await asyncio.sleep(QUIET_S - 1)
        assert list(bench.last.clusters) == ["a", "b"]
        await asyncio.sleep(2)
        assert (list(bench.last.clusters), bench.last.authoritative) == (["a"], True)
        bench.delete("cluster.yaml")
        await asyncio.sleep(QUIET_S + 1)
        assert list(bench.last.clusters) == []

    run(fill(tmp_path), story)


def test_a_removal_that_is_taken_back_leaves_no_trace(tmp_path: Path) -> None:
    """A pull that deletes and writes again never removes anything."""

    async def story(bench: Bench) -> None:
        await asyncio.sleep(20)
        text = (bench.directory / "cluster.yaml").read_text()
        bench.delete("cluster.yaml")
        await asyncio.sleep(5)
        bench.write("cluster.yaml", text)
        await asyncio.sleep(20)

    bench = run(fill(tmp_path), story)
    assert all(list(value.clusters) == ["a", "b"] for _, value in bench.seen)
    assert bench.last.authoritative


def test_a_change_without_a_hint_is_found_by_the_poll(tmp_path: Path) -> None:
    """File systems that announce nothing are read once a minute."""

    async def story(bench: Bench) -> None:
        (bench.directory / "new.yaml").write_text(cluster("c"))
        await asyncio.sleep(75)
        assert list(bench.last.clusters) == ["a", "b", "c"]

    run(fill(tmp_path), story)


def test_hints_without_a_change_are_passed_over(tmp_path: Path) -> None:
    """Equal bytes give no new inventory."""

    async def story(bench: Bench) -> None:
        await asyncio.sleep(20)
        said = len(bench.seen)
        for _ in range(5):
            bench.hint.set()
            await asyncio.sleep(1)
        assert len(bench.seen) == said

    run(fill(tmp_path), story)


def test_a_bad_file_is_shown_and_changes_nothing(tmp_path: Path) -> None:
    """The last good version stays; repairing the file ends the problem."""

    async def story(bench: Bench) -> None:
        await asyncio.sleep(20)
        bench.write("cluster.yaml", cluster("a") + "a: [")
        await asyncio.sleep(30)
        assert list(bench.last.clusters) == ["a", "b"]
        assert [problem.file for problem in bench.last.problems] == [str(bench.directory / "cluster.yaml")]
        bench.write("cluster.yaml", cluster("a") + cluster("b"))
        await asyncio.sleep(1)
        assert bench.last.problems == ()

    run(fill(tmp_path), story)


def test_a_missing_directory_is_an_error_and_never_nothing(tmp_path: Path) -> None:
    """What was in force stays; coming back ends the error, once."""
    directory = fill(tmp_path / "inventory")

    async def story(bench: Bench) -> None:
        await asyncio.sleep(20)
        directory.rename(tmp_path / "away")
        bench.hint.set()
        await asyncio.sleep(30)
        assert list(bench.last.clusters) == ["a", "b"]
        (tmp_path / "away").rename(directory)
        await asyncio.sleep(30)

    bench = run(directory, story)
    assert [error is None for _, error in bench.errors] == [False, True]
    assert "No such file" in str(bench.errors[0][1])
    assert len(bench.seen) == 4, "quiet is awaited again after the error"


def test_an_empty_directory_is_an_error_and_never_nothing(tmp_path: Path) -> None:
    """Neither at the start nor later is an empty directory an inventory."""
    directory = tmp_path / "inventory"
    directory.mkdir()

    async def story(bench: Bench) -> None:
        assert bench.seen == []
        fill(directory)
        await asyncio.sleep(2)
        assert list(bench.last.clusters) == ["a", "b"]
        for file in directory.iterdir():
            file.write_text("# emptied\n")
        bench.hint.set()
        await asyncio.sleep(30)
        assert list(bench.last.clusters) == ["a", "b"]

    bench = run(directory, story)
    assert [error is None for _, error in bench.errors] == [False, True, False]
