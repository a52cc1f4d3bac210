"""A hub that runs in the test's own loop, over a real inventory directory and a real Git repository."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import yaml

from fleet.hub.app import running_hub
from fleet.hub.service import HubService
from fleet.hub.view import Actor, TargetRow
from fleet.hub.world import World, open_world
from fleet.settings import Settings
from fleet.store.token import Role
from tests.harness.gitrepo import GitRepository

ADA = Actor(name="ada", role=Role.ADMIN)
POLL_S = 0.05

T = TypeVar("T")
Document = Mapping[str, Any]


def repository_document(path: Path, name: str = "config", **spec: Any) -> Document:
    """A Repository that follows branch main of a local path."""
    return _document("Repository", name, {"url": str(path), "interval": "1s", **spec})


def environment_document(name: str = "dev", **spec: Any) -> Document:
    """An Environment."""
    return _document("Environment", name, spec)


def app_document(name: str, path: str, **spec: Any) -> Document:
    """An App on every cluster."""
    targets = spec.pop("targets", {"clusterSelector": {}})
    return _document("App", name, {"repository": "config", "path": path, "targets": targets, **spec})


def cluster_document(name: str, kubeconfig: Path, environment: str = "dev", **spec: Any) -> Document:
    """A Cluster reached by a kubeconfig file."""
    connection = {"kubeconfig": {"file": str(kubeconfig)}}
    return _document("Cluster", name, {"environment": environment, "connection": connection, **spec})


def _document(kind: str, name: str, spec: Mapping[str, Any]) -> Document:
    metadata: dict[str, Any] = {"name": name}
    if "labels" in spec:
        metadata["labels"] = spec["labels"]
        spec = {key: value for key, value in spec.items() if key != "labels"}
    return {"apiVersion": "fleet/v1", "kind": kind, "metadata": metadata, "spec": dict(spec)}


@dataclass
class Fleet:
    """A place for a hub: its inventory, its repository, its data directory; and the hub while it runs."""

    root: Path
    removal_quiet_s: float = 0.5
    kustomize: str = ""
    keys_backup: str = ""

    def __post_init__(self) -> None:
        self.inventory = self.root / "clusters.d"
        self.inventory.mkdir(exist_ok=True)
        self.repository = GitRepository(self.root / "repository")
        self.hub: HubService

    @property
    def settings(self) -> Settings:
        """Settings of the hub."""
        return Settings(
            inventory=self.inventory,
            data=self.root / "data",
            listen="127.0.0.1:0",
            removal_quiet_s=self.removal_quiet_s,
            kustomize=self.kustomize,
            keys_backup=self.keys_backup,
        )

    def declare(self, file: str, *documents: Document) -> None:
        """Write an inventory file."""
        draft = self.inventory / f".{file}"
        draft.write_text(yaml.safe_dump_all(documents))
        draft.rename(self.inventory / file)

    @asynccontextmanager
    async def running(self, world: World | None = None) -> AsyncIterator[HubService]:
        """Run the hub for the length of the block."""
        if world is not None:
            async with running_hub(self.settings, world) as self.hub:
                yield self.hub
            return
        async with open_world(self.settings) as opened, running_hub(self.settings, opened) as self.hub:
            yield self.hub

    def row(self, cluster: str, app: str) -> TargetRow | None:
        """One target's row."""
        detail = self.hub.target(cluster, app)
        return detail.target if detail is not None else None

    @overload
    async def until(self, probe: Callable[[], Awaitable[T]], *, timeout_s: float = 45.0) -> T: ...

    @overload
    async def until(self, probe: Callable[[], T], *, timeout_s: float = 45.0) -> T: ...

    async def until(self, probe: Callable[[], Any], *, timeout_s: float = 45.0) -> Any:
        """Ask until the answer is true; the deadline is there for a broken test and prints what the hub shows."""
        answer: Any = None
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    answer = probe()
                    if isinstance(answer, Awaitable):
                        answer = await answer
                    if answer:
                        return answer
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise AssertionError(f"still {answer!r} after {timeout_s:.0f} s; {self.describe()}") from None

    async def synced(self, *targets: tuple[str, str], revision: str = "", timeout_s: float = 45.0) -> None:
        """Wait until targets (cluster, app) are Synced, at a revision if given."""

        def all_synced() -> bool:
            rows = [self.row(*target) for target in targets]
            return all(r and r.state == "Synced" and revision in ("", r.applied_revision) for r in rows)

        await self.until(all_synced, timeout_s=timeout_s)

    async def state(self, cluster: str, app: str, state: str, reason: str = "", timeout_s: float = 45.0) -> TargetRow:
        """Wait until a target is in a state, for a reason if given; return its row."""

        def found() -> TargetRow | None:
            row = self.row(cluster, app)
            return row if row and row.state == state and reason in ("", row.reason) else None

        row = await self.until(found, timeout_s=timeout_s)
        assert row is not None
        return row

    def describe(self) -> str:
        """Print what the hub shows."""
        rows: Iterable[Any] = [*self.hub.clusters(), *self.hub.targets(), *self.hub.status().repositories]
        return "\n".join(["the hub shows:", *(f"  {row}" for row in rows), *map(str, self.hub.status().problems)])
