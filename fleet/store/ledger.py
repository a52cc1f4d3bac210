"""The ledger: what fleet applied, one row per object and cluster. Every write carries the cluster's lease epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet.clock import Clock
from fleet.errors import ExpectationFailed, LeaseLost
from fleet.object import ObjectKey, TargetId
from fleet.store.database import Database, Row, Statement
from fleet.store.record import read_some_at, write_at

_COLUMNS = "grp, kind, namespace, name, version, desired, owned, uid, rv, applied_at, state"
_UPSERT = f"""
INSERT INTO ledger (cluster, app, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (cluster, grp, kind, namespace, name) DO UPDATE SET
    app = excluded.app, version = excluded.version, desired = excluded.desired, owned = excluded.owned,
    uid = excluded.uid, rv = excluded.rv, applied_at = excluded.applied_at, state = excluded.state
"""
_INTEND = f"""
INSERT INTO ledger (cluster, app, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, '', x'', x'', '', 0, ?, '')
ON CONFLICT (cluster, grp, kind, namespace, name) DO NOTHING
"""
_DELETE = "DELETE FROM ledger WHERE cluster = ? AND app = ? AND grp = ? AND kind = ? AND namespace = ? AND name = ?"
_MOVE = (
    "UPDATE ledger SET app = ? WHERE cluster = ? AND app = ? AND grp = ? AND kind = ? AND namespace = ? AND name = ?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Proof that this hub may write a cluster; `epoch` grows with every taking."""

    cluster: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What fleet applied: one row per object.

    `desired` is the manifest's digest (empty: an intent without a result yet), `owned` the digest of our managedFields
    entry in the last response, `rv` the resourceVersion of that response. `state` is `finished` for a Job seen done, `found`
    for an object known by its marks alone.
    """

    key: ObjectKey
    version: str
    desired: bytes
    owned: bytes
    uid: str
    rv: int
    applied_at: datetime
    state: str = ""


def _read(row: Row) -> Entry:
    return Entry(
        key=ObjectKey(*row[:4]),
        version=row[4],
        desired=bytes(row[5]),
        owned=bytes(row[6]),
        uid=row[7],
        rv=row[8],
        applied_at=read_some_at(row[9]),
        state=row[10],
    )


def _upsert(target: TargetId, row: Entry) -> Statement:
    at = write_at(row.applied_at)
    return Statement(_UPSERT, (*target, *row.key, row.version, row.desired, row.owned, row.uid, row.rv, at, row.state))


class LedgerStore:
    """Ledger rows over a Database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def take(self, cluster: str) -> Lease:
        """Take a cluster; writes with an older lease are refused from now on."""
        now = write_at(self._clock.now())
        rows = await self._database.write(
            [
                Statement(
                    "INSERT INTO cluster (name, uid, version, epoch, first_seen_at, contacted_at)"
                    " VALUES (?, '', '', 1, ?, '')"
                    " ON CONFLICT (name) DO UPDATE SET epoch = epoch + 1 RETURNING epoch",
                    (cluster, now),
                )
            ]
        )
        return Lease(cluster=cluster, epoch=int(rows[0][0][0]))

    async def load_cluster(self, cluster: str) -> dict[TargetId, dict[ObjectKey, Entry]]:
        """Read every target's rows of one cluster, in one query."""
        rows = await self._database.read(f"SELECT {_COLUMNS}, app FROM ledger WHERE cluster = ?", (cluster,))
        loaded: dict[TargetId, dict[ObjectKey, Entry]] = {}
        for row in rows:
            entry = _read(row)
            loaded.setdefault(TargetId(cluster, row[11]), {})[entry.key] = entry
        return loaded

    async def intend(self, target: TargetId, keys: Sequence[ObjectKey], lease: Lease) -> None:
        """Note that these objects are about to be created. Idempotent. Raises: LeaseLost."""
        now = write_at(self._clock.now())
        await self._write(lease, [Statement(_INTEND, (*target, *key, now)) for key in keys])

    async def record(self, target: TargetId, rows: Sequence[Entry], gone: Sequence[ObjectKey], lease: Lease) -> None:
        """Replace rows by results and drop the `gone`. Idempotent. Raises: LeaseLost."""
        upserts = [_upsert(target, row) for row in rows]
        deletes = [Statement(_DELETE, (*target, *key)) for key in gone]
        await self._write(lease, [*upserts, *deletes])

    async def rebuild(self, rows: Mapping[TargetId, Mapping[ObjectKey, Entry]], lease: Lease) -> None:
        """Store what was found in the cluster of a lost ledger, all or nothing. Raises: LeaseLost."""
        await self._write(lease, [_upsert(target, e) for target, entries in rows.items() for e in entries.values()])

    async def hand_over(self, source: TargetId, to: TargetId, keys: Sequence[ObjectKey], lease: Lease) -> None:
        """Move rows between two targets of one cluster. Idempotent. Raises: LeaseLost."""
        await self._write(lease, [Statement(_MOVE, (to.app, source.cluster, source.app, *key)) for key in keys])

    async def _write(self, lease: Lease, statements: Sequence[Statement]) -> None:
        guard = Statement(
            "UPDATE cluster SET epoch = epoch WHERE name = ? AND epoch = ?", (lease.cluster, lease.epoch), expect=1
        )
        try:
            await self._database.write([guard, *statements])
        except ExpectationFailed as error:
            raise LeaseLost("the cluster was taken by a newer session of this hub", subject=lease.cluster) from error
