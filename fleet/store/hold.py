"""Durable holds: which targets stay at an earlier release instead of following Git, who said so and why."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet.clock import Clock
from fleet.object import TargetId
from fleet.store.database import Database, Row, Statement
from fleet.store.record import read_some_at, write_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A pin of an app to a release: everywhere, in one environment, or on one cluster."""

    id: int
    app: str
    environment: str
    cluster: str
    release: int
    reason: str
    actor: str
    created_at: datetime

    def covers(self, target: TargetId, environment: str) -> bool:
        """Tell whether the hold pins a target."""
        return self.app == target.app and self.environment in ("", environment) and self.cluster in ("", target.cluster)

    @property
    def scope(self) -> str:
        """Say in words what is held."""
        parts = [("app", self.app), ("environment", self.environment), ("cluster", self.cluster)]
        return ", ".join(f"{word} {name}" for word, name in parts if name)


def find_hold(holds: Iterable[Hold], target: TargetId, environment: str) -> Hold | None:
    """Return the hold that pins a target: the newest of those that cover it. Pure."""
    return max((h for h in holds if h.covers(target, environment)), key=lambda hold: hold.id, default=None)


_COLUMNS = "id, app, environment, cluster, release, reason, actor, created_at"


def _read(row: Row) -> Hold:
    return Hold(
        id=row[0],
        app=row[1],
        environment=row[2],
        cluster=row[3],
        release=row[4],
        reason=row[5],
        actor=row[6],
        created_at=read_some_at(row[7]),
    )


class HoldStore:
    """Holds over a Database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def load(self) -> Sequence[Hold]:
        """Read every hold, oldest first."""
        return [_read(row) for row in await self._database.read(f"SELECT {_COLUMNS} FROM hold ORDER BY id")]

    async def add(self, *, app: str, environment: str, cluster: str, release: int, reason: str, actor: str) -> Hold:
        """Store a hold; the same scope again replaces what it says. Idempotent."""
        scope = "/".join((app, environment, cluster))
        rows = await self._database.write(
            [
                Statement(
                    "INSERT INTO hold (id, scope, app, environment, cluster, release, reason, actor, created_at)"
                    " SELECT coalesce(max(id), 0) + 1, ?, ?, ?, ?, ?, ?, ?, ? FROM hold"
                    f" RETURNING {_COLUMNS}",
                    (scope, app, environment, cluster, release, reason, actor, write_at(self._clock.now())),
                ),
                Statement(
                    "DELETE FROM hold WHERE scope = ? AND id < (SELECT max(id) FROM hold WHERE scope = ?)",
                    (scope, scope),
                ),
            ]
        )
        return _read(rows[0][0])

    async def remove(self, *, app: str, environment: str, cluster: str) -> int:
        """Remove the hold of exactly this scope; returns how many there were. Idempotent."""
        scope = "/".join((app, environment, cluster))
        rows = await self._database.write([Statement("DELETE FROM hold WHERE scope = ? RETURNING id", (scope,))])
        return len(rows[0])
