"""Releases of apps, and which release every target should have and has."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet.clock import Clock
from fleet.object import TargetId
from fleet.store.database import Database, Row, Statement
from fleet.store.record import read_at, read_some_at, write_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What an app's clusters get at one time. `inputs` is JSON: what rendered it, per cluster."""

    app: str
    number: int
    repository: str
    revision: str
    input_digest: str
    inputs: str
    created_at: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRow:
    """Desired and applied release of a target. `policy` and `inputs` are JSON kept for when its App is gone."""

    target: TargetId
    release: int
    render_digest: str
    inputs: str = "{}"
    policy: str = "{}"
    applied_release: int = 0
    applied_revision: str = ""
    applied_digest: str = ""
    applied_at: datetime | None = None


_RELEASE = "app, number, repository, revision, input_digest, inputs, created_at, reason"
_TARGET = "cluster, app, release, render_digest, inputs, policy, applied_release, applied_revision, applied_digest, applied_at"


def _read_release(row: Row) -> Release:
    return Release(
        app=row[0],
        number=row[1],
        repository=row[2],
        revision=row[3],
        input_digest=row[4],
        inputs=row[5],
        created_at=read_some_at(row[6]),
        reason=row[7],
    )


def _read_target(row: Row) -> TargetRow:
    return TargetRow(
        target=TargetId(row[0], row[1]),
        release=row[2],
        render_digest=row[3],
        inputs=row[4],
        policy=row[5],
        applied_release=row[6],
        applied_revision=row[7],
        applied_digest=row[8],
        applied_at=read_at(row[9]),
    )


class ReleaseStore:
    """Releases and target rows over a Database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(
        self, app: str, *, repository: str, revision: str, input_digest: str, inputs: str, reason: str
    ) -> Release:
        """Number and store a new release."""
        now = self._clock.now()
        rows = await self._database.write(
            [
                Statement(
                    f"INSERT INTO release ({_RELEASE})"
                    " SELECT ?, coalesce(max(number), 0) + 1, ?, ?, ?, ?, ?, ? FROM release WHERE app = ?"
                    " RETURNING number",
                    (app, repository, revision, input_digest, inputs, write_at(now), reason, app),
                )
            ]
        )
        return Release(
            app=app,
            number=int(rows[0][0][0]),
            repository=repository,
            revision=revision,
            input_digest=input_digest,
            inputs=inputs,
            created_at=now,
            reason=reason,
        )

    async def list(self, app: str, limit: int = 100) -> Sequence[Release]:
        """List an app's releases, newest first."""
        rows = await self._database.read(
            f"SELECT {_RELEASE} FROM release WHERE app = ? ORDER BY number DESC LIMIT ?",
            (app, limit),
        )
        return [_read_release(row) for row in rows]

    async def get(self, app: str, number: int) -> Release | None:
        """Read one release."""
        rows = await self._database.read(
            f"SELECT {_RELEASE} FROM release WHERE app = ? AND number = ?",
            (app, number),
        )
        return _read_release(rows[0]) if rows else None

    async def load_targets(self) -> dict[TargetId, TargetRow]:
        """Read every target's row."""
        rows = await self._database.read(f"SELECT {_TARGET} FROM target")
        return {row.target: row for row in map(_read_target, rows)}

    async def save_desired(self, rows: Sequence[TargetRow]) -> None:
        """Set what targets should have; what they have is kept."""
        await self._database.write(
            [
                Statement(
                    "INSERT INTO target (cluster, app, release, render_digest, inputs, policy, applied_release,"
                    " applied_revision, applied_digest, applied_at) VALUES (?, ?, ?, ?, ?, ?, 0, '', '', '')"
                    " ON CONFLICT (cluster, app) DO UPDATE SET release = excluded.release,"
                    " render_digest = excluded.render_digest, inputs = excluded.inputs, policy = excluded.policy",
                    (*r.target, r.release, r.render_digest, r.inputs, r.policy),
                )
                for r in rows
            ]
        )

    async def save_applied(self, target: TargetId, *, release: int, revision: str, digest: str) -> None:
        """Set what a target has: called when a release is fully applied there."""
        await self._database.write(
            [
                Statement(
                    "UPDATE target SET applied_release = ?, applied_revision = ?, applied_digest = ?, applied_at = ?"
                    " WHERE cluster = ? AND app = ?",
                    (release, revision, digest, write_at(self._clock.now()), *target),
                )
            ]
        )

    async def forget(self, target: TargetId) -> None:
        """Drop a target that has been emptied."""
        await self._database.write([Statement("DELETE FROM target WHERE cluster = ? AND app = ?", tuple(target))])
