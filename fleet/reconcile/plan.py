"""The decision: desired manifests, the ledger and live objects in; one change per object out. Pure.

First match wins, per object, in the order of `_decide_desired` and `_decide_left`: read those two and you know what
fleet will do and why.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from fleet.annotation import HUB, PART_OF
from fleet.errors import SealError
from fleet.inventory.parse import nearest
from fleet.kube.ownership import own_entry
from fleet.kube.wire import Observed
from fleet.object import Adopt, Apply, GroupKind, Manifest, ObjectKey, TargetId
from fleet.reconcile.drift import Finding, added_by, is_taken
from fleet.reconcile.ignore import ignored_pointers
from fleet.reconcile.live import LiveObject
from fleet.reconcile.port import Policy
from fleet.render.scope import BUILT_IN
from fleet.store.ledger import Entry


class Action(StrEnum):
    """What happens to one object."""

    CREATE = "create"
    CONFIGURE = "configure"
    UNCHANGED = "unchanged"
    PRUNE = "prune"
    SKIP = "skip"
    ADOPT = "adopt"
    HAND_OVER = "hand-over"


WRITES = frozenset({Action.CREATE, Action.CONFIGURE, Action.ADOPT})
DRIFT_REASONS = frozenset({"Drifted", "Deleted", "Replaced", "Added", "AuditDrift"})
UNSEEN = frozenset({"NotObserved", "NotLookedUp", "MissingKind"})
"""Reasons of a skip for want of a full view of the cluster."""
FAILURES = frozenset({"OwnedElsewhere", "Duplicate", "NotAllowed", "HookUnsupported", "UnknownKind"})
"""Reasons of a skip that a person must resolve."""
SEALED = frozenset(
    {
        "NotARecipient",
        "UnknownKey",
        "RetiredKey",
        "CompromisedKey",
        "ScopeMismatch",
        "Corrupt",
        "Unsupported",
        "KeysLocked",
    }
)
"""Reasons of a skip of a sealed object that does not open here: what is in the cluster stays."""
BLOCKING = UNSEEN | FAILURES | SEALED | {"Terminating"}
"""Reasons of a skip for which a target is not complete although nothing is left to write."""
HOLDS_PRUNE = UNSEEN | SEALED | FAILURES - {"HookUnsupported"}
"""Reasons of a skip of a desired object that keep what left Git from being pruned: it may have been meant to replace it."""

DELIVERY_MANAGERS = (
    "kustomize-controller",
    "helm-controller",
    "helm",
    "argocd-controller",
    "argocd-application-controller",
    "fleetagent",
)
"""Field managers of other GitOps tools: what one of them still held after a takeover could not be removed by Git."""

FOUND = "found"
"""State of a ledger row that was rebuilt from an object's marks: what it was applied from is not known."""

KEPT_KINDS = frozenset(
    {
        GroupKind("", "Namespace"),
        GroupKind("apiextensions.k8s.io", "CustomResourceDefinition"),
        GroupKind("", "PersistentVolume"),
        GroupKind("", "PersistentVolumeClaim"),
    }
)
"""Never pruned unless allowed: with them goes data that no commit brings back."""

