"""Trying a release on clusters before the first one is given it: each is asked at once, by whatever it is connected with."""

import asyncio
from collections.abc import Mapping, Sequence

from fleet.aio import as_fleet_error, spawn
from fleet.errors import FleetError, TargetError
from fleet.hub.brief import brief_of
from fleet.hub.supervisor import Supervisor
from fleet.inventory.value import Target
from fleet.object import TargetId
from fleet.reconcile.preflight import Preflight
from fleet.reconcile.run import Desired


class Preflights:
    """Tries releases. Nothing is written, neither to clusters nor to the store."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def preflight_release(
        self, app: str, release: int, targets: Sequence[TargetId]
    ) -> Mapping[TargetId, Preflight]:
        """Try a release of an app; by target, in the order given. Never raises but for bugs.

        A cluster that cannot be asked is unverified; one for which the release cannot be had or rendered is refused.
        """
        async with asyncio.TaskGroup() as group:
            tasks = {target: spawn(group, f"recall/{target}", self._recall(target, release)) for target in targets}
        return await self.try_all(release, {target: task.result() for target, task in tasks.items()})

    async def try_all(
        self, release: int, wanted: Mapping[TargetId, Desired | FleetError]
    ) -> Mapping[TargetId, Preflight]:
        """Try what each target would be given; an error stands for what could not be had."""
        async with asyncio.TaskGroup() as group:
            tasks = {
                target: spawn(group, f"preflight/{target}", self._try_one(target, release, each))
                for target, each in wanted.items()
            }
        return {target: task.result() for target, task in tasks.items()}

    async def _recall(self, target: TargetId, release: int) -> Desired | FleetError:
        try:
            return (await self._supervisor.feed.recall(self.known(target), release)).desired
        except Exception as error:  # noqa: BLE001 - one target's failure is its own
            return as_fleet_error(error, f"recall/{target}")

    def known(self, target: TargetId) -> Target:
        """Return a target of the inventory. Raises: TargetError."""
        inventory = self._supervisor.inventory
        known = inventory.targets.get(target) if inventory is not None else None
        if known is None:
            raise TargetError(f"app {target.app} does not go to cluster {target.cluster}", reason="NotFound")
        return known

    async def _try_one(self, target: TargetId, release: int, wanted: Desired | FleetError) -> Preflight:
        if isinstance(wanted, FleetError):
            return Preflight(target=target, release=release, trouble=wanted, refused=True)
        session = self._supervisor.sessions.get(target.cluster)
        link = session.link if session is not None else None
        if session is None or link is None or session.trouble is not None:
            trouble = session.trouble if session is not None else None
            away = TargetError(f"cluster {target.cluster} is not connected", reason="NotConnected")
            return Preflight(target=target, release=release, trouble=trouble or away)
        try:
            trials = await link.preflight(target, brief_of(self.known(target)).policy, wanted)
        except Exception as error:  # noqa: BLE001 - one cluster's failure is its own
            trouble = as_fleet_error(error, f"preflight/{target}")
            return Preflight(target=target, release=release, trouble=trouble)
        return Preflight(target=target, release=release, trials=tuple(trials))
