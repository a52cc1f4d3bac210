"""What one run of a target is told: which release, whether it may write, or that the target is to be emptied.

Decided anew for each run from the inventory, the feed, pauses and drains; nothing here talks to a cluster.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fleet.clock import Clock
from fleet.hub.brake import Brakes
from fleet.hub.brief import Brief
from fleet.hub.drain import drain_order
from fleet.hub.event import EventLog
from fleet.hub.feed import Feed
from fleet.hub.guard import Approvals, Leaving
from fleet.hub.progress import Progress
from fleet.hub.supply import Supply
from fleet.inventory.value import Inventory
from fleet.object import ObjectKey, TargetId
from fleet.reconcile.plan import FOUND
from fleet.reconcile.port import Ledger, Policy, Unsealer
from fleet.reconcile.run import Desired, Order
from fleet.reconcile.status import Why
from fleet.settings import Settings
from fleet.store.checkup import CheckupStore
from fleet.store.drain import Drain
from fleet.store.ledger import Entry
from fleet.store.pause import Pause

GIT_WAIT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Commons:
    """What all sessions share."""

    settings: Settings
    clock: Clock
    hub_id: str
    digest_key: bytes
    feed: Feed
    ledger: Ledger
    events: EventLog
    unsealer: Unsealer
    inventory: Callable[[], Inventory | None]
    pauses: Callable[[], Sequence[Pause]]
    drains: Callable[[], Sequence[Drain]] = tuple
    approvals: Approvals
    on_progress: Callable[[TargetId], None] = lambda _target: None
    """Told when a target was looked at."""
    on_cluster: Callable[[str], None] = lambda _cluster: None
    """Told when a cluster begins or ceases to answer."""
    checkups: CheckupStore


class Orders:
    """The orders of one cluster's targets. `look_later(target, seconds)` asks for another run."""

    def __init__(
        self,
        cluster: str,
        commons: Commons,
        *,
        progress: dict[TargetId, Progress],
        ledgers: Mapping[TargetId, Mapping[ObjectKey, Entry]],
        brakes: Brakes,
        look_later: Callable[[TargetId, float], None],
    ) -> None:
        self._cluster = cluster
        self._commons = commons
        self._progress = progress
        self._ledgers = ledgers
        self._brakes = brakes
        self._look_later = look_later
        self._keys: dict[TargetId, tuple[Desired, frozenset[ObjectKey]]] = {}

    def forget(self, target: TargetId) -> None:
        """Forget a target that is no more."""
        self._keys.pop(target, None)

    def order(self, target: TargetId) -> Order | None:
        """Say what a run shall do now; None when nothing is known about the target."""
        progress = self._progress.setdefault(target, Progress(target=target))
        supply = self._commons.feed.supplies.get(target)
        if supply is None:
            return self.removal(target)
        if self._brakes.drained(target) is not None:
            progress.admitted = progress.gate = None
            return drain_order(
                supply, writable=self._brakes.paused(target) is None and not self._brakes.drains_first(target)
            )
        if self._awaits_git(progress, supply):
            return None
        self._admit(progress, supply)
        writable = supply.brief.policy.write and self._brakes.paused(target) is None
        return Order(
            policy=supply.brief.policy,
            desired=progress.admitted,
            writable=writable,
            prune_now=progress.prune_now,
            prune_later=self._commons.feed.is_delivering(self._cluster, target.app),
        )

    def _awaits_git(self, progress: Progress, supply: Supply) -> bool:
        """Tell whether a rebuilt ledger must wait for news of Git: by an old commit, what left Git would look wanted."""
        rows = self._ledgers.get(progress.target, {}).values()
        if self._commons.feed.is_fresh(supply) or not any(row.state == FOUND for row in rows):
            return False
        progress.gate = Why(reason="NotFetched", message="the ledger is rebuilt once the repository has been asked")
        self._look_later(progress.target, GIT_WAIT_S)
        return True

    def removal(self, target: TargetId) -> Order | None:
        """Empty a target that was taken out of the inventory on purpose.

        A half-read inventory removes nothing, and neither does a cluster that leaves it.
        """
        inventory = self._commons.inventory()
        if inventory is None or not inventory.authoritative or target in inventory.targets:
            return None
        if self._cluster not in inventory.clusters:
            return None
        row = self._commons.feed.rows.get(target)
        policy = Brief.decode(row.policy).policy if row is not None else Policy()
        # `apply: report` deletes nothing; letting go with `onRemove: orphan` is what somebody asked for
        allowed = policy.write or not policy.on_remove_prune
        return Order(
            policy=policy,
            desired=None,
            removed=True,
            writable=allowed and self._brakes.paused(target) is None,
            prune_later=self._commons.feed.is_delivering(self._cluster, target.app),
        )

    def _admit(self, progress: Progress, supply: Supply) -> None:
        """Take the newest release, once what the app depends on is in place; repairs never wait."""
        desired = supply.desired
        progress.gate = None
        if desired is None or desired is progress.admitted:
            return
        row = self._commons.feed.rows.get(progress.target)
        had = {row.applied_digest if row else "", progress.admitted.digest if progress.admitted else ""}
        if desired.digest not in had and supply.hold is None:  # the way back waits for nobody
            progress.gate = self._missing_dependency(supply)
        if progress.gate is None:
            progress.admitted = desired

    def _missing_dependency(self, supply: Supply) -> Why | None:
        for needed in supply.target.depends_on:
            other = self._commons.feed.supplies.get(needed)
            progress = self._progress.get(needed)
            if other is None or progress is None or not progress.is_done(other.desired):
                state = progress.condition.state.value if progress is not None else "Unknown"
                return Why(
                    reason="DependencyNotReady",
                    message=f"waits for app {needed.app}, which is {state}; see fleet status {needed}",
                )
        return None

    def wants(self, key: ObjectKey, holder: TargetId) -> bool:
        """Tell whether a target desires an object; one that has not been rendered yet keeps what it holds."""
        supply = self._commons.feed.supplies.get(holder)
        if self._brakes.drained(holder) is not None:
            return False
        if supply is None:
            inventory = self._commons.inventory()
            return not (inventory is not None and inventory.authoritative and holder not in inventory.targets)
        if supply.desired is None:
            return True
        known = self._keys.get(holder)
        if known is None or known[0] is not supply.desired:
            known = (supply.desired, frozenset(_keys_of(supply.desired, supply.brief.policy.namespace)))
            self._keys[holder] = known
        return key in known[1]

    def wanted_by(self, key: ObjectKey, holder: TargetId) -> TargetId | None:
        """Name another target of this cluster that has an object in its release."""
        for other, supply in self._commons.feed.supplies.items():
            rendered = other.cluster == self._cluster and supply.desired is not None
            if rendered and other != holder and self.wants(key, other):
                return other
        return None

    def leaving(self, target: TargetId) -> Leaving | None:
        supply = self._commons.feed.supplies.get(target)
        if supply is not None:
            return Leaving(policy=supply.brief.policy, removed=False) if supply.desired is not None else None
        order = self.removal(target)
        return Leaving(policy=order.policy, removed=True) if order is not None else None


def _keys_of(desired: Desired, namespace: str) -> Iterator[ObjectKey]:
    for m in desired.manifests:
        yield m.key
        if not m.scoped:
            yield m.key._replace(namespace=namespace or "default")
