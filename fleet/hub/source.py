"""The repositories of the inventory: one mirror per remote, whoever reads it."""

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

from fleet.aio import Children, spawn
from fleet.child import Workers
from fleet.clock import Clock
from fleet.errors import FleetError, SourceError
from fleet.git.repository import Mirror, Snapshot, build_remote, remote_key, store_name
from fleet.inventory.schema import Repository
from fleet.inventory.value import Inventory
from fleet.net.reach import Reach
from fleet.settings import Settings


class Mirrors:
    """Keeps one running mirror per remote; gives snapshots by document name."""

    def __init__(
        self,
        *,
        directory: Path,
        reach: Reach,
        workers: Workers,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self.on_change: Callable[[Snapshot], None] = lambda _snapshot: None
        """Told about news of a repository."""
        self._directory = directory
        self._reach = reach
        self._workers = workers
        self._clock = clock
        self._settings = settings
        self._mirrors: dict[Hashable, Mirror] = {}
        self._of_name: dict[str, Mirror] = {}

    async def adjust(self, inventory: Inventory, children: Children[Hashable]) -> None:
        """Follow exactly the repositories of the inventory."""
        groups: dict[Hashable, list[Repository]] = {}
        for repository in inventory.repositories.values():
            groups.setdefault(remote_key(repository), []).append(repository)
        for key in self._mirrors.keys() - groups.keys():
            del self._mirrors[key]
        for key, members in groups.items():
            if key not in self._mirrors:
                self._mirrors[key] = self._build(members[0])
            self._mirrors[key].follow(members)
        self._of_name = {r.name: self._mirrors[key] for key, members in groups.items() for r in members}
        await children.adjust({key: (id(mirror), mirror.run) for key, mirror in self._mirrors.items()})

    def _build(self, repository: Repository) -> Mirror:
        return Mirror(
            build_remote(repository, self._reach, workers=self._workers, timeout_s=self._settings.git_timeout_s),
            directory=self._directory / store_name(repository),
            workers=self._workers,
            clock=self._clock,
            timeout_s=self._settings.git_timeout_s,
            on_change=self._pass_on,
        )

    def _pass_on(self, snapshot: Snapshot) -> None:
        self.on_change(snapshot)

    def snapshot(self, repository: str) -> Snapshot | None:
        """Return what is known of a repository; None before its document is in force."""
        mirror = self._of_name.get(repository)
        return mirror.snapshot(repository) if mirror is not None else None

    def distrust(self, repository: str) -> None:
        """Have a clone that a reader found damaged replaced by the next poll."""
        mirror = self._of_name.get(repository)
        if mirror is not None:
            mirror.distrust()

    async def keep(self, revisions: Mapping[str, frozenset[str]]) -> None:
        """Keep these commits reachable, by repository."""
        wanted: dict[int, tuple[Mirror, set[str]]] = {}
        for name, commits in revisions.items():
            mirror = self._of_name.get(name)
            if mirror is not None:
                wanted.setdefault(id(mirror), (mirror, set()))[1].update(commits)
        for mirror, kept in wanted.values():
            await mirror.keep(sorted(kept))

    async def sync(self, repositories: Sequence[str]) -> None:
        """Ask remotes now and return when they have answered; how it went is in the snapshots."""
        mirrors = {id(m): m for name in repositories if (m := self._of_name.get(name)) is not None}
        async with asyncio.TaskGroup() as group:
            for mirror in mirrors.values():
                spawn(group, "sync", mirror.sync())

    async def find(self, commit: str) -> str:
        """Return the full sha of a commit by a prefix, asking every repository. Raises: SourceError when nobody knows it."""
        failure: FleetError | None = None
        for mirror in {id(m): m for m in self._of_name.values()}.values():
            try:
                return await mirror.find(commit)
            except SourceError as error:
                failure = error
        raise failure or SourceError(f"no repository has a commit {commit}", reason="RevisionMissing")

    async def contains(self, repository: str, older: str, newer: str) -> bool:
        """Tell whether `newer` is a descendant of `older`, or the same."""
        mirror = self._of_name.get(repository)
        return mirror is not None and (older == newer or await mirror.contains(older, newer))
