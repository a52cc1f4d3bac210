"""Rollouts and their history: documents of JSON, one of the run and one of each of its clusters."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet.store.database import Database, Row, Statement
from fleet.store.record import read_some_at, write_at

KEPT = 50
"""Rollouts of an app that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRow:
    """A rollout as stored. `document` and `clusters` are JSON."""

    id: int
    app: str
    release: int
    state: str
    document: str
    clusters: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionRow:
    """One step in a rollout's history; `actor` is empty where nobody asked for it."""

    at: datetime
    environment: str
    cluster: str
    before: str
    after: str
    reason: str
    message: str
    actor: str


_COLUMNS = "id, app, release, state, document"
_TRANSITION = "at, environment, cluster, was, becomes, reason, message, actor"


class RolloutStore:
    """Rollouts over a Database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, app: str, release: int, state: str, document: str, clusters: Mapping[str, str]) -> int:
        """Store a new rollout with its clusters and drop those that are too old to be kept; returns its id."""
        rows = await self._database.write(
            [
                Statement(
                    "INSERT INTO rollout (app, release, state, document) VALUES (?, ?, ?, ?) RETURNING id",
                    (app, release, state, document),
                ),
                *(
                    Statement(
                        "INSERT INTO rollout_cluster (run, cluster, document)"
                        " SELECT id, ?, ? FROM rollout WHERE app = ? AND release = ?",
                        (name, text, app, release),
                        expect=1,
                    )
                    for name, text in clusters.items()
                ),
                Statement(
                    "DELETE FROM rollout WHERE app = ? AND id NOT IN"
                    " (SELECT id FROM rollout WHERE app = ? ORDER BY release DESC LIMIT ?)",
                    (app, app, KEPT),
                ),
            ]
        )
        return int(rows[0][0][0])

    async def save(
        self,
        id_: int,
        state: str,
        document: str,
        clusters: Mapping[str, str],
        history: Iterable[TransitionRow],
    ) -> None:
        """Store what a rollout is now, those of its clusters that changed, and what changed it: all or nothing."""
        await self._database.write(
            [
                Statement("UPDATE rollout SET state = ?, document = ? WHERE id = ?", (state, document, id_), expect=1),
                *(
                    Statement(
                        "INSERT INTO rollout_cluster (run, cluster, document) VALUES (?, ?, ?)"
                        " ON CONFLICT (run, cluster) DO UPDATE SET document = excluded.document",
                        (id_, name, text),
                    )
                    for name, text in clusters.items()
                ),
                *(_insert(id_, row) for row in history),
            ]
        )

    async def load_newest(self) -> Sequence[RolloutRow]:
        """Read the newest rollout of every app."""
        rows = await self._database.read(
            f"SELECT {_COLUMNS} FROM rollout AS r WHERE release = (SELECT max(release) FROM rollout WHERE app = r.app)"
            " ORDER BY app"
        )
        return [await self._with_clusters(row) for row in rows]

    async def list(
        self, app: str = "", limit: int = 100, *, states: Collection[str] = (), before: int = 0
    ) -> Sequence[RolloutRow]:
        """List rollouts, of one app or of all, newest first; `before` is the id of the last one of an earlier list."""
        marks = ", ".join("?" * len(states))
        only = f" AND state IN ({marks})" if states else ""
        rows = await self._database.read(
            f"SELECT {_COLUMNS} FROM rollout WHERE ? IN ('', app) AND (? = 0 OR id < ?){only} ORDER BY id DESC LIMIT ?",
            (app, before, before, *sorted(states), limit),
        )
        return [await self._with_clusters(row) for row in rows]

    async def get(self, app: str, release: int) -> RolloutRow | None:
        """Read one rollout."""
        rows = await self._database.read(
            f"SELECT {_COLUMNS} FROM rollout WHERE app = ? AND release = ?", (app, release)
        )
        return await self._with_clusters(rows[0]) if rows else None

    async def history(self, id_: int) -> Sequence[TransitionRow]:
        """Read what happened to a rollout, oldest first."""
        rows = await self._database.read(
            f"SELECT {_TRANSITION} FROM rollout_transition WHERE run = ? ORDER BY seq", (id_,)
        )
        return [_read_transition(row) for row in rows]

    async def _with_clusters(self, row: Row) -> RolloutRow:
        clusters = await self._database.read(
            "SELECT cluster, document FROM rollout_cluster WHERE run = ? ORDER BY cluster", (row[0],)
        )
        return RolloutRow(
            id=row[0],
            app=row[1],
            release=row[2],
            state=row[3],
            document=row[4],
            clusters=dict(clusters),
        )


def _insert(id_: int, row: TransitionRow) -> Statement:
    values = (
        id_,
        write_at(row.at),
        row.environment,
        row.cluster,
        row.before,
        row.after,
        row.reason,
        row.message,
        row.actor,
    )
    return Statement(f"INSERT INTO rollout_transition (run, {_TRANSITION}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


def _read_transition(row: Row) -> TransitionRow:
    return TransitionRow(
        at=read_some_at(row[0]),
        environment=row[1],
        cluster=row[2],
        before=row[3],
        after=row[4],
        reason=row[5],
        message=row[6],
        actor=row[7],
    )
