"""Durable drains: what was deleted from a cluster on purpose, and stays away until somebody ends that."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet.clock import Clock
from fleet.object import TargetId
from fleet.store.database import Database, Row, Statement
from fleet.store.record import read_some_at, write_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """A drain of one app on a cluster; an empty app is every app, also those that are yet to come."""

    cluster: str
    app: str
    reason: str
    actor: str
    created_at: datetime

    def covers(self, target: TargetId) -> bool:
        """Tell whether a target is drained."""
        return self.cluster == target.cluster and self.app in ("", target.app)

    @property
    def scope(self) -> str:
        """Say in words what is drained."""
        return f"app {self.app} on cluster {self.cluster}" if self.app else f"cluster {self.cluster}"

    @property
    def undo(self) -> str:
        """Return the command that ends it."""
        return f"fleet cluster undrain {self.cluster}" + (f" --app {self.app}" if self.app else "")


def find_drain(drains: Iterable[Drain], target: TargetId) -> Drain | None:
    """Return the widest drain of a target. Pure."""
    return min((drain for drain in drains if drain.covers(target)), key=lambda drain: drain.app, default=None)


_COLUMNS = "cluster, app, reason, actor, created_at"


def _read(row: Row) -> Drain:
    return Drain(cluster=row[0], app=row[1], reason=row[2], actor=row[3], created_at=read_some_at(row[4]))


class DrainStore:
    """Drains over a Database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def load(self) -> Sequence[Drain]:
        """Read every drain, by cluster and app."""
        return [_read(r) for r in await self._database.read(f"SELECT {_COLUMNS} FROM drain ORDER BY cluster, app")]

    async def add(self, *, cluster: str, app: str, reason: str, actor: str) -> Drain:
        """Store a drain; the same scope again replaces reason and actor. Idempotent."""
        rows = await self._database.write(
            [
                Statement(
                    f"INSERT INTO drain ({_COLUMNS}) VALUES (?, ?, ?, ?, ?) ON CONFLICT (cluster, app) DO UPDATE SET"
                    f" reason = excluded.reason, actor = excluded.actor RETURNING {_COLUMNS}",
                    (cluster, app, reason, actor, write_at(self._clock.now())),
                )
            ]
        )
        return _read(rows[0][0])

    async def remove(self, *, cluster: str, app: str) -> int:
        """Remove the drain of exactly this scope; returns how many there were. Idempotent."""
        statement = Statement("DELETE FROM drain WHERE cluster = ? AND app = ? RETURNING app", (cluster, app))
        return len((await self._database.write([statement]))[0])
