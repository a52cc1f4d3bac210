"""Clusters as first met: the uid they are pinned to, and when they last answered."""

from dataclasses import dataclass
from datetime import datetime

from fleet.clock import Clock
from fleet.store.database import Database, Statement
from fleet.store.record import read_at, write_at


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRow:
    """A cluster that was contacted at least once. `uid` is that of its namespace kube-system."""

    name: str
    uid: str
    version: str
    contacted_at: datetime | None


class ClusterStore:
    """Cluster rows over a Database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def load(self) -> dict[str, ClusterRow]:
        """Read every cluster."""
        rows = await self._database.read("SELECT name, uid, version, contacted_at FROM cluster")
        return {r[0]: ClusterRow(name=r[0], uid=r[1], version=r[2], contacted_at=read_at(r[3])) for r in rows}

    async def get(self, name: str) -> ClusterRow | None:
        """Read one cluster."""
        return (await self.load()).get(name)

    async def other_with_uid(self, name: str, uid: str) -> str | None:
        """Name another cluster that is pinned to the same uid; None when there is none."""
        rows = await self._database.read("SELECT name FROM cluster WHERE uid = ? AND name <> ?", (uid, name))
        return str(rows[0][0]) if rows else None

    async def pin(self, name: str, uid: str, version: str) -> None:
        """Record who answered under this name; the pinned uid is set once."""
        now = write_at(self._clock.now())
        await self._database.write(
            [
                Statement(
                    "INSERT INTO cluster (name, uid, version, epoch, first_seen_at, contacted_at)"
                    " VALUES (?, ?, ?, 0, ?, ?) ON CONFLICT (name) DO UPDATE SET"
                    " uid = CASE WHEN cluster.uid = '' THEN excluded.uid ELSE cluster.uid END,"
                    " version = excluded.version, contacted_at = excluded.contacted_at",
                    (name, uid, version, now, now),
                )
            ]
        )
