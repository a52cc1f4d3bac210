"""Real directories: what is read, and what the operating system announces."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from fleet.aio import Pulse, spawn
from fleet.clock import SystemClock
from fleet.errors import InventoryError
from fleet.inventory.load import load_inventory, scan_directory
from fleet.inventory.value import Inventory
from fleet.inventory.watch import DirectoryChanges, run_inventory
from tests.integration.inventory.test_reload import fill
from tests.unit.inventory.build import app, cluster, environment, repository


def test_only_inventory_files_are_read(tmp_path: Path) -> None:
    """Sub-folders and all three suffixes count; hidden entries and other files do not."""
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "base.yml").write_text(repository() + environment("dev"))
    (tmp_path / "sub" / "deeper" / "app.yaml").write_text(app())
    (tmp_path / "env.json").write_text(
        '{"apiVersion": "fleet/v1", "kind": "Environment", "metadata": {"name": "json"}}'
    )
    for ignored in (".hidden/x.yaml", ".x.yaml", "notes.txt", "x.kubeconfig", "x.yaml~", "x.yaml.swp"):
        (tmp_path / ignored).write_text("a: [")
    found = load_inventory(tmp_path)
    assert found.problems == ()
    assert (list(found.environments), list(found.apps)) == (["dev", "json"], ["shop"])


def test_a_loop_of_links_is_read_once(tmp_path: Path) -> None:
    """A link to a directory above it is not followed."""
    fill(tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert list(load_inventory(tmp_path).clusters) == ["a", "b"]


def test_a_broken_link_is_a_problem_of_that_file(tmp_path: Path) -> None:
    """What cannot be read is named; the rest is read."""
    fill(tmp_path)
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    found = load_inventory(tmp_path)
    assert [str(problem) for problem in found.problems] == [
        f"{tmp_path}/gone.yaml: cannot be read: No such file or directory"
    ]
    assert not found.complete


def fill_empty(path: Path) -> None:
    """Write an inventory file without documents."""
    path.mkdir()
    (path / "x.yaml").write_text("---\n# nothing\n")


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, Path.touch, fill_empty])
def test_nothing_to_read_is_an_error(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A missing directory, an empty one, a file, and one without documents are never an inventory."""
    make(tmp_path / "inventory")
    with pytest.raises(InventoryError, match="inventory"):
        load_inventory(tmp_path / "inventory")


@pytest.mark.parametrize("kind", ["pipe", "huge", "directory link"])
def test_what_is_no_inventory_file_is_a_problem_of_itself(tmp_path: Path, kind: str) -> None:
    """A pipe that nobody writes to, or a file of gigabytes, neither blocks the others nor fills the memory."""
    (tmp_path / "good.yaml").write_text(environment("dev"))
    odd = tmp_path / "odd.yaml"
    match kind:
        case "pipe":
            os.mkfifo(odd)
        case "huge":
            with odd.open("wb") as file:
                file.truncate(10 << 30)
        case _:
            (tmp_path / "below").mkdir()
            odd.symlink_to(tmp_path / "below")
    loaded = load_inventory(tmp_path)
    assert list(loaded.environments) == ["dev"]
    expected = {"pipe": "is not a regular file", "huge": "is larger than 1 MiB"}.get(kind)
    assert [p.message for p in loaded.problems] == ([expected] if expected else [])


def test_files_with_equal_bytes_are_not_parsed_again(tmp_path: Path) -> None:
    """A second reading costs what changed."""
    first = scan_directory(fill(tmp_path))
    (tmp_path / "app.yaml").write_text(app(spec="prune: false"))
    second = scan_directory(tmp_path, first)
    kept = [path for path in second.files if second.files[path] is first.files[path]]
    assert kept == [f"{tmp_path}/base.yaml", f"{tmp_path}/cluster.yaml"]


class Follower:
    """What a running reload has said last."""

    def __init__(self) -> None:
        self.inventory: Inventory | None = None
        self.error: InventoryError | None = None
        self._said = Pulse()

    def sink(self, inventory: Inventory) -> None:
        """Take an inventory."""
        self.inventory = inventory
        self._said.set()

    def report(self, error: InventoryError | None) -> None:
        """Take an error or its end."""
        self.error = error
        self._said.set()

    async def until(self, holds: Callable[[Inventory], bool]) -> Inventory:
        """Wait until the inventory in force is as expected."""
        async with asyncio.timeout(20):
            while self.inventory is None or not holds(self.inventory):
                await self._said.wait()
        return self.inventory

    async def until_error(self) -> InventoryError:
        """Wait until the directory cannot be read."""
        async with asyncio.timeout(20):
            while self.error is None:
                await self._said.wait()
        return self.error


