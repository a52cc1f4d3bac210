"""What keeps a target from being applied although it is wanted: a pause, of a command or a file, or a drain."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from fleet.clock import Clock
from fleet.hub.drain import explain_drain
from fleet.hub.feed import Feed
from fleet.inventory.value import Inventory
from fleet.object import ObjectKey, TargetId
from fleet.reconcile.status import Why
from fleet.store.drain import Drain, find_drain
from fleet.store.ledger import Entry
from fleet.store.pause import Pause, find_pause


class Brakes:
    """The brakes on the targets of one cluster. `ledgers` is what they hold; `wake` is told when a pause will be over."""

    def __init__(
        self,
        feed: Feed,
        clock: Clock,
        *,
        inventory: Callable[[], Inventory | None],
        pauses: Callable[[], Sequence[Pause]],
        drains: Callable[[], Sequence[Drain]],
        ledgers: Mapping[TargetId, Mapping[ObjectKey, Entry]],
        wake: Callable[[TargetId, float], None],
    ) -> None:
        self._feed = feed
        self._clock = clock
        self._inventory = inventory
        self._pauses = pauses
        self._drains = drains
        self._ledgers = ledgers
        self._wake = wake

    def held(self, target: TargetId) -> Why | None:
        """Say why nothing is applied to a target: paused or drained; None when it runs."""
        paused, drain = self.paused(target), self.drained(target)
        if paused is not None or drain is None:
            return paused
        return explain_drain(drain, len(self._ledgers.get(target, {})), self.drains_first(target))

    def paused(self, target: TargetId) -> Why | None:
        """Say who paused a target and why; None when it runs."""
        now = self._clock.now()
        inventory = self._inventory()
        known = inventory.targets.get(target) if inventory is not None else None
        in_file = known.app.spec.paused if known is not None else None
        if in_file is not None and (in_file.until is None or now < in_file.until):
            self._wake_at(target, in_file.until)
            return Why(reason="Paused", message=f"by its App document ({known and known.app.origin}): {in_file.reason}")
        environment = known.environment.name if known is not None else ""
        pause = find_pause(self._pauses(), target, environment, now)
        if pause is None:
            return None
        self._wake_at(target, pause.until)
        return Why(reason="Paused", message=f"{pause.scope} by {pause.actor}: {pause.reason}")

    def drained(self, target: TargetId) -> Drain | None:
        """Return what says that nothing of a target shall be there; None when nothing does."""
        return find_drain(self._drains(), target)

    def drains_first(self, target: TargetId) -> list[TargetId]:
        """List the apps that need this one and are still being drained: their finalizers may need it to the end."""
        return sorted(
            other
            for other, supply in self._feed.supplies.items()
            if target in supply.target.depends_on and self.drained(other) is not None and self._ledgers.get(other)
        )

    def _wake_at(self, target: TargetId, at: datetime | None) -> None:
        if at is not None:
            self._wake(target, max((at - self._clock.now()).total_seconds(), 0.0) + 0.1)
