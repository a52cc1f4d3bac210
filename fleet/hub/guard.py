"""The mass-change guard of a running hub: what is about to be deleted where, and what people agreed to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleet.object import ObjectKey, TargetId
from fleet.reconcile.guard import HeldPrune, Stakes, decide_held, doomed_of, mark_of, takes_whole
from fleet.reconcile.live import LiveObject
from fleet.reconcile.plan import FOUND, KEPT_KINDS, Plan, keep_reason
from fleet.reconcile.port import Policy
from fleet.reconcile.run import Order, Surroundings
from fleet.store.approval import Approval, ApprovalStore


class Approvals:
    """The approvals in force, in memory equal to the database."""

    def __init__(self, store: ApprovalStore) -> None:
        self._store = store
        self._known: dict[tuple[TargetId, str], Approval] = {}

    async def load(self) -> None:
        """Read what was agreed to before the hub stopped."""
        self._known = {(a.target, a.digest): a for a in await self._store.load()}

    def of(self, cluster: str = "") -> Sequence[Approval]:
        """List the approvals in force, of one cluster or of all."""
        return [a for a in self._known.values() if cluster in ("", a.target.cluster)]

    def find(self, target: TargetId, digest: str) -> Approval | None:
        """Return the approval of exactly this."""
        return self._known.get((target, digest))

    async def add(self, target: TargetId, held: HeldPrune, *, reason: str, actor: str) -> Approval:
        """Agree to what is held. Idempotent."""
        approval = await self._store.add(target, digest=held.digest, objects=held.doomed, reason=reason, actor=actor)
        self._known[target, held.digest] = approval
        return approval

    async def clear(self, cluster: str) -> None:
        """Forget the approvals of a cluster. Idempotent."""
        await self._store.clear(cluster)
        self._known = {key: a for key, a in self._known.items() if key[0].cluster != cluster}


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """How a target's App stands: what decides whether that which left it is deleted or let go."""

    policy: Policy
    removed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Counts what the targets of one cluster are about to lose: a commit may spread over several apps."""

    cluster: str
    approvals: Approvals
    leaving: Callable[[TargetId], Leaving | None]
    """None: nothing is known of the target's wishes, and nothing of it is pruned."""

    def check(self, around: Surroundings, target: TargetId, order: Order, plan: Plan) -> HeldPrune | None:
        """Say why a prune must wait; None when it may go on."""
        doomed = doomed_of(plan.changes)
        if not order.guarded or not doomed:
            return None
        others = self._doomed(around, besides=target)
        approvals = self.approvals.of(self.cluster)
        agreed = frozenset[str]().union(*(a.objects for a in approvals))
        spent = len(agreed - doomed - others)
        return decide_held(
            Stakes(
                target=target,
                doomed=doomed,
                whole=takes_whole(plan.changes),
                empty=order.desired is not None and not order.desired.manifests,
                approved=frozenset[str]().union(*(a.objects for a in approvals if a.target == target)),
                beside=len(others) + spent,
                total=sum(map(len, around.ledgers.values())) + spent,
            )
        )

    def is_over(self, around: Surroundings) -> bool:
        """Tell whether approvals have served: nothing of the cluster is about to be deleted any more."""
        if not self.approvals.of(self.cluster):
            return False
        known = all(self.leaving(target) is not None for target, rows in around.ledgers.items() if rows)
        return known and not self._doomed(around)

    def _doomed(self, around: Surroundings, besides: TargetId | None = None) -> frozenset[str]:
        """List what the targets would delete; what no watch has shown yet counts, lest a restart hide it."""
        found = set()
        for target, rows in around.ledgers.items():
            state = self.leaving(target) if target != besides else None
            if state is None or not state.policy.write:
                continue
            for key, entry in rows.items():
                if entry.state == FOUND:  # pruned only after somebody confirmed it
                    continue
                live = around.live.get(key)
                if _leaves(around, target, key) and _is_doomed(around, state, key, live):
                    found.add(mark_of(live.uid if live is not None else entry.uid, key))
        return frozenset(found)


def _leaves(around: Surroundings, target: TargetId, key: ObjectKey) -> bool:
    return not around.wants(key, target) and around.wanted_by(key, target) is None


def _is_doomed(around: Surroundings, state: Leaving, key: ObjectKey, live: LiveObject | None) -> bool:
    if live is None:
        served = around.kinds.resource(key.group_kind) is not None
        return served and not around.live.is_synced(key.group_kind) and key.group_kind not in KEPT_KINDS
    return not live.deleting and live.ours and not keep_reason(state.policy, key, live, removed=state.removed)
