"""The daily audit's hours: each target once in 24 h, at an hour of its own, one target of a cluster at a time.

The next hour is in the database before an audit begins: one that is cut short is made up for the next day, never twice on one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime, timedelta

import structlog

from fleet.clock import Clock
from fleet.errors import FleetError
from fleet.metric import histogram
from fleet.object import TargetId
from fleet.store.checkup import CheckupStore

log = structlog.get_logger()

EVERY = timedelta(hours=24)
LOOK_S = 60.0
"""How soon a new target is given its hour. Nothing is asked of the cluster for that."""

SECONDS = histogram("fleet_audit_seconds", "How long the daily audit of one target took.", "cluster")


class Checkups:
    """Runs `audit` for each target of one cluster when it is due.

    `targets` names those that can be audited now; `audit` compares one and raises what fails.
    """

    def __init__(
        self,
        cluster: str,
        store: CheckupStore,
        clock: Clock,
        *,
        targets: Callable[[], Collection[TargetId]],
        audit: Callable[[TargetId], Awaitable[None]],
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._clock = clock
        self._targets = targets
        self._audit = audit
        self._due: dict[TargetId, datetime] = {}

    async def run(self) -> None:
        """Audit until cancelled. Raises: StoreError; then nothing was audited that is not accounted for."""
        self._due.update(await self._store.load(self._cluster))
        while True:
            targets = sorted(self._targets())
            for target in targets:
                if target not in self._due:
                    await self._plan(target, EVERY * self._clock.rng.random())
            for target in targets:
                if target in self._due and self._due[target] <= self._clock.now():
                    await self._plan(target, EVERY)
                    await self._audit_one(target)
            await asyncio.sleep(self._pause_s(targets))

    async def forget(self, target: TargetId) -> None:
        """Drop a target that is no more."""
        self._due.pop(target, None)
        await self._store.forget(target)

    async def _plan(self, target: TargetId, in_: timedelta) -> None:
        self._due[target] = self._clock.now() + in_
        await self._store.save(target, self._due[target])

    async def _audit_one(self, target: TargetId) -> None:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        try:
            await self._audit(target)
        except FleetError as error:
            log.warning("the daily audit was cut short", target=str(target), error=str(error))
        SECONDS.labels(self._cluster).observe(loop.time() - began_at)

    def _pause_s(self, targets: Collection[TargetId]) -> float:
        """Return how long nothing can be due; a target that is forgotten meanwhile is no matter."""
        now = self._clock.now()
        waits = [(self._due[t] - now).total_seconds() for t in targets if t in self._due]
        return min([LOOK_S, *(max(wait, 0.05) for wait in waits)])
