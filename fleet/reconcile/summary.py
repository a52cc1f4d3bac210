"""What a run's report and the live cache say about a target, in counts and reasons. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fleet.object import ObjectKey
from fleet.reconcile.health import Health, Verdict, has_status
from fleet.reconcile.live import LiveObject
from fleet.reconcile.plan import DRIFT_REASONS, FAILURES, WRITES, Action, Change
from fleet.reconcile.status import Why
from fleet.reconcile.target import Report


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
    error = report.failures.get(change.key)
    if change.action is Action.SKIP and change.reason in ("OptedOut", "MissingKind", *FAILURES):
        health = judge(live, change).health if live is not None else Health.UNKNOWN
    else:
        verdict = judge(live, change)
        health = verdict.health
    drifted = change.reason in DRIFT_REASONS or (change.reason == "OptedOut" and live is not None)
    if error is not None:
        waiting = error.reason in ("NotFound", "NamespaceTerminating")
        return ObjectSummary(
            change=change,
            health=health,
            reason=error.reason,
            message=error.message,
            failed=not waiting,
            waiting=waiting,
        )
    if change.action is Action.SKIP:
        return ObjectSummary(
            change=change,
            health=health,
            reason=change.reason,
            message=change.message,
            failed=change.reason in FAILURES,
            drifted=change.reason in DRIFT_REASONS,
            waiting=change.reason in ("Terminating", "MissingKind"),
        )
    if change.action in WRITES or change.action in (Action.PRUNE, Action.HAND_OVER):
        return ObjectSummary(
            change=change, health=health, reason=change.reason, message=change.message, drifted=drifted
        )
    verdict = (
        judge(live, change) if change.reason != "Finished" else Verdict(Health.CURRENT, "Finished", change.message)
    )
    return ObjectSummary(change=change, health=verdict.health, reason=verdict.reason, message=verdict.message)


def summarise_objects(report: Report, live: Lookup) -> Iterator[ObjectSummary]:
    """Judge every object of a report, in its order."""
    return (summarise_object(report, change, live(change.key)) for change in report.changes)


def summarise_report(report: Report, live: Lookup) -> Summary:
    """Count and pick reasons: one pass over the objects."""
    objects = list(summarise_objects(report, live))
    unhealthy = [o for o in objects if o.change.manifest is not None and not o.failed and not o.waiting]
    not_current = [o for o in unhealthy if o.health is not Health.CURRENT]
    pending = [o for o in objects if o.change.action in WRITES or o.change.action in (Action.PRUNE, Action.HAND_OVER)]
    contested = next(iter(report.contested), None)
    return Summary(
        total=len(objects),
        current=sum(o.health is Health.CURRENT for o in objects),
        drifted_count=sum(o.drifted for o in objects),
        failed_count=sum(o.failed or o.health is Health.FAILED for o in objects),
        failed=_first((o for o in objects if o.failed), len([o for o in objects if o.failed])),
        drifted=_contested(report, contested)
        if contested is not None
        else _first((o for o in objects if o.drifted), sum(o.drifted for o in objects)),
        waiting=_first((o for o in objects if o.waiting), sum(o.waiting for o in objects)),
        degraded=_first((o for o in not_current if o.health is Health.FAILED), 1),
        progressing=_first(iter(pending), len(pending), "Applying")
        or _first(iter(not_current), len(not_current), "InProgress"),
        done=report.complete and not not_current,
    )


def _contested(report: Report, key: ObjectKey) -> Why:
    contest = report.contested[key]
    who = f"manager {contest.manager}" if contest.manager else "somebody who deletes it"
    return Why(
        reason="Contested",
        message=f"{key}: {who} undoes every repair; let go of the field with `ignore`, or stop the other side",
    )


def _first(found: Iterator[ObjectSummary], count: int, reason: str = "") -> Why | None:
    first = next(found, None)
    if first is None:
        return None
    more = f" (and {count - 1} more objects)" if count > 1 else ""
    return Why(reason=reason or first.reason, message=f"{first.change.key}: {first.message or first.reason}{more}")
