"""Clusters as first met: the uid they are pinned to, and when they last answered."""

from collections.abc import Iterable
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeovers:
    """The hubs that a cluster was taken over from."""

    pending: frozenset[str] = frozenset()
    """Asked for and not carried out: their Lease may be rewritten, once."""
    done: frozenset[str] = frozenset()
    """What carries their id counts as left behind."""

    @property
    def all(self) -> frozenset[str]:
        """Every hub whose marks count as left behind."""
        return self.pending | self.done


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

    async def others_with_uid(self, name: str, uid: str) -> list[str]:
        """Name the other clusters that are pinned to the same uid."""
        rows = await self._database.read(
            "SELECT name FROM cluster WHERE uid = ? AND name <> ? ORDER BY name", (uid, name)
        )
        return [str(row[0]) for row in rows]

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

    async def accept(self, name: str, uid: str) -> None:
        """Pin another uid: what was applied to the cluster before is forgotten, and its sessions lose their lease."""
        await self._database.write(
            [
                Statement("DELETE FROM ledger WHERE cluster = ?", (name,)),
                Statement("DELETE FROM takeover WHERE cluster = ?", (name,)),
                Statement(
                    "UPDATE target SET applied_release = 0, applied_revision = '', applied_digest = '',"
                    " applied_at = '' WHERE cluster = ?",
                    (name,),
                ),
                Statement("UPDATE cluster SET uid = ?, epoch = epoch + 1 WHERE name = ?", (uid, name)),
            ]
        )

    async def rename(self, old: str, new: str) -> None:
        """Give what is known of a cluster under a name that is gone to its new name. Idempotent."""
        moved = ("ledger", "takeover", "drain")
        await self._database.write(
            [
                *(Statement(f"DELETE FROM {table} WHERE cluster = ?", (new,)) for table in moved),
                *(Statement(f"UPDATE {table} SET cluster = ? WHERE cluster = ?", (new, old)) for table in moved),
                Statement("DELETE FROM target WHERE cluster = ?", (old,)),
                Statement("DELETE FROM cluster WHERE name = ?", (old,)),
            ]
        )

    async def takeovers(self, name: str) -> Takeovers:
        """Read from which hubs a cluster was taken over."""
        rows = await self._database.read("SELECT hub, pending FROM takeover WHERE cluster = ?", (name,))
        return Takeovers(
            pending=frozenset(str(hub) for hub, pending in rows if pending),
            done=frozenset(str(hub) for hub, pending in rows if not pending),
        )

    async def take_over(self, name: str, hubs: Iterable[str]) -> None:
        """Ask for a cluster that other hubs hold. Idempotent."""
        await self._database.write(
            [
                Statement(
                    "INSERT INTO takeover (cluster, hub, pending) VALUES (?, ?, 1)"
                    " ON CONFLICT (cluster, hub) DO UPDATE SET pending = 1",
                    (name, hub),
                )
                for hub in sorted(hubs)
            ]
        )

    async def finish_takeover(self, name: str) -> None:
        """Note that the cluster is ours now. Idempotent."""
        await self._database.write([Statement("UPDATE takeover SET pending = 0 WHERE cluster = ?", (name,))])

    async def forget_takeover(self, name: str, hub: str) -> None:
        """Note that a hub took the cluster back: what carries its id is its own again. Idempotent."""
        await self._database.write(
            [Statement("DELETE FROM takeover WHERE cluster = ? AND hub = ? AND pending = 0", (name, hub))]
        )
