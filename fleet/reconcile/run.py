"""What a run of one target is told, works with, and reports: values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fleet.clock import Clock
from fleet.errors import FleetError
from fleet.object import Manifest, ObjectKey, TargetId
from fleet.reconcile.drift import Contest
from fleet.reconcile.guard import HeldPrune
from fleet.reconcile.live import Live
from fleet.reconcile.plan import Change, Plan
from fleet.reconcile.port import ClusterApi, Kinds, Ledger, Policy, Unsealer
from fleet.store.ledger import Entry, Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What a target shall be: one release, rendered for it."""

    release: int
    revision: str
    digest: str
    manifests: tuple[Manifest, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one run shall do."""

    policy: Policy
    desired: Desired | None
    """None: nothing may be decided yet, or (with `removed`) the target is to be emptied."""
    removed: bool = False
    writable: bool = True
    """False while paused or report-only: plan and show."""
    prune_now: bool = False
    guarded: bool = True
    """False: somebody asked for the deletion by name, and no approval is needed beside that."""
    prune_later: bool = False
    """News of other apps are on their way: what this one lost may have moved there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something worth an event: kind is `apply`, `drift`, `prune` or `adopt`."""

    kind: str
    reason: str
    message: str
    key: ObjectKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run found and did. `changes` is the plan after the run: what is still to be done, and what is in sync."""

    order: Order
    changes: tuple[Change, ...] = ()
    failures: Mapping[ObjectKey, FleetError] = field(default_factory=dict)
    hints: Mapping[ObjectKey, str] = field(default_factory=dict)
    """What to do about a failure, beside its own message."""
    waits_for: frozenset[ObjectKey] = frozenset()
    contested: Mapping[ObjectKey, Contest] = field(default_factory=dict)
    complete: bool = False
    """Every desired object is applied as desired and nothing is left to prune."""
    written: int = 0
    pruned: int = 0
    wake_in_s: float | None = None
    notes: tuple[Note, ...] = ()
    held: HeldPrune | None = None
    """Why nothing was pruned although it could have been: a person must approve it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all targets of one cluster share."""

    hub_id: str
    api: Callable[[TargetId], ClusterApi]
    kinds: Kinds
    live: Live
    ledger: Ledger
    lease: Lease
    clock: Clock
    unsealer: Unsealer
    owners: dict[ObjectKey, TargetId]
    """Which target's ledger holds an object: one index per cluster, kept by its targets."""
    wants: Callable[[ObjectKey, TargetId], bool]
    """Whether a target desires an object."""
    ledgers: dict[TargetId, dict[ObjectKey, Entry]]
    """Every target's ledger rows, in memory, equal to the database."""
    digest_key: bytes
    wanted_by: Callable[[ObjectKey, TargetId], TargetId | None] = lambda _key, _target: None
    """Which other target desires an object."""
    former_hubs: frozenset[str] = frozenset()
    """Hubs that the cluster was taken over from: what they left of this target is ours."""
    guard: Callable[[TargetId, Order, Plan], HeldPrune | None] = lambda _target, _order, _plan: None
    """Whether a prune waits for approval."""
    system: ClusterApi | None = None
    """The hub's own identity, for what is in `fleet-system`: an App that impersonates a tenant may not write there."""
