"""Whether a prune takes so much that a person must say so first: the mass-change guard (design §4). Pure.

What would be deleted is written as marks, `UID KIND NAMESPACE/NAME`. An approval is bound to them: it covers what is left
of them after some are gone, and nothing that came later under the same names.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fleet.annotation import FORCE
from fleet.errors import FleetError
from fleet.object import ObjectKey, TargetId
from fleet.reconcile.plan import Action, Change

MANY = 5
SHARE = 4
"""More than one in so many of a cluster's objects."""
SHOWN = 3
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stakes:
    """What one target's prune would take, and what goes on beside it on the cluster."""

    target: TargetId
    doomed: frozenset[str]
    """Marks of the objects that the prune would delete."""
    whole: bool = False
    """Nothing of the app would stay or move to another app, and more than one object of it is deleted."""
    empty: bool = False
    """The app renders to nothing."""
    approved: frozenset[str] = frozenset()
    """Marks that a person agreed to, for this target."""
    beside: int = 0
    """Objects that the cluster's other targets are about to lose, and those already deleted by an approval."""
    total: int = 0
    """Objects that the cluster's targets hold, together with those already deleted by an approval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPrune:
    """A prune that waits for approval."""

    reason: str
    """`MassChange` or `EmptyRender`."""
    message: str
    digest: str
    """Of what would be deleted; an approval names it."""
    doomed: tuple[str, ...]
    """Marks, sorted by object."""
    total: int


def mark_of(uid: str, key: ObjectKey) -> str:
    """Name one object in one of its lives.

    >>> mark_of("u1", ObjectKey("", "ConfigMap", "shop", "a"))
    'u1 ConfigMap shop/a'
    """
    return f"{uid} {key}"


def object_of(mark: str) -> str:
    """Return the object of a mark, without its uid."""
    return mark.partition(" ")[2]


def digest_of(marks: Iterable[str]) -> str:
    """Return 16 hex digits that change with every object of the set."""
    return hashlib.sha256("\n".join(sorted(marks)).encode()).hexdigest()[:16]


def doomed_of(changes: Iterable[Change]) -> frozenset[str]:
    """List what a plan deletes: not what it lets go, and not what is gone already."""
    return frozenset(
        mark_of(change.live.uid, change.key)
        for change in changes
        if change.action is Action.PRUNE and not change.orphan and change.live is not None and change.reason != "Gone"
    )


def takes_whole(changes: Iterable[Change]) -> bool:
    """Tell whether a plan leaves nothing of an app and deletes more than one object of it."""
    listed = list(changes)
    ending = sum(change.manifest is None and change.reason == "Terminating" for change in listed)
    pruned = sum(change.action is Action.PRUNE for change in listed)
    return ending + pruned == len(listed) and ending + len(doomed_of(listed)) > 1


def decide_held(stakes: Stakes) -> HeldPrune | None:
    """Hold a prune that is too much to happen by accident; None when it may go on."""
    if not stakes.doomed or stakes.doomed <= stakes.approved:
        return None
    count = len(stakes.doomed) + stakes.beside
    many = count > MANY and count * SHARE > stakes.total
    if stakes.empty:
        return _held(stakes, "EmptyRender", "the app renders to nothing, which")
    if stakes.whole:
        return _held(stakes, "MassChange", "nothing of the app would stay: this")
    if many:
        share = f"with {stakes.beside} of other apps, more" if stakes.beside else "more"
        return _held(stakes, "MassChange", f"{share} than a quarter of the cluster's objects: this")
    return None


def _held(stakes: Stakes, reason: str, why: str) -> HeldPrune:
    doomed = tuple(sorted(stakes.doomed, key=object_of))
    digest = digest_of(doomed)
    shown = ", ".join(map(object_of, doomed[:SHOWN]))
    more = f" and {len(doomed) - SHOWN} more" if len(doomed) > SHOWN else ""
    message = (
        f"{why} would delete {len(doomed)} of the {stakes.total} objects on {stakes.target.cluster} ({shown}{more});"
        f" put them back in Git, or allow it: fleet approve {stakes.target} --digest {digest} --reason TEXT"
    )
    return HeldPrune(reason=reason, message=message, digest=digest, doomed=doomed, total=stakes.total)


def explain_refusals(
    target: TargetId, changes: Sequence[Change], failures: Mapping[ObjectKey, FleetError]
) -> Mapping[ObjectKey, str]:
    """Say, per failed object, what a person can do about its refusal, as far as it can be known.

    A refusal may name an object that is about to be pruned: it may be what stands in the way. A name that the failed
    object has, too, says nothing.
    """
    prunes = [change.key for change in changes if change.action is Action.PRUNE]
    hints = {}
    for key, error in failures.items():
        if error.reason == "ImmutableField":
            hints[key] = (
                f"to have it deleted and created again, with all it holds, annotate it with {FORCE[0]}: enabled"
            )
            continue
        words = set(_NAME.findall(error.message))
        named = next((p for p in prunes if p.name in words and p.name != key.name), None)
        if named is not None:
            hints[key] = (
                f"it names {named}, which left Git and is pruned after everything else is applied;"
                f" to have that first: fleet prune {target} --now --reason TEXT"
            )
    return hints
