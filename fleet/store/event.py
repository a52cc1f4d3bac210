"""Events: what happened, numbered, kept to a bound. Gaps in the numbers are legal."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet.store.database import Database, Row, Statement
from fleet.store.record import read_some_at, write_at

MOST_EVENTS = 50_000
TRIM_EVERY = 500
_TRIM = "DELETE FROM event WHERE seq <= ? AND NOT (kind = 'prune' AND reason = 'Orphaned')"
"""What was let go is in no ledger any more: its event is the only record, and it is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened. `kind` is apply, drift, prune, adopt, health, git, inventory, cluster, rollout or audit."""

    at: datetime
    kind: str
    reason: str
    message: str
    cluster: str = ""
    app: str = ""
    object: str = ""
    actor: str = ""
    revision: str = ""
    seq: int = 0


_COLUMNS = "seq, at, kind, cluster, app, object, reason, message, actor, revision"


def _read(row: Row) -> Event:
    return Event(
        seq=row[0],
        at=read_some_at(row[1]),
        kind=row[2],
        cluster=row[3],
        app=row[4],
        object=row[5],
        reason=row[6],
        message=row[7],
        actor=row[8],
        revision=row[9],
    )


class EventStore:
    """Events over a Database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, events: Sequence[Event]) -> list[int]:
        """Store events in order; returns their numbers. Old ones beyond 50,000 are dropped now and then."""
        batch = [
            Statement(
                "INSERT INTO event (at, kind, cluster, app, object, reason, message, actor, revision)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq",
                (write_at(e.at), e.kind, e.cluster, e.app, e.object, e.reason, e.message, e.actor, e.revision),
            )
            for e in events
        ]
        rows = await self._database.write(batch)
        numbers = [int(row[0][0]) for row in rows]
        if numbers and numbers[-1] // TRIM_EVERY != (numbers[0] - 1) // TRIM_EVERY:
            await self._database.write([Statement(_TRIM, (numbers[-1] - MOST_EVENTS,))])
        return numbers

    async def since(
        self, seq: int, *, limit: int = 500, cluster: str = "", app: str = "", kind: str = "", reason: str = ""
    ) -> Sequence[Event]:
        """Read events after `seq`, oldest first, filtered by the non-empty names."""
        wanted = [("cluster", cluster), ("app", app), ("kind", kind), ("reason", reason)]
        given = [(column, value) for column, value in wanted if value]
        where = "".join(f" AND {column} = ?" for column, _ in given)
        rows = await self._database.read(
            f"SELECT {_COLUMNS} FROM event WHERE seq > ?{where} ORDER BY seq LIMIT ?",
            (seq, *(value for _, value in given), limit),
        )
        return [_read(row) for row in rows]

    async def newest(
        self, limit: int, *, cluster: str = "", app: str = "", kind: str = "", reason: str = ""
    ) -> Sequence[Event]:
        """Read the newest events, oldest first."""
        wanted = [("cluster", cluster), ("app", app), ("kind", kind), ("reason", reason)]
        given = [(column, value) for column, value in wanted if value]
        where = " AND ".join(f"{column} = ?" for column, _ in given)
        rows = await self._database.read(
            f"SELECT {_COLUMNS} FROM event{' WHERE ' + where if where else ''} ORDER BY seq DESC LIMIT ?",
            (*(value for _, value in given), limit),
        )
        return [_read(row) for row in reversed(rows)]
