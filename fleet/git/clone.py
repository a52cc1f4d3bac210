"""A store on disk: a bare clone behind a stable link, what is good in it, and its replacement when it is damaged.

    <store>/current -> clone-3      the clone in force: what readers open
    <store>/clone-3/good.json       the commit in force of each Repository document
    refs/fleet/tip/heads/main       a ref of the remote as last fetched, good or not
    refs/fleet/kept/<sha>           a commit that somebody has in force

Imported in worker processes only. One writer at a time; any number of readers. A writer may be killed at any point.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import pygit2

from fleet.errors import RevisionMissing, SourceError
from fleet.git.library import configure, find_commit, open_repository, reading, require_tree
from fleet.git.order import CURRENT, DAMAGED, Good, Holdings
from fleet.git.pack import merge_small

TIP, KEPT = "refs/fleet/tip/", "refs/fleet/kept/"
_GOOD_FILE = "good.json"
_LINK, _SUBMODULE = 0o120000, 0o160000


class Clone:
    """One bare clone, open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.repository = open_repository(str(path))

    def read_good(self) -> dict[str, Good]:
        """Return what is good by document; nothing when nothing was ever accepted.

        Raises: SourceError (`CloneDamaged`).
        """
        return read_good(self.path)

    def write_good(self, good: Mapping[str, Good]) -> None:
        """Replace what is good, at once or not at all."""
        next_file = self.path / f"{_GOOD_FILE}.next"
        with next_file.open("wb") as file:
            file.write(msgspec.json.encode(good))
            file.flush()
            os.fsync(file.fileno())
        next_file.replace(self.path / _GOOD_FILE)

    def tips(self) -> dict[str, str]:
        """Return the commit of each ref as last fetched."""
        found = {}
        with reading(str(self.path)):
            for name in self._names(TIP):
                target = self.repository.lookup_reference(name).peel()
                if isinstance(target, pygit2.Commit):
                    found["refs/" + name.removeprefix(TIP)] = str(target.id)
        return found

    def has(self, revision: str) -> bool:
        """Tell whether a commit is here."""
        try:
            find_commit(self.repository, revision)
        except RevisionMissing:
            return False
        return True

    def hold(self, commits: Iterable[str]) -> Holdings:
        """Return what this clone holds, with those of `commits` that are here."""
        good = self.read_good()
        goods = [entry.revision for entry in good.values()]
        return Holdings(
            exists=True,
            good=good,
            tips=self.tips(),
            commits=[revision for revision in sorted({*commits, *goods}) if self.has(revision)],
        )

    def keep(self, revisions: Iterable[str]) -> None:
        """Keep exactly these commits reachable besides the tips; those that are not here are passed over."""
        wanted = {KEPT + revision for revision in revisions if self.has(revision)}
        present = set(self._names(KEPT))
        with reading(str(self.path)):
            for name in sorted(present - wanted):
                self.repository.references.delete(name)
            for name in sorted(wanted - present):
                self.repository.create_reference(name, name.removeprefix(KEPT))

    def forget_tips(self, but: Iterable[str]) -> None:
        """Drop tips other than of these refs, whose names could stand in the way of new ones (`a` and `a/b`)."""
        wanted = {TIP + ref.removeprefix("refs/") for ref in but}
        with reading(str(self.path)):
            for name in self._names(TIP):
                if name not in wanted:
                    self.repository.references.delete(name)

    def tidy(self) -> None:
        """Remove what a killed writer left behind, and merge small packs: every fetch leaves one."""
        for lock in (*self.path.glob("refs/**/*.lock"), *self.path.glob("*.lock")):
            lock.unlink()
        for left in self.path.glob("objects/pack/*"):
            # a pack without its index, or the other way round, is half of one
            other = {".pack": ".idx", ".idx": ".pack"}.get(left.suffix)
            if other is None or not left.with_suffix(other).exists():
                left.unlink()
        merge_small(self.repository, self.path / "objects" / "pack")

    def verify(self, revision: str) -> None:
        """Read every tree of a commit and find every file: what a truncated or missing pack would not allow.

        Raises: RevisionMissing; SourceError (`CloneDamaged`).
        """
        odb = self.repository.odb
        seen: set[pygit2.Oid] = set()
        with reading(str(self.path)):
            waiting = [find_commit(self.repository, revision).tree_id]
            while waiting:
                tree = require_tree(self.repository[waiting.pop()])
                for entry in tree:
                    if entry.id in seen or int(entry.filemode) == _SUBMODULE:
                        continue
                    seen.add(entry.id)
                    if isinstance(entry, pygit2.Tree):
                        waiting.append(entry.id)
                    else:
                        odb.read_header(entry.id)

    def _names(self, prefix: str) -> list[str]:
        with reading(str(self.path)):
            return sorted(name for name in self.repository.references if name.startswith(prefix))


def read_good(path: Path) -> dict[str, Good]:
    """Return what is good by document in the clone at `path`, which may be damaged otherwise.

    Raises: SourceError (`CloneDamaged`).
    """
    try:
        return msgspec.json.decode((path / _GOOD_FILE).read_bytes(), type=dict[str, Good])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise SourceError(f"the clone at {path} cannot be read ({error})", reason=DAMAGED) from error


def open_current(store: Path) -> Clone | None:
    """Return the clone in force; None when there is none.

    Raises: SourceError (`CloneDamaged`).
    """
    link = store / CURRENT
    return Clone(link) if os.path.lexists(link) else None


def start(store: Path) -> Clone:
    """Return a new empty clone beside the one in force; `install` puts it in force."""
    configure()
    remove_leftovers(store)
    numbers = [int(path.name.removeprefix("clone-")) for path in store.glob("clone-*")]
    path = store / f"clone-{max(numbers, default=0) + 1}"
    path.mkdir(parents=True)
    pygit2.init_repository(str(path), bare=True)
    return Clone(path)


def install(store: Path, clone: Clone) -> None:
    """Put a clone in force. The one before stays until the next fetch: somebody may be reading it."""
    link = store / f"{CURRENT}.next"
    link.unlink(missing_ok=True)
    link.symlink_to(clone.path.name)
    link.replace(store / CURRENT)


def remove_leftovers(store: Path) -> None:
    """Remove clones that are not in force."""
    link = store / CURRENT
    current = link.readlink().name if link.is_symlink() else ""
    for path in store.glob("clone-*"):
        if path.name != current:
            shutil.rmtree(path)
