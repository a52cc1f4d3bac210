"""When each target's daily audit is due: kept, so that a hub that is often restarted audits neither twice a day nor never."""

from collections.abc import Mapping
from datetime import datetime

from fleet.object import TargetId
from fleet.store.database import Database, Statement
from fleet.store.record import read_some_at, write_at


class CheckupStore:
    """Due times over a Database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, cluster: str) -> Mapping[TargetId, datetime]:
        """Read when the targets of a cluster are due."""
        rows = await self._database.read("SELECT app, due_at FROM checkup WHERE cluster = ?", (cluster,))
        return {TargetId(cluster, app): read_some_at(due_at) for app, due_at in rows}

    async def save(self, target: TargetId, due_at: datetime) -> None:
        """Set when a target is due next. Idempotent."""
        await self._database.write(
            [
                Statement(
                    "INSERT INTO checkup (cluster, app, due_at) VALUES (?, ?, ?)"
                    " ON CONFLICT (cluster, app) DO UPDATE SET due_at = excluded.due_at",
                    (target.cluster, target.app, write_at(due_at)),
                )
            ]
        )

    async def forget(self, target: TargetId) -> None:
        """Drop a target. Idempotent."""
        await self._database.write(
            [Statement("DELETE FROM checkup WHERE cluster = ? AND app = ?", (target.cluster, target.app))]
        )
