"""What a report and the cache say about a target."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fleet.errors import FleetError, Forbidden, Invalid, NotFound
from fleet.kube.ownership import FieldSet, digest_fields
from fleet.kube.wire import ManagedEntry, Observed
from fleet.object import Manifest, ObjectKey
from fleet.reconcile.drift import Contest
from fleet.reconcile.health import Health, Verdict
from fleet.reconcile.live import LiveObject, summarise
from fleet.reconcile.plan import Action, Change
from fleet.reconcile.port import Policy
from fleet.reconcile.run import Order, Report
from fleet.reconcile.summary import Summary, judge, summarise_object, summarise_report
from fleet.store.ledger import Entry

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = ObjectKey("", "ConfigMap", "shop", "a")
WEB = ObjectKey("apps", "Deployment", "shop", "web")
OURS = FieldSet.of([("f:data", "f:k")])
UID = "00000000-0000-4000-8000-000000000001"


def a_live(verdict: Verdict | None = None, *, rv: int = 10, fields: FieldSet = OURS) -> LiveObject:
    """An object in the cache."""
    managed = (ManagedEntry(manager="fleet", operation="Apply", api_version="v1", fields=fields.serialise()),)
    seen = Observed(key=CONFIG, version="v1", uid=UID, rv=rv, managed=managed, labels={"fleet/hub": "hub"})
    live = summarise(seen, "hub", NOW)
    known = {name: getattr(live, name) for name in live.__struct_fields__}
    return LiveObject(**{**known, "verdict": verdict})


def a_change(action: Action, reason: str, *, key: ObjectKey = CONFIG, **more: Any) -> Change:
    """One line of a plan, desired and applied before."""
    manifest = Manifest(key=key, version="v1", body=b"{}", digest=b"one")
    entry = Entry(key=key, version="v1", desired=b"one", owned=digest_fields(OURS), uid=UID, rv=10, applied_at=NOW)
    return Change(
        key=key, action=action, reason=reason, message="why", **{"manifest": manifest, "entry": entry, **more}
    )


def a_report(*changes: Change, policy: Policy | None = None, writable: bool = True, **more: Any) -> Report:
    """What a run found."""
    order = Order(policy=policy or Policy(), desired=None, writable=writable)
    return Report(order=order, changes=changes, **more)


def summarised(report: Report, live: LiveObject | None) -> Summary:
    """Summarise with one object in the cache."""
    return summarise_report(report, lambda _: live)


def reasons(summary: Summary) -> set[str]:
    """Which sorts of reasons a summary has."""
    names = ("failed", "drifted", "waiting", "degraded", "progressing")
    return {name for name in names if getattr(summary, name) is not None}


CURRENT = Verdict(Health.CURRENT, "Current")
BROKEN = Verdict(Health.FAILED, "CrashLoopBackOff", "pod web-1 crashes")
STARTING = Verdict(Health.IN_PROGRESS, "InProgress", "0 of 1 replicas are ready")
SYNC = a_change(Action.UNCHANGED, "InSync")
WEB_SYNC = a_change(Action.UNCHANGED, "InSync", key=WEB)


@pytest.mark.parametrize(
    ("change", "live", "health"),
    [
        (SYNC, None, Health.NOT_FOUND),
        (SYNC, a_live(), Health.CURRENT),
        (WEB_SYNC, a_live(), Health.IN_PROGRESS),
        (WEB_SYNC, a_live(CURRENT), Health.CURRENT),
        (WEB_SYNC, a_live(CURRENT, rv=9), Health.IN_PROGRESS),
        (WEB_SYNC, a_live(BROKEN), Health.FAILED),
        (a_change(Action.UNCHANGED, "InSync", key=WEB, entry=None), a_live(CURRENT, rv=9), Health.CURRENT),
    ],
)
def test_a_status_counts_when_it_speaks_of_our_write(change: Change, live: LiveObject | None, health: Health) -> None:
    """What is older than our write, or was not seen yet, is InProgress."""
    assert judge(live, change).health is health


SKIP = Action.SKIP
CASES: dict[str, tuple[Report, LiveObject | None, set[str]]] = {
    "in sync": (a_report(SYNC, complete=True), a_live(), set()),
    "starting": (a_report(WEB_SYNC, complete=True), a_live(STARTING), {"progressing"}),
    "broken": (a_report(WEB_SYNC, complete=True), a_live(BROKEN), {"degraded", "progressing"}),
    "to be written": (a_report(a_change(Action.CONFIGURE, "Changed")), a_live(), {"progressing"}),
    "to be pruned": (a_report(a_change(Action.PRUNE, "NotInGit", manifest=None)), a_live(), {"progressing"}),
    "to be repaired": (a_report(a_change(Action.CONFIGURE, "Drifted")), a_live(), {"progressing"}),
    "not to be repaired": (a_report(a_change(SKIP, "Drifted")), a_live(), {"drifted"}),
    "paused and drifted": (
        a_report(a_change(Action.CONFIGURE, "Drifted"), writable=False),
        a_live(),
        {"drifted", "progressing"},
    ),
    "contested": (
        a_report(a_change(Action.CONFIGURE, "Drifted"), contested={CONFIG: Contest(rounds=5, manager="rival")}),
        a_live(),
        {"drifted", "progressing"},
    ),
    "opted out": (a_report(a_change(SKIP, "OptedOut", live=a_live())), a_live(), set()),
    "opted out and drifted": (
        a_report(a_change(SKIP, "OptedOut", live=a_live(rv=11, fields=FieldSet({})))),
        a_live(),
        {"drifted"},
    ),
    "opted out and absent": (a_report(a_change(SKIP, "OptedOut")), None, set()),
    "owned elsewhere": (a_report(a_change(SKIP, "OwnedElsewhere")), None, {"failed"}),
    "a hook": (a_report(a_change(SKIP, "HookUnsupported")), None, {"failed"}),
    "being deleted": (a_report(a_change(SKIP, "Terminating")), a_live(), {"waiting"}),
    "of a missing kind": (a_report(a_change(SKIP, "MissingKind")), None, {"waiting"}),
    "not seen": (a_report(a_change(SKIP, "NotObserved")), None, {"progressing"}),
    "finished": (a_report(a_change(Action.UNCHANGED, "Finished")), None, set()),
    "only created": (a_report(a_change(Action.UNCHANGED, "IfNotPresent")), None, set()),
    "left to another app": (a_report(a_change(SKIP, "HandedOver", manifest=None)), a_live(), set()),
}


@pytest.mark.parametrize("name", CASES)
def test_sorts_of_reasons(name: str) -> None:
    """Each way an object can be gives the target the reasons that its state is decided from."""
    report, live, expected = CASES[name]
    assert reasons(summarised(report, live)) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Invalid("spec.x: wrong"), {"failed", "progressing"}),
        (Forbidden("no", reason="NamespaceTerminating"), {"waiting", "progressing"}),
        (NotFound("no namespace", what="namespace"), {"waiting", "progressing"}),
    ],
)
def test_failures_and_waiting(error: FleetError, expected: set[str]) -> None:
    """A missing namespace is waited for; every other refusal is a failure, told in the server's words."""
    change = a_change(Action.CREATE, "Absent", entry=None)
    summary = summarised(a_report(change, failures={CONFIG: error}), None)
    assert reasons(summary) == expected
    why = summary.failed or summary.waiting
    assert why is not None
    assert error.message in why.message
    assert summary.failed_count == ("failed" in expected)


