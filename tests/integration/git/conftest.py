"""Mirrors of real repositories, with workers in child processes or inline."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fleet.child import Job, ProcessWorkers, Workers
from fleet.clock import SystemClock
from fleet.git.order import POOLS
from fleet.git.remote import Remote
from fleet.git.repository import Mirror, Snapshot, build_remote
from fleet.inventory.schema import Repository
from fleet.net.reach import DirectReach
from tests.harness.gitrepo import GitRepository

TIMEOUT_S = 20.0


def make_document(name: str, url: str | Path, **spec: Any) -> Repository:
    """Return a Repository document."""
    given = {"url": str(url), "interval": "30s", **spec}
    return Repository.model_validate(
        {"apiVersion": "fleet/v1", "kind": "Repository", "metadata": {"name": name}, "spec": given}
    )


@dataclass
class Counting:
    """Workers that count jobs by name, and can be made to fail."""

    inner: Workers
    jobs: list[str] = field(default_factory=list)
    payloads: list[tuple[Job, bytes]] = field(default_factory=list)
    before: Callable[[Job], None] = lambda job: None

    async def call(self, job: Job, payload: bytes, *, deadline_s: float) -> bytes:
        """Run the job."""
        self.jobs.append(job.function)
        self.payloads.append((job, payload))
        self.before(job)
        return await self.inner.call(job, payload, deadline_s=deadline_s)

    def take(self) -> list[str]:
        """Return the jobs since the last call."""
        jobs, self.jobs = self.jobs, []
        return jobs


@dataclass
class Site:
    """A mirror under test and what it told."""

    mirror: Mirror
    workers: Counting
    remote: Remote
    told: list[Snapshot] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, snapshot: Snapshot) -> None:
        """Take a change."""
        self.told.append(snapshot)
        self.news.set()

    def revision(self, name: str = "config") -> str:
        """Return a document's last good commit."""
        return self.mirror.snapshot(name).revision

    def error(self, name: str = "config") -> str:
        """Return a document's reason and message; empty when all is well."""
        error = self.mirror.snapshot(name).error
        return f"{error.reason}: {error}" if error else ""

    async def until(self, ready: Callable[[], object]) -> None:
        """Wait until what was told makes `ready` true."""
        while not ready():
            self.news.clear()
            await self.news.wait()


@asynccontextmanager
async def open_site(
    directory: Path, documents: list[Repository], workers: Workers, *, timeout_s: float = TIMEOUT_S, clock: Any = None
) -> AsyncIterator[Site]:
    """Follow `documents` with a mirror in `directory`; nothing is polled until somebody asks."""
    counting = Counting(workers)
    remote = build_remote(documents[0], DirectReach(), workers=counting, timeout_s=timeout_s)
    mirror = Mirror(
        remote,
        directory=directory,
        workers=counting,
        clock=clock or SystemClock(),
        timeout_s=timeout_s,
        on_change=lambda snapshot: site.tell(snapshot),  # noqa: PLW0108 - the site holds the mirror
    )
    site = Site(mirror, counting, remote)
    mirror.follow(documents)
    try:
        yield site
    finally:
        await remote.close()


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    """Return an empty repository."""
    return GitRepository(tmp_path / "repo")


@pytest.fixture
async def processes() -> AsyncIterator[ProcessWorkers]:
    """Workers as the hub has them."""
    workers = ProcessWorkers(POOLS)
    yield workers
    await workers.close()
