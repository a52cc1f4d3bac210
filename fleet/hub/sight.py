"""What is seen of the clusters of rollouts: from feed, sessions and progress, with times of a clock that never jumps."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypedDict

from fleet.errors import FleetError, OnChange
from fleet.hub.progress import Progress
from fleet.hub.session import Session
from fleet.hub.supervisor import Supervisor
from fleet.hub.supply import Supply
from fleet.inventory.value import Target
from fleet.object import TargetId
from fleet.reconcile.plan import FAILURES, Action
from fleet.reconcile.status import State
from fleet.rollout.state import WAITING, ClusterRun, ClusterState, Run, Seen, StageState

SLACK_S = 0.1
"""Past the moment at which a cluster that does not answer counts as not reachable."""


class _Durations(TypedDict):
    healthy_for_s: float | None
    unhealthy_for_s: float


BEGINS = frozenset({ClusterState.APPLYING, ClusterState.PENDING, ClusterState.ROLLED_BACK})
"""States with which the time of a cluster begins anew."""


@dataclass(slots=True)
class _Times:
    """Of one target: since when it is watched, was healthy last, and has been healthy without a break."""

    unhealthy_since: float
    healthy_since: float | None = None


class Sight:
    """Watches targets on behalf of rollouts."""

    def __init__(self, supervisor: Callable[[], Supervisor], unreachable_after_s: float) -> None:
        self._supervisor = supervisor
        self._unreachable_after_s = unreachable_after_s
        self._times: dict[TargetId, _Times] = {}
        self._started: dict[tuple[str, str], float] = {}
        self._stage_began: dict[tuple[str, str], float] = {}

    def begin(self, run: Run) -> None:
        """Forget the times of an app's earlier run."""
        for target in [t for t in self._times if t.app == run.app]:
            del self._times[target]
        self.forget_stage_times(run)
        for stage in run.stages:
            self._started.pop((run.app, stage.environment), None)

    def forget_stage_times(self, run: Run) -> None:
        """Let the deadlines of stages begin anew: somebody looked after the run."""
        for stage in run.stages:
            self._stage_began.pop((run.app, stage.environment), None)

    def take(self, before: Run, after: Run) -> None:
        """Note which clusters and stages began something, whoever changed the run."""
        now = _now()
        for name, part in after.clusters.items():
            was = before.clusters.get(name)
            if part.state in BEGINS and (was is None or was.state is not part.state):
                self._times[TargetId(name, after.app)] = _Times(now)
                if part.state is ClusterState.APPLYING:
                    self._started[after.app, part.environment] = now
        for stage in after.stages:
            known = before.stage(stage.environment)
            if stage.state is StageState.RUNNING and (known is None or known.state is not StageState.RUNNING):
                self._stage_began.setdefault((after.app, stage.environment), now)

    def since_start_s(self, run: Run) -> Mapping[str, float]:
        """Return the seconds since a cluster of each stage was started last, as far as is known."""
        return self._ages(run, self._started)

    def stage_for_s(self, run: Run) -> Mapping[str, float]:
        """Return the seconds since each stage began; one that was going on when the hub started begins anew."""
        for stage in run.stages:
            if stage.state in (StageState.RUNNING, StageState.CHECKING):
                self._stage_began.setdefault((run.app, stage.environment), _now())
        return self._ages(run, self._stage_began)

    def _ages(self, run: Run, since: Mapping[tuple[str, str], float]) -> Mapping[str, float]:
        now = _now()
        names = [s.environment for s in run.stages]
        return {name: now - since[run.app, name] for name in names if (run.app, name) in since}

    def note(self, target: TargetId, number: int | None) -> None:
        """Take news of a target: a break of its health is noticed however short it was."""
        times = self._times.get(target)
        if times is None:
            times = self._times[target] = _Times(_now())
        supply, session = self._supervisor().feed.supplies.get(target), self._supervisor().sessions.get(target.cluster)
        progress = session.progress.get(target) if session is not None else None
        healthy = (
            session is not None
            and self._is_reachable(session)
            and _is_acknowledged(supply, progress, number)
            and progress is not None
            and progress.summary.done
        )
        if healthy and times.healthy_since is None:
            times.healthy_since = _now()
        elif not healthy and times.healthy_since is not None:
            times.healthy_since, times.unhealthy_since = None, _now()

    def see(self, target: TargetId, part: ClusterRun, number: int | None) -> Seen | None:
        """Say how a cluster is, that was given release `number`; None when it is no target any more."""
        supervisor = self._supervisor()
        inventory = supervisor.inventory
        known = inventory.targets.get(target) if inventory is not None else None
        if known is None:
            return None
        supply, session = supervisor.feed.supplies.get(target), supervisor.sessions.get(target.cluster)
        hold = supervisor.feed.hold_of(known)
        held = f"held at {target.app}#{hold.release} by {hold.actor}: {hold.reason}" if hold is not None else ""
        if session is None:
            return Seen(held=held)
        self.note(target, number)
        if session.link is not None and session.link.brakes.paused(target) is not None:
            self._times[target].unhealthy_since = _now()  # whoever paused it is not late
        progress = session.progress.get(target)
        given = supply is not None and progress is not None and _is_given(supply, progress, number)
        reason, failure = _failure(progress) if progress is not None and given else ("", "")
        return Seen(
            reachable=self._reachable(session, progress, part),
            unreachable_for_s=session.away_s,
            known_in_s=max(0.0, self._unreachable_after_s - session.away_s) + SLACK_S,
            held=held or _drained(session, target),
            dependency=self._dependency(known, session, part) if part.state in WAITING else "",
            acknowledged=_is_acknowledged(supply, progress, number),
            failure=failure,
            failure_reason=reason,
            broken=progress is not None and progress.condition.state in (State.DEGRADED, State.FAILED),
            problem=_problem(progress) if progress is not None and part.state not in WAITING else "",
            **self._durations(target),
        )

    def _durations(self, target: TargetId) -> _Durations:
        times, now = self._times[target], _now()
        if times.healthy_since is None:
            return {"healthy_for_s": None, "unhealthy_for_s": now - times.unhealthy_since}
        return {"healthy_for_s": now - times.healthy_since, "unhealthy_for_s": 0.0}

    def _is_reachable(self, session: Session) -> bool:
        return session.link is not None and session.trouble is None

    def _reachable(self, session: Session, progress: Progress | None, part: ClusterRun) -> bool | None:
        if self._is_reachable(session):
            # connected is not yet looked at: what a target is like is known once it had a run
            return True if part.state not in WAITING or progress is None or progress.since is not None else None
        return False if session.away_s > self._unreachable_after_s else None

    def _dependency(self, known: Target, session: Session, part: ClusterRun) -> str:
        """Say what a cluster that was not started waits for on its own."""
        feed = self._supervisor().feed
        paused = session.link.brakes.paused(known.id) if session.link is not None else None
        if paused is not None:
            return f"paused: {paused.message}"
        row = feed.rows.get(known.id)
        if part.before and row is not None and not row.applied_release:
            return f"it gets {known.id.app}#{part.before} first"
        for needed in known.depends_on:
            other, progress = feed.supplies.get(needed), session.progress.get(needed)
            if other is None or progress is None or not progress.is_done(other.desired):
                return f"waiting for app {needed.app}; see fleet status {needed}"
        return ""