def test_counts() -> None:
    """Objects are counted once each, and the first of several reasons says how many more there are."""
    keys = [CONFIG._replace(name=name) for name in "abc"]
    changes = [a_change(SKIP, "Drifted", key=key) for key in keys]
    summary = summarised(a_report(*changes, SYNC), a_live())
    assert (summary.total, summary.current, summary.drifted_count, summary.failed_count) == (4, 4, 3, 0)
    assert summary.drifted is not None
    assert summary.drifted.message.endswith("(and 2 more objects)")


def test_done_is_applied_and_current() -> None:
    """A dependency waits for both."""
    assert summarised(a_report(WEB_SYNC, complete=True), a_live(CURRENT)).done
    assert not summarised(a_report(WEB_SYNC, complete=True), a_live(STARTING)).done
    assert not summarised(a_report(WEB_SYNC, complete=False), a_live(CURRENT)).done


@pytest.mark.parametrize("manager", ["rival", ""])
def test_a_fight_names_the_other_side(manager: str) -> None:
    """The reason says who, and how to end it."""
    drifted = a_change(Action.CONFIGURE, "Drifted")
    report = a_report(drifted, contested={CONFIG: Contest(rounds=5, manager=manager)})
    why = summarised(report, a_live()).drifted
    assert why is not None
    assert why.reason == "Contested"
    assert (manager or "somebody who deletes it") in why.message


def test_one_object_tells_its_plan_or_its_health() -> None:
    """An unchanged object shows its health's words, any other one the plan's."""
    assert summarise_object(a_report(), WEB_SYNC, a_live(BROKEN)).message == "pod web-1 crashes"
    assert (
        summarise_object(a_report(), replace(WEB_SYNC, action=SKIP, reason="Drifted"), a_live(BROKEN)).message == "why"
    )
