"""A keeper of sealing keys in virtual time, over a real SQLite file and a fleet of plain values."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import cast

import pytest

from fleet.secrets.desk import KeyDesk
from fleet.secrets.keeper import Keeper, KeyPolicy
from fleet.secrets.key import Algorithm, KeyState
from fleet.secrets.master import FileSource, MasterSource
from fleet.sim.loop import SimLoop
from fleet.store.database import InlineDatabase
from fleet.store.key import KeyRow, KeyStore
from fleet.store.migration import migrate
from fleet.store.usage import Usage, UsageStore

HUB = "hub-1"
RENEW = timedelta(days=90)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test below this directory runs in virtual time."""
    return {"virtual": SimLoop}


class VirtualClock:
    """The loop's wall time and a seeded generator."""

    def __init__(self) -> None:
        self.rng = Random(1)

    def now(self) -> datetime:
        """Return virtual wall time."""
        return cast("SimLoop", asyncio.get_running_loop()).now()


class Fleet:
    """What the keeper knows of the world; `acts` is the audit log."""

    def __init__(self) -> None:
        self.uids: dict[str, str] = {}
        self.clusters: dict[str, str] = {}
        self.unscanned: set[str] = set()
        self.acts: list[tuple[str, str, str]] = []

    async def identities(self) -> Mapping[str, str]:
        """uids by cluster."""
        return dict(self.uids)

    def environments(self) -> Mapping[str, str]:
        """Environments by cluster."""
        return dict(self.clusters)

    def is_scanned(self, cluster: str) -> bool:
        """Every cluster but those named."""
        return cluster not in self.unscanned

    @contextlib.asynccontextmanager
    async def act(self, action: str, cluster: str, subject: str) -> AsyncIterator[None]:
        """Note what was done."""
        yield
        self.acts.append((action, cluster, subject))

    def meet(self, cluster: str, uid: str = "", environment: str = "dev") -> None:
        """Let a cluster be in the inventory and have answered."""
        self.clusters[cluster] = environment
        self.uids[cluster] = uid or f"uid-{cluster}"

    def names(self) -> list[str]:
        """What was done, without of what."""
        return [action for action, _, _ in self.acts]


class Office:
    """A data directory with a keeper and a desk; `reopen` is a restart of the hub."""

    def __init__(self, root: Path, fleet: Fleet) -> None:
        self.root = root
        self.fleet = fleet
        self.clock = VirtualClock()
        self.backups: Path | None = root / "backups"
        self.source: MasterSource = FileSource(root / "master.key")
        self.executor = ThreadPoolExecutor(max_workers=1)
        self.database: InlineDatabase
        self.store: KeyStore
        self.usage: UsageStore
        self.keeper: Keeper
        self.desk: KeyDesk

    async def open(self) -> None:
        """Start on what the directory holds."""
        self.root.mkdir(exist_ok=True)
        self.database = InlineDatabase(self.root / "fleet.db")
        await migrate(self.database)
        self.store, self.usage = KeyStore(self.database, self.clock), UsageStore(self.database)
        policy = KeyPolicy(
            source=self.source,
            backups=self.backups,
            restores=self.root / "keys.restore",
            renew_after=RENEW,
            hub_id=HUB,
        )
        self.keeper = Keeper(
            self.store, self.usage, self.fleet, clock=self.clock, policy=policy, executor=self.executor
        )
        self.desk = KeyDesk(self.keeper, self.store, self.usage, self.clock)

    def close(self) -> None:
        """Stop."""
        self.database.close()

    async def reopen(self) -> None:
        """Start anew on the same directory."""
        self.close()
        await self.open()

    def rows(self, cluster: str = "dev-1", algorithm: Algorithm = Algorithm.X25519) -> list[KeyRow]:
        """The keys of a cluster, oldest first."""
        return [r for r in self.keeper.keyring.rows() if (r.cluster, r.algorithm) == (cluster, algorithm)]

    def states(self, cluster: str = "dev-1", algorithm: Algorithm = Algorithm.X25519) -> list[KeyState]:
        """Where the keys of a cluster are, oldest first."""
        return [KeyState(row.state) for row in self.rows(cluster, algorithm)]

    def active(self, cluster: str = "dev-1") -> str:
        """The kid that a cluster's values are sealed with."""
        offered = self.keeper.keyring.offered(cluster, Algorithm.X25519)
        assert offered is not None
        return offered.kid

    def trouble(self) -> str:
        """What stands in the way, with its reason; empty for nothing."""
        trouble = self.keeper.trouble
        return f"{trouble.reason}: {trouble}" if trouble is not None else ""

    async def use(self, kid: str, *, cluster: str = "dev-1", item: str = "password") -> None:
        """Let Git hold a value that is sealed for a key."""
        usage = Usage(
            repository="config",
            app="shop",
            revision="1" * 40,
            cluster=cluster,
            kid=kid,
            path="apps/shop/secret.yaml",
            namespace="shop",
            name="db",
            item=item,
        )
        await self.usage.replace("config", "shop", "1" * 40, [usage])


@pytest.fixture
def fleet() -> Fleet:
    """A fleet with one cluster that was met."""
    made = Fleet()
    made.meet("dev-1")
    return made


@pytest.fixture
async def office(tmp_path: Path, fleet: Fleet) -> AsyncIterator[Office]:
    """A keeper that has not begun; backups go to a directory of their own."""
    made = Office(tmp_path / "data", fleet)
    await made.open()
    yield made
    made.close()
    made.executor.shutdown()


@pytest.fixture(autouse=True)
def _private(tmp_path: Path) -> Iterator[None]:
    """Nothing that a test wrote below its directory may be readable by others."""
    yield
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix in {".key", ".db", ".restore"}:
            assert path.stat().st_mode & 0o077 == 0, path