def _drained(session: Session, target: TargetId) -> str:
    drain = session.link.brakes.drained(target) if session.link is not None else None
    return f"drained by {drain.actor}: {drain.reason}" if drain is not None else ""


def _is_given(supply: Supply | None, progress: Progress, number: int | None) -> bool:
    """Tell whether the last run was for the release that the rollout gave."""
    report = progress.report
    desired = supply.desired if supply is not None else None
    return report is not None and desired is not None and report.order.desired is desired and desired.release == number


def _is_acknowledged(supply: Supply | None, progress: Progress | None, number: int | None) -> bool:
    return (
        progress is not None
        and _is_given(supply, progress, number)
        and progress.report is not None
        and progress.report.complete
    )


def _failure(progress: Progress) -> tuple[str, str]:
    """Return reason and message of what will not mend by itself; empty when there is nothing of that sort."""
    report, summary = progress.report, progress.summary
    if summary.degraded is not None:
        return summary.degraded.reason, summary.degraded.message
    for key, error in (report.failures if report is not None else {}).items():
        if _is_final(error):
            return error.reason, f"{key}: {error.message}"
    for change in report.changes if report is not None else ():
        if change.action is Action.SKIP and change.reason in FAILURES:
            return change.reason, f"{change.key}: {change.message}"
    return "", ""


def _is_final(error: FleetError) -> bool:
    return isinstance(error.retry, OnChange)


def _problem(progress: Progress) -> str:
    """Say what is not as it should be."""
    if progress.error is not None:
        return str(progress.error)
    summary = progress.summary
    why = summary.failed or summary.degraded or summary.waiting or summary.progressing
    if progress.gate is not None:
        why = progress.gate
    return why.message if why is not None else ""


def _now() -> float:
    return asyncio.get_running_loop().time()
