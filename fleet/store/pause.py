"""Durable pauses: who stopped what, why, until when."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet.clock import Clock
from fleet.object import TargetId
from fleet.store.database import Database, Row, Statement
from fleet.store.record import read_at, read_some_at, write_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause of everything that its non-empty names match; all empty = the whole fleet."""

    id: int
    cluster: str
    app: str
    environment: str
    reason: str
    actor: str
    created_at: datetime
    until: datetime | None

    def covers(self, target: TargetId, environment: str, now: datetime) -> bool:
        """Tell whether the pause stops a target now."""
        return (
            self.cluster in ("", target.cluster)
            and self.app in ("", target.app)
            and self.environment in ("", environment)
            and (self.until is None or now < self.until)
        )

    @property
    def scope(self) -> str:
        """Say in words what is paused."""
        parts = [("cluster", self.cluster), ("app", self.app), ("environment", self.environment)]
        return ", ".join(f"{word} {name}" for word, name in parts if name) or "the whole fleet"


def find_pause(pauses: Iterable[Pause], target: TargetId, environment: str, now: datetime) -> Pause | None:
    """Return the oldest pause that stops a target now. Pure."""
    return next((pause for pause in pauses if pause.covers(target, environment, now)), None)


_COLUMNS = "id, cluster, app, environment, reason, actor, created_at, until"


def _read(row: Row) -> Pause:
    return Pause(
        id=row[0],
        cluster=row[1],
        app=row[2],
        environment=row[3],
        reason=row[4],
        actor=row[5],
        created_at=read_some_at(row[6]),
        until=read_at(row[7]),
    )


class PauseStore:
    """Pauses over a Database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def load(self) -> Sequence[Pause]:
        """Read every pause, oldest first."""
        return [_read(r) for r in await self._database.read(f"SELECT {_COLUMNS} FROM pause ORDER BY id")]

    async def add(
        self, *, cluster: str, app: str, environment: str, reason: str, actor: str, until: datetime | None
    ) -> Pause:
        """Store a pause; the same scope again replaces reason, actor and end. Idempotent."""
        scope = "/".join((cluster, app, environment))
        now = self._clock.now()
        rows = await self._database.write(
            [
                Statement("DELETE FROM pause WHERE scope = ?", (scope,)),
                Statement(
                    "INSERT INTO pause (scope, cluster, app, environment, reason, actor, created_at, until)"
                    f" VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING {_COLUMNS}",
                    (scope, cluster, app, environment, reason, actor, write_at(now), write_at(until)),
                ),
            ]
        )
        return _read(rows[1][0])

    async def remove(self, *, cluster: str, app: str, environment: str) -> int:
        """Remove the pause of exactly this scope; returns how many there were. Idempotent."""
        scope = "/".join((cluster, app, environment))
        rows = await self._database.write([Statement("DELETE FROM pause WHERE scope = ? RETURNING id", (scope,))])
        return len(rows[0])
