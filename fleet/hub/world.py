"""The whole outside of the hub as one value: simulated runs replace it and nothing else."""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from fleet.child import Limits, ProcessWorkers, Workers
from fleet.clock import Clock, SystemClock
from fleet.git import order as git_order
from fleet.inventory.watch import Changes, DirectoryChanges
from fleet.net.reach import DirectReach, Reach
from fleet.secrets.key import Keyring
from fleet.settings import Settings
from fleet.store.database import Database, SqliteDatabase
from fleet.store.directory import DataDirectory, hold_directory


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The whole outside of the hub; simulated runs replace it and nothing else."""

    clock: Clock
    reach: Reach
    workers: Workers
    database: Database
    changes: Changes
    directory: DataDirectory
    keyring: Keyring | None = None
    """Sealing keys from elsewhere; None = those of the data directory."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Where a master key may be, or be pointed to."""


@contextlib.asynccontextmanager
async def open_world(settings: Settings) -> AsyncIterator[World]:
    """Open the real outside.

    Raises: DataDirectoryInUse, StoreError.
    """
    with hold_directory(settings.data) as directory:
        async with SqliteDatabase.open(directory.database) as database:
            workers = ProcessWorkers({**git_order.POOLS, "render": Limits(size=settings.render_workers)})
            try:
                yield World(
                    clock=SystemClock(),
                    reach=DirectReach(),
                    workers=workers,
                    database=database,
                    changes=DirectoryChanges(settings.inventory),
                    directory=directory,
                    environ=dict(os.environ),
                )
            finally:
                await workers.close()