_BUILT_IN_GROUPS = frozenset(kind.group for kind in BUILT_IN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One object's share of a plan. `reason` is CamelCase, `message` a sentence for people."""

    key: ObjectKey
    action: Action
    reason: str
    message: str = ""
    manifest: Manifest | None = field(default=None, repr=False)
    entry: Entry | None = field(default=None, repr=False)
    live: LiveObject | None = field(default=None, repr=False)
    orphan: bool = False
    """The object stays in the cluster; only our labels and the ledger row go."""
    from_target: TargetId | None = None

    @property
    def is_drift(self) -> bool:
        """A repair of something that somebody changed."""
        return self.action in WRITES and self.reason in DRIFT_REASONS


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything a plan is made from; a snapshot taken without awaiting."""

    target: TargetId
    part_of: str
    hub_id: str
    policy: Policy
    desired: Mapping[ObjectKey, Manifest]
    ledger: Mapping[ObjectKey, Entry]
    live: Callable[[ObjectKey], LiveObject | None]
    synced: Callable[[GroupKind], bool]
    served: Callable[[GroupKind], bool]
    found: Mapping[ObjectKey, Observed | None]
    """Looked up by name because no watch shows them: None = absent."""
    owner: Callable[[ObjectKey], TargetId | None]
    """Which target's ledger holds an object."""
    wants: Callable[[ObjectKey, TargetId], bool]
    """Whether a target desires an object."""
    kinds: Callable[[], Collection[GroupKind]] = tuple
    """Every kind that is served."""
    wanted_by: Callable[[ObjectKey, TargetId], TargetId | None] = lambda _key, _target: None
    """Which other target desires an object."""
    ended: Callable[[ObjectKey], str] = lambda _: ""
    """The uid of the last Job of this name that was seen done."""
    schema_changed: frozenset[GroupKind] = frozenset()
    former_hubs: frozenset[str] = frozenset()
    """Hubs that the cluster was taken over from."""
    audited: Mapping[ObjectKey, Finding] = field(default_factory=dict)
    """What the last daily audit found, per object."""
    sealed: Mapping[ObjectKey, SealError] = field(default_factory=dict)
    """Why desired objects do not open here."""
    removed: bool = False
    """The target itself is gone from the inventory."""
    prune_now: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The changes of one target, one per object, sorted by key."""

    changes: tuple[Change, ...]

    def with_action(self, *actions: Action) -> list[Change]:
        """Pick the changes with one of these actions."""
        return [change for change in self.changes if change.action in actions]

    @property
    def counts(self) -> Mapping[Action, int]:
        """How many objects each action touches."""
        return Counter(change.action for change in self.changes)


def unseen(view: View) -> list[ObjectKey]:
    """List desired objects that are in no ledger and in no watch: they must be looked up by name before planning."""
    return [
        key
        for key, m in view.desired.items()
        if _applied(view, key) is None
        and not_allowed(view.policy, m) is None
        and view.owner(key) in (None, view.target)
        and view.live(key) is None
        and key not in view.found
        and view.served(key.group_kind)
    ]


def _applied(view: View, key: ObjectKey) -> Entry | None:
    """Return the ledger row of an object that was written; a mere intent says nothing about what is there."""
    entry = view.ledger.get(key)
    return entry if entry is not None and entry.uid else None


def plan_target(view: View) -> Plan:
    """Decide what to do with every object that is desired or that we applied."""
    left = (key for key in view.ledger if key not in view.desired)
    changes = [*(_decide_desired(view, m) for m in view.desired.values()), *(_decide_left(view, key) for key in left)]
    return Plan(changes=tuple(sorted(changes, key=lambda change: change.key)))


def _decide_desired(view: View, m: Manifest) -> Change:
    key, entry, live = m.key, _applied(view, m.key), view.live(m.key)

    def change(action: Action, reason: str, message: str = "", from_target: TargetId | None = None) -> Change:
        return Change(
            key=key,
            action=action,
            reason=reason,
            message=message,
            manifest=m,
            entry=entry,
            live=live,
            from_target=from_target,
        )

    for action, reason, message in _refusals(view, m, live):
        return change(action, reason, message)
    holder = view.owner(key)
    if holder is not None and holder != view.target:
        if view.wants(key, holder):
            return change(
                Action.SKIP,
                "Duplicate",
                f"{m.origin} renders an object that app {holder.app} already holds on this cluster; only one of them may",
            )
        return change(Action.HAND_OVER, "HandedOver", f"taken over from app {holder.app}", from_target=holder)
    if entry is None:
        return _decide_first(view, m, change, live)
    if live is None:
        return _decide_missing(view, m, entry, change)
    return _decide_known(view, m, entry, live, change)


_Maker = Callable[..., Change]


def _refusals(view: View, m: Manifest, live: LiveObject | None) -> Iterator[tuple[Action, str, str]]:
    if m.flags.hook:
        yield Action.SKIP, "HookUnsupported", f"{m.origin}: hooks are not run ({m.flags.hook}); remove the annotation"
    if not m.flags.reconcile:
        yield Action.SKIP, "OptedOut", "reconciling is disabled by its manifest"
    if live is not None and not live.flags.reconcile:
        yield (
            Action.SKIP,
            "OptedOut",
            f"disabled by an annotation on the object, set by {live.opted_out_by or 'somebody'}",
        )
    if (rule := not_allowed(view.policy, m)) is not None:
        yield Action.SKIP, "NotAllowed", f"{m.origin}: {rule}"
    if (error := view.sealed.get(m.key)) is not None:
        kept = "" if live is None else "; the Secret in the cluster stays as it was"
        yield Action.SKIP, error.reason, f"{error}{kept}"
    if live is not None and live.deleting:
        yield Action.SKIP, "Terminating", f"{_ending(live)}; it is created again when it is gone"


def _ending(live: LiveObject) -> str:
    """Say what holds an object that is being deleted, as far as its health tells."""
    return live.verdict.message if live.verdict is not None else "being deleted"


def not_allowed(policy: Policy, m: Manifest) -> str | None:
    """Name the rule of the App's `allow` that refuses a manifest; None when it may be written."""
    if not m.key.namespace and m.scoped and not policy.allow_cluster_scoped:
        return "allow.clusterScoped is false"
    namespaces = policy.allow_namespaces
    if m.key.namespace and namespaces and not any(fnmatchcase(m.key.namespace, glob) for glob in namespaces):
        return f"namespace {m.key.namespace} is not in allow.namespaces"
    if policy.allow_kinds and not {m.key.kind, str(m.key.group_kind)} & set(policy.allow_kinds):
        return f"kind {m.key.group_kind} is not in allow.kinds"
    return None


def _decide_first(view: View, m: Manifest, change: _Maker, live: LiveObject | None) -> Change:
    if live is not None and live.ours and live.part_of == view.part_of:
        return change(Action.CONFIGURE, "LedgerMissing", "carries our marks but is in no ledger")
    if not view.served(m.key.group_kind):
        return change(Action.SKIP, *_explain_unserved(view, m))
    if live is None and m.key not in view.found:
        return change(Action.SKIP, "NotLookedUp", "it is not known whether it exists already")
    found = view.found.get(m.key)
    if found is None and live is None:
        return change(Action.CREATE, "Absent")
    if live is None and found is not None and found.deleting:
        return change(Action.SKIP, "Terminating", "being deleted; it is created when it is gone")
    if found is not None and is_left_behind(view, found):
        return change(Action.ADOPT, "TakenOver", f"was applied by hub {found.labels[HUB]}, whose cluster this was")
    if m.flags.apply is Apply.IF_NOT_PRESENT:
        return change(Action.UNCHANGED, "IfNotPresent", "exists already and is only created")
    refusal = refuse_adoption(m, view.policy, found, view.hub_id) if found is not None else None
    if refusal is not None:
        return change(Action.SKIP, "OwnedElsewhere", refusal)
    mark = foreign_mark(found, view.hub_id) if found is not None else ""
    before = f"was managed by {mark}" if mark else "existed before"
    return change(Action.ADOPT, "Adopted", f"{before}; fleet takes the fields in Git and leaves the others")


def _explain_unserved(view: View, m: Manifest) -> tuple[str, str]:
    """Tell a kind that comes with its definition from one that no definition can bring.

    A group of Kubernetes itself that is served belongs to the API server; other names below k8s.io may be definitions
    (`gateway.networking.k8s.io`).
    """
    kind = m.key.group_kind
    known = [other.kind for other in view.kinds() if other.group == kind.group]
    if kind.group in _BUILT_IN_GROUPS and known:
        return (
            "UnknownKind",
            f"{m.origin}: the cluster serves no {kind}, and no CRD can bring it{nearest(kind.kind, known)}",
        )
    return "MissingKind", f"the cluster serves no {kind}; waiting for its CRD"


def is_left_behind(view: View, found: Observed) -> bool:
    """Tell whether a hub that no longer holds the cluster applied an object, as part of the same app."""
    return found.labels.get(HUB) in view.former_hubs and found.labels.get(PART_OF) == view.part_of


def refuse_adoption(m: Manifest, policy: Policy, found: Observed, hub_id: str) -> str | None:
    """Say why an object that existed before may not be taken; None when it may."""
    adopt = m.flags.adopt or policy.adopt
    if adopt in (Adopt.ALWAYS, Adopt.EXACT):
        return None
    if adopt is Adopt.NEVER:
        return "it exists already and `adopt` is never; set adopt: unowned, or the annotation fleet/adopt, to take it"
    if found.controller:
        return f"it is controlled by {found.controller}; manage that object instead"
    mark = foreign_mark(found, hub_id)
    return f"it is managed by {mark}; set adopt: always once that tool has let go of it" if mark else None


def foreign_mark(found: Observed, hub_id: str) -> str:
    """Name the GitOps tool whose mark an object carries; empty for none, or for what this hub itself left."""
    labels, annotations = found.labels, found.annotations
    if any(
        name.startswith(("kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/")) and name.endswith("/name")
        for name in labels
    ):
        return "Flux"
    if "argocd.argoproj.io/tracking-id" in annotations or "argocd.argoproj.io/instance" in labels:
        return "Argo CD"
    if "app.kubernetes.io/instance" in labels and any(e.manager.startswith("argocd-") for e in found.managed):
        return "Argo CD"  # its tracking by label, the default before 3.0; charts set that label, too
    if labels.get("app.kubernetes.io/managed-by") == "Helm" and "meta.helm.sh/release-name" in annotations:
        return f"Helm release {annotations['meta.helm.sh/release-name']}"
    if any(name.startswith("objectset.rio.cattle.io/") for name in (*labels, *annotations)):
        return "Rancher Fleet"
    if labels.get(HUB, hub_id) != hub_id:
        return f"another fleet hub ({labels[HUB]})"
    if PART_OF in labels and own_entry(found.managed) is None:
        return "another ApplySet"
    return ""


def _decide_missing(view: View, m: Manifest, entry: Entry, change: _Maker) -> Change:
    if not view.served(m.key.group_kind):
        return change(Action.SKIP, "MissingKind", f"the cluster no longer serves {m.key.group_kind}")
    if not view.synced(m.key.group_kind):
        return change(Action.SKIP, "NotObserved", "the watch of this kind has not shown its objects yet")
    if entry.desired != m.digest:
        return change(Action.CREATE, "Changed")
    if entry.state == "finished" or view.ended(m.key) == entry.uid:
        return change(
            Action.UNCHANGED, "Finished", "ran to its end and was removed; it runs again when its manifest changes"
        )
    return _repair(view, change, "Deleted", "was deleted by somebody")


def _decide_known(view: View, m: Manifest, entry: Entry, live: LiveObject, change: _Maker) -> Change:
    if m.flags.apply is Apply.IF_NOT_PRESENT:
        return change(Action.UNCHANGED, "IfNotPresent", "exists and is only created")
    if entry.desired != m.digest:
        return change(Action.CONFIGURE, "Changed")
    if entry.uid != live.uid:
        return _repair(view, change, "Replaced", "was deleted and created again by somebody")
    if live.part_of != view.part_of:
        return change(Action.CONFIGURE, "Labels", "carries the labels of another target")
    if m.key.group_kind in view.schema_changed:
        return change(Action.CONFIGURE, "SchemaChanged", "its schema changed since it was applied")
    if live.rv < entry.rv:
        if view.synced(m.key.group_kind):
            return change(Action.CONFIGURE, "Rewound", "it is older than what we wrote: was the cluster restored?")
        return change(Action.UNCHANGED, "NotObserved", "the watch has not shown our last write yet")
    found = find_drift(view.policy, m, entry, live) or _find_audited(view, m)
    return _repair(view, change, *found) if found is not None else change(Action.UNCHANGED, "InSync")


def _find_audited(view: View, m: Manifest) -> tuple[str, str] | None:
    """Say what the daily audit found of exactly this manifest."""
    finding = view.audited.get(m.key)
    return ("AuditDrift", finding.message) if finding is not None and finding.digest == m.digest else None


def find_drift(policy: Policy, m: Manifest | None, entry: Entry, live: LiveObject) -> tuple[str, str] | None:
    """Say how a live object differs from what we left, as a reason and a sentence; None when it does not."""
    yielded = ignored_pointers(policy.ignore, entry.key, live.scaled_by, policy.drift_managers)
    if is_taken(entry, live, yielded):
        return "Drifted", "a value that Git sets was changed"
    if added := additions(policy, m, live, yielded):
        return "Added", f"{', '.join(added)} added fields that Git does not have"
    return None


def additions(policy: Policy, m: Manifest | None, live: LiveObject, yielded: Sequence[str]) -> tuple[str, ...]:
    """Name the drift managers whose additions are to be undone: none where others may add (`fleet/ssa: merge`)."""
    if Apply.MERGE in (m.flags.apply if m is not None else None, live.flags.apply):
        return ()
    return added_by(live, policy.drift_managers, yielded)


def _repair(view: View, change: _Maker, reason: str, message: str) -> Change:
    if not view.policy.repair:
        return change(Action.SKIP, reason, f"{message}; repair is off (drift: report)")
    return change(Action.CREATE if reason == "Deleted" else Action.CONFIGURE, reason, message)


def _decide_left(view: View, key: ObjectKey) -> Change:
    entry, live = view.ledger[key], view.live(key)

    def change(action: Action, reason: str, message: str = "", *, orphan: bool = False) -> Change:
        return Change(key=key, action=action, reason=reason, message=message, entry=entry, live=live, orphan=orphan)

    if not view.served(key.group_kind):
        return change(
            Action.PRUNE, "Gone", f"the cluster no longer serves {key.group_kind}: it went with its definition"
        )
    if live is None:
        if view.synced(key.group_kind):
            return change(Action.PRUNE, "Gone", "already gone")
        return change(Action.SKIP, "NotObserved", "the watch of this kind has not shown its objects yet")
    if live.deleting:
        return change(Action.SKIP, "Terminating", _ending(live))
    if (other := view.wanted_by(key, view.target)) is not None:
        return change(Action.SKIP, "HandedOver", f"left to app {other.app}, which has it in Git now")
    if not live.ours or live.part_of != view.part_of:
        return change(Action.PRUNE, "NotOurs", "no longer carries our marks; left as it is", orphan=True)
    if entry.state == FOUND:
        return change(
            Action.SKIP,
            "RecoverPending",
            "was applied before this hub lost its records, and is not in Git; fleet recover lists it, --confirm prunes it",
        )
    keep = keep_reason(view.policy, key, live, removed=view.removed)
    if keep:
        return change(Action.PRUNE, "Orphaned", keep, orphan=True)
    return change(Action.PRUNE, "NotInGit", "no longer in Git")


def keep_reason(policy: Policy, key: ObjectKey, live: LiveObject, *, removed: bool) -> str:
    """Say why an object that left Git is let go and not deleted; empty when it is deleted."""
    if not live.flags.prune:
        return "pruning is disabled by an annotation"
    if removed and not policy.on_remove_prune:
        return "its App was removed with onRemove: orphan"
    if not removed and not policy.prune:
        return "its App has prune: false"
    if key.group_kind in KEPT_KINDS:
        return f"a {key.kind} is never deleted by itself; delete it by hand when its data may go"
    return ""