@contextlib.asynccontextmanager
async def following(directory: Path, removal_quiet_s: float = 0.3) -> AsyncIterator[Follower]:
    """Run a reload on a real directory."""
    follower = Follower()
    changes = DirectoryChanges(directory)
    work = run_inventory(
        directory,
        changes,
        SystemClock(),
        removal_quiet_s=removal_quiet_s,
        sink=follower.sink,
        report=follower.report,
    )
    group = asyncio.TaskGroup()
    async with group:
        task = spawn(group, "run", work)
        yield follower
        task.cancel()


async def test_writing_renaming_and_deleting_are_followed(tmp_path: Path) -> None:
    """New files, files moved into place, renamed ones, changed ones and deleted ones take effect without a restart."""
    fill(tmp_path)
    async with following(tmp_path) as follower:
        await follower.until(lambda value: list(value.clusters) == ["a", "b"])
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "new.yaml").write_text(cluster("c"))
        await follower.until(lambda value: "c" in value.clusters)
        (tmp_path / ".tmp").write_text(cluster("d"))
        (tmp_path / ".tmp").rename(tmp_path / "moved.yaml")
        await follower.until(lambda value: "d" in value.clusters)
        (tmp_path / "moved.yaml").rename(tmp_path / "renamed.yaml")
        value = await follower.until(lambda value: value.clusters["d"].origin.file.endswith("renamed.yaml"))
        assert list(value.clusters) == ["a", "b", "c", "d"]
        (tmp_path / "renamed.yaml").unlink()
        await follower.until(lambda value: list(value.clusters) == ["a", "b", "c"])


async def test_the_swap_of_a_mounted_configmap_is_followed(tmp_path: Path) -> None:
    """Kubernetes exchanges the link `..data`; the visible files are links through it."""
    write_configmap(tmp_path, "1", cluster("a"))
    for name in ("base.yaml", "cluster.yaml", "sub"):
        (tmp_path / name).symlink_to(Path("..data") / name)
    async with following(tmp_path) as follower:
        await follower.until(lambda value: list(value.clusters) == ["a"])
        write_configmap(tmp_path, "2", cluster("a", labels="x: z") + cluster("c"))
        value = await follower.until(lambda value: list(value.clusters) == ["a", "c"])
        assert value.clusters["a"].labels == {"x": "z"}
        assert (list(value.apps), value.problems) == (["shop"], ())
        assert value.clusters["a"].origin.file == str(tmp_path / "cluster.yaml")


def write_configmap(mount: Path, version: str, clusters: str) -> None:
    """Do what the kubelet does when a ConfigMap changes."""
    data = mount / f"..{version}"
    (data / "sub").mkdir(parents=True)
    (data / "base.yaml").write_text(repository() + environment("dev"))
    (data / "cluster.yaml").write_text(clusters)
    (data / "sub" / "app.yaml").write_text(app())
    (mount / "..data_tmp").symlink_to(data.name)
    (mount / "..data_tmp").rename(mount / "..data")


async def test_exchanging_the_directory_behind_a_link_is_followed(tmp_path: Path) -> None:
    """Tools that pull into a new directory and turn a link are understood."""
    fill(tmp_path / "one")
    fill(tmp_path / "two")
    (tmp_path / "two" / "new.yaml").write_text(cluster("c"))
    (tmp_path / "link").symlink_to("one")
    async with following(tmp_path / "link") as follower:
        await follower.until(lambda value: list(value.clusters) == ["a", "b"])
        (tmp_path / "turn").symlink_to("two")
        (tmp_path / "turn").rename(tmp_path / "link")
        await follower.until(lambda value: "c" in value.clusters)
        (tmp_path / "two" / "more.yaml").write_text(cluster("d"))
        await follower.until(lambda value: "d" in value.clusters)


async def test_a_directory_that_comes_later_is_followed(tmp_path: Path) -> None:
    """The hub may start before its inventory; losing it later keeps what was in force."""
    directory = tmp_path / "inventory"
    async with following(directory) as follower:
        assert "No such file" in str(await follower.until_error())
        fill(directory)
        await follower.until(lambda value: value.authoritative)
        assert follower.error is None
        directory.rename(tmp_path / "away")
        await follower.until_error()
        assert follower.inventory is not None
        assert list(follower.inventory.clusters) == ["a", "b"]
        fill(directory)
        (directory / "new.yaml").write_text(cluster("c"))
        await follower.until(lambda value: "c" in value.clusters)


async def test_a_bad_file_is_named_while_the_others_are_followed(tmp_path: Path) -> None:
    """One file's fault stops nobody else's change."""
    fill(tmp_path)
    async with following(tmp_path) as follower:
        await follower.until(lambda value: list(value.clusters) == ["a", "b"])
        (tmp_path / "app.yaml").write_text("a: [")
        value = await follower.until(lambda value: bool(value.problems))
        assert list(value.apps) == ["shop"]
        (tmp_path / "new.yaml").write_text(cluster("c"))
        value = await follower.until(lambda value: "c" in value.clusters)
        assert list(value.apps) == ["shop"]
