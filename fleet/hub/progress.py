"""How one target stands: its last run, what it waits for, and the state and reason that follow. No I/O."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from fleet.errors import FleetError, KubeError, SealError, ServerFailure, Throttled, Unreachable
from fleet.hub.supply import Supply
from fleet.object import ObjectKey, TargetId
from fleet.reconcile.live import LiveObject
from fleet.reconcile.plan import WRITES, Action
from fleet.reconcile.run import Desired, Report
from fleet.reconcile.status import Condition, Facts, State, Why, decide_state
from fleet.reconcile.summary import Summary, summarise_report

PASSING = (Unreachable, Throttled, ServerFailure)
"""Errors of a run that the cluster's own state tells better."""
WAITING = frozenset({"NotFetched"})
"""Reasons why nothing can be desired yet, which are no failures."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """The mutable record of one target while its cluster's session lasts."""

    target: TargetId
    admitted: Desired | None = None
    """What it is being made equal to: the supply's, once dependencies allow."""
    gate: Why | None = None
    """Why the newest release is not admitted yet."""
    report: Report | None = None
    error: FleetError | None = None
    """Why the last run did not end."""
    errors: int = 0
    """Runs in a row that did not end."""
    summary: Summary = field(default_factory=Summary)
    condition: Condition = Condition(state=State.UNKNOWN, reason="NotContacted", message="")
    since: datetime | None = None
    prune_now: bool = False

    def take(self, report: Report, live: Callable[[ObjectKey], LiveObject | None]) -> None:
        """Take in what a run did. Whoever looks never sees it beside a summary of the run before."""
        self.report = report
        self.summarise(live)

    def summarise(self, live: Callable[[ObjectKey], LiveObject | None]) -> None:
        """Count once more what the last report and the cache say."""
        if self.report is not None:
            self.summary = summarise_report(self.report, live)

    def is_done(self, desired: Desired | None) -> bool:
        """Tell whether everything of this release is applied and Current: what a dependency waits for."""
        report = self.report
        return desired is not None and report is not None and report.order.desired is desired and self.summary.done


def judge(progress: Progress, supply: Supply | None, paused: Why | None) -> Condition:
    """Decide the state of a target whose cluster is observed; first match wins (design §1)."""
    summary, report = progress.summary, progress.report
    return decide_state(
        Facts(
            contacted=True,
            failed=_failed(progress, supply) or summary.failed,
            paused=paused,
            drifted=summary.drifted,
            waiting=_held(progress)
            or progress.gate
            or _undelivered(supply)
            or (supply.pending if supply else None)
            or summary.waiting
            or _report_only(progress),
            degraded=_unopened(progress, supply) or summary.degraded,
            progressing=_retrying(progress)
            or summary.progressing
            or (Why(reason="Starting", message="the first look at the cluster is under way") if not report else None),
        )
    )


def _failed(progress: Progress, supply: Supply | None) -> Why | None:
    failure = supply.failure if supply else None
    if failure is not None and failure.reason not in WAITING and not isinstance(failure, SealError):
        return Why(reason=failure.reason, message=f"{failure}{_kept(progress, supply)}")
    error = progress.error
    if error is not None and not isinstance(error, PASSING):
        return Why(reason=error.reason, message=str(error))
    return None


def _unopened(progress: Progress, supply: Supply | None) -> Why | None:
    """A build whose sealed sources do not open here changes nothing: what runs goes on."""
    failure = supply.failure if supply else None
    if not isinstance(failure, SealError):
        return None
    return Why(reason=failure.reason, message=f"{failure}{_kept(progress, supply)}")


def _kept(progress: Progress, supply: Supply | None) -> str:
    kept = progress.admitted
    return f"; the clusters keep {supply.target.id.app}#{kept.release}" if kept and supply else ""


def _undelivered(supply: Supply | None) -> Why | None:
    failure = supply.failure if supply else None
    if failure is None or isinstance(failure, SealError):
        return None
    return Why(reason=failure.reason, message=failure.message)


def _held(progress: Progress) -> Why | None:
    held = progress.report.held if progress.report is not None else None
    return Why(reason=held.reason, message=held.message) if held is not None else None


def _retrying(progress: Progress) -> Why | None:
    if isinstance(progress.error, KubeError):
        return Why(reason=progress.error.reason, message=f"{progress.error}; it is tried again")
    return None


def _report_only(progress: Progress) -> Why | None:
    report = progress.report
    if report is None or report.order.policy.write:
        return None
    pending = [c for c in report.changes if c.action in WRITES or c.action in (Action.PRUNE, Action.HAND_OVER)]
    if not pending:
        return None
    first = f"{pending[0].key}: {pending[0].action.value}"
    more = f" (and {len(pending) - 1} more)" if len(pending) > 1 else ""
    way_on = "see fleet diff"
    if report.order.removed:
        way_on = "to end it put the App back, without apply: report or with onRemove: orphan, and remove it again"
    return Why(
        reason="ReportOnly",
        message=f"{len(pending)} changes are shown and not made (apply: report); {first}{more}; {way_on}",
    )
