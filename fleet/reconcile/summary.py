"""What a run's report and the live cache say about a target, in counts and reasons. Pure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fleet.object import ObjectKey
from fleet.reconcile.health import Health, Verdict, has_status
from fleet.reconcile.live import LiveObject
from fleet.reconcile.plan import DRIFT_REASONS, FAILURES, SEALED, WRITES, Action, Change, find_drift
from fleet.reconcile.run import Report
from fleet.reconcile.status import Why

WAITS = frozenset({"Terminating", "MissingKind", "RecoverPending"})
"""Reasons of a skip that ends when the cluster moves on, or somebody confirms."""
OPEN = WRITES | {Action.PRUNE, Action.HAND_OVER}


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSummary:
    """One object: what the last plan says of it and how it is."""

    change: Change
    health: Health
    reason: str
    message: str
    failed: bool = False
    drifted: bool = False
    waiting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A target in counts, and the first reason of each sort."""

    total: int = 0
    current: int = 0
    drifted_count: int = 0
    failed_count: int = 0
    failed: Why | None = None
    drifted: Why | None = None
    waiting: Why | None = None
    degraded: Why | None = None
    progressing: Why | None = None
    done: bool = False
    """Everything desired is applied and Current: what a dependency waits for."""


Lookup = Callable[[ObjectKey], LiveObject | None]


def judge(live: LiveObject | None, change: Change) -> Verdict:
    """Return an object's health; a status counts only when it speaks of what we applied."""
    if live is None:
        return Verdict(Health.NOT_FOUND, "NotFound", "it is not in the cluster")
    if live.verdict is not None:
        if change.entry is not None and live.rv < change.entry.rv:
            return Verdict(Health.IN_PROGRESS, "NotObserved", "our last write has not been seen yet")
        return live.verdict
    if has_status(change.key.group_kind):
        return Verdict(Health.IN_PROGRESS, "NotObserved", "its status has not been seen yet")
    return Verdict(Health.CURRENT, "Current")


def summarise_object(report: Report, change: Change, live: LiveObject | None) -> ObjectSummary:
    """Judge one object of a report."""
    verdict = _health(change, live)
    error = report.failures.get(change.key)
    drifted = _is_drifted(report, change)
    if error is not None:
        waiting = error.reason in ("NotFound", "NamespaceTerminating")
        return ObjectSummary(
            change=change,
            health=verdict.health,
            reason=error.reason,
            message="; ".join(filter(None, (error.message, report.hints.get(change.key)))),
            failed=not waiting,
            drifted=drifted,
            waiting=waiting,
        )
    shown = change.action is Action.UNCHANGED
    return ObjectSummary(
        change=change,
        health=verdict.health,
        reason=verdict.reason if shown else change.reason,
        message=verdict.message if shown else change.message,
        failed=change.action is Action.SKIP and change.reason in FAILURES,
        drifted=drifted,
        waiting=change.action is Action.SKIP and change.reason in WAITS,
    )


def _health(change: Change, live: LiveObject | None) -> Verdict:
    if change.action is Action.SKIP and change.reason in SEALED:
        return Verdict(Health.FAILED, change.reason, change.message)
    if change.reason == "Finished":
        return Verdict(Health.CURRENT, "Finished", change.message)
    if live is None and change.reason == "IfNotPresent":
        return Verdict(Health.CURRENT, "IfNotPresent", change.message)
    if live is None and change.action is Action.SKIP and change.reason not in DRIFT_REASONS:
        return Verdict(Health.UNKNOWN, change.reason, change.message)
    return judge(live, change)


def _is_drifted(report: Report, change: Change) -> bool:
    """Tell whether an object is not as we left it; what opted out of repairs counts, too."""
    if change.reason in DRIFT_REASONS:
        return True
    if change.reason != "OptedOut" or change.entry is None or change.live is None:
        return False
    return find_drift(report.order.policy, change.manifest, change.entry, change.live) is not None


def summarise_objects(report: Report, live: Lookup) -> Iterator[ObjectSummary]:
    """Judge every object of a report, in its order."""
    return (summarise_object(report, change, live(change.key)) for change in report.changes)


def summarise_report(report: Report, live: Lookup) -> Summary:
    """Count and pick reasons: one pass over the objects."""
    objects = list(summarise_objects(report, live))
    failed = [o for o in objects if o.failed]
    staying = [o for o in objects if o.drifted and _stays(report, o)]
    waiting = [o for o in objects if o.waiting]
    judged = [o for o in objects if _counts(o)]
    not_current = [o for o in judged if o.health is not Health.CURRENT]
    broken = [o for o in not_current if o.health is Health.FAILED]
    pending = [o for o in objects if o.change.action in OPEN]
    contested = next(iter(report.contested), None)
    return Summary(
        total=len(objects),
        current=sum(o.health is Health.CURRENT for o in objects),
        drifted_count=sum(o.drifted for o in objects),
        failed_count=sum(o.failed or o.health is Health.FAILED for o in objects),
        failed=_first(failed),
        drifted=_first(staying) if contested is None else _contested(report, contested),
        waiting=_first(waiting),
        degraded=_first(broken),
        progressing=_first(pending, "Applying") or _first(not_current, "InProgress"),
        done=report.complete and not not_current,
    )


def _counts(o: ObjectSummary) -> bool:
    """Tell whether an object's health says how the target is: not when it has a worse reason, or is not ours to judge."""
    absent = o.change.reason == "OptedOut" and o.health is Health.UNKNOWN
    return o.change.manifest is not None and not o.failed and not o.waiting and not absent


def _stays(report: Report, o: ObjectSummary) -> bool:
    """Tell drift that is left as it is from drift that is about to be repaired."""
    return o.change.action is Action.SKIP or not report.order.writable or o.change.key in report.contested


def _contested(report: Report, key: ObjectKey) -> Why:
    contest = report.contested[key]
    who = f"manager {contest.manager}" if contest.manager else "somebody who deletes it"
    return Why(
        reason="Contested",
        message=f"{key}: {who} undoes every repair; let go of the field with `ignore`, or stop the other side",
    )


def _first(found: Sequence[ObjectSummary], reason: str = "") -> Why | None:
    if not found:
        return None
    first = found[0]
    others = len(found) - 1
    more = f" (and {others} more object{'' if others == 1 else 's'})" if others else ""
    return Why(reason=reason or first.reason, message=f"{first.change.key}: {first.message or first.reason}{more}")
