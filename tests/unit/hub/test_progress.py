"""The state of a target from its last run and what it waits for."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fleet.errors import FleetError, Forbidden, RenderError, Unreachable
from fleet.hub.progress import Progress, judge
from fleet.object import ObjectKey, TargetId
from fleet.reconcile.plan import Action, Change
from fleet.reconcile.port import Policy
from fleet.reconcile.run import Order, Report
from fleet.reconcile.status import Why
from fleet.reconcile.summary import Summary

KEY = ObjectKey("", "ConfigMap", "default", "settings")
DONE = Summary(total=1, current=1, done=True)
PENDING = Change(key=KEY, action=Action.CONFIGURE, reason="Changed")


def a_progress(summary: Summary = DONE, *changes: Change, policy: Policy | None = None) -> Progress:
    """A target whose last run found this."""
    order = Order(policy=policy or Policy(), desired=None)
    report = Report(order=order, changes=changes, complete=not changes)
    return Progress(
        target=TargetId("one", "shop"), report=report, summary=summary, since=datetime(2026, 1, 1, tzinfo=UTC)
    )


def failing(error: FleetError) -> Progress:
    """A target whose last run did not end."""
    progress = a_progress()
    progress.error = error
    return progress


def gated() -> Progress:
    """A target that waits for a dependency."""
    progress = a_progress()
    progress.gate = Why(reason="DependencyNotReady", message="waits")
    return progress


DRIFTED = replace(DONE, done=False, drifted=Why(reason="Drifted", message="changed"))
REPAIRING = replace(DRIFTED, drifted=None, progressing=Why(reason="Applying", message="being repaired"))
CASES: dict[str, tuple[Callable[[], Progress], str, str]] = {
    "in sync": (a_progress, "Synced", "Synced"),
    "never run": (lambda: Progress(target=TargetId("one", "shop")), "Progressing", "Starting"),
    "refused": (lambda: failing(Forbidden("no")), "Failed", "Forbidden"),
    "unreachable": (lambda: failing(Unreachable("down")), "Progressing", "Unreachable"),
    "gated": (gated, "Waiting", "DependencyNotReady"),
    "drift under repair": (lambda: a_progress(REPAIRING, PENDING), "Progressing", "Applying"),
    "drift left": (lambda: a_progress(DRIFTED, policy=Policy(repair=False)), "Drifted", "Drifted"),
    "report only": (lambda: a_progress(DONE, PENDING, policy=Policy(write=False)), "Waiting", "ReportOnly"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_state_follows_from_what_is_known(case: str) -> None:
    """First match wins, as the design's list has it."""
    make, state, reason = CASES[case]
    condition = judge(make(), None, None)
    assert (condition.state.value, condition.reason) == (state, reason)


def test_a_pause_hides_all_but_failures() -> None:
    """Paused stands before drift and waiting, after Failed."""
    paused = Why(reason="Paused", message="audit")
    assert judge(gated(), None, paused).state.value == "Paused"
    assert judge(failing(RenderError([])), None, paused).state.value == "Failed"
