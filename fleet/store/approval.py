"""Durable approvals: who agreed that which objects may be deleted."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet.clock import Clock
from fleet.object import TargetId
from fleet.store.database import Database, Row, Statement
from fleet.store.record import read_some_at, write_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One approval. `objects` are marks: `UID KIND NAMESPACE/NAME`."""

    target: TargetId
    digest: str
    objects: frozenset[str]
    reason: str
    actor: str
    created_at: datetime


_COLUMNS = "cluster, app, digest, objects, reason, actor, created_at"


def _read(row: Row) -> Approval:
    return Approval(
        target=TargetId(row[0], row[1]),
        digest=row[2],
        objects=frozenset(json.loads(row[3])),
        reason=row[4],
        actor=row[5],
        created_at=read_some_at(row[6]),
    )


class ApprovalStore:
    """Approvals over a Database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def load(self) -> Sequence[Approval]:
        """Read every approval, by target, oldest first."""
        query = f"SELECT {_COLUMNS} FROM approval ORDER BY cluster, app, created_at, digest"
        return [_read(row) for row in await self._database.read(query)]

    async def add(self, target: TargetId, *, digest: str, objects: Iterable[str], reason: str, actor: str) -> Approval:
        """Store an approval; the same digest again replaces reason and actor. Idempotent."""
        values = (json.dumps(sorted(objects)), reason, actor, write_at(self._clock.now()))
        rows = await self._database.write(
            [
                Statement("DELETE FROM approval WHERE cluster = ? AND app = ? AND digest = ?", (*target, digest)),
                Statement(
                    f"INSERT INTO approval ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING {_COLUMNS}",
                    (*target, digest, *values),
                ),
            ]
        )
        return _read(rows[1][0])

    async def clear(self, cluster: str) -> None:
        """Drop the approvals of a cluster: what they were for is done, or is not wanted any more. Idempotent."""
        await self._database.write([Statement("DELETE FROM approval WHERE cluster = ?", (cluster,))])
