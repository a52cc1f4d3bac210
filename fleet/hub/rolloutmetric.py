"""What rollouts take, wait for and break, as metrics: read off a run before and after it changed."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from fleet.metric import LONG_SECONDS, counter, gauge, histogram
from fleet.rollout.evolve import ENDED
from fleet.rollout.state import ClusterRun, ClusterState, Run, RunState, StageRun, StageState

ROLLOUTS = gauge("fleet_rollouts", "Newest rollouts of apps, by state.", "state")
RUN_SECONDS = histogram(
    "fleet_rollout_seconds", "From the begin of a rollout to its end.", "app", "state", buckets=LONG_SECONDS
)
STAGE_SECONDS = histogram(
    "fleet_rollout_stage_seconds",
    "From the first start in a stage to its end; gates before it not counted.",
    "app",
    "environment",
    buckets=LONG_SECONDS,
)
LEAD_SECONDS = histogram(
    "fleet_rollout_lead_seconds",
    "From a release, made when its commit was fetched and rendered, to the end of its last stage.",
    "app",
    buckets=LONG_SECONDS,
)
WAITED = counter(
    "fleet_rollout_waited_seconds_total",
    "How long stages and clusters waited, by reason: of gates, Soak and Check, and of whole rollouts, Paused;"
    " counted when a wait ends.",
    "environment",
    "reason",
)
FAILURES = counter(
    "fleet_rollout_failures_total",
    "Clusters that failed in a rollout; a reason of their objects is Degraded.",
    "app",
    "environment",
    "reason",
)

_CLUSTER_WAITS = {"Soaking": "Soak", "Checking": "Check"}
OWN_REASONS = frozenset({"DeadlineExceeded", "Unreachable", "CheckFailed"})
"""Reasons of a failed cluster that are bounded in number; objects have any."""


def count_states(newest: Iterable[Run]) -> None:
    """Set how many apps' newest rollouts are in each state."""
    states = Counter(run.state for run in newest)
    for state in RunState:
        ROLLOUTS.labels(state.value).set(states[state])


def measure(before: Run | None, after: Run, released_at: datetime) -> None:
    """Record what a change of a run tells; `released_at` is when its release was made."""
    if before is None:
        return
    for environment, reason, seconds in _list_waits(before, after):
        WAITED.labels(environment, reason).inc(max(0.0, seconds))
    for stage in after.stages:
        was = before.stage(stage.environment)
        if was is not stage and was is not None and was.state is not StageState.DONE:
            _measure_stage(after.app, stage)
    for name, part in after.clusters.items():
        known = before.clusters.get(name)
        if known is not part and part.state is ClusterState.FAILED and not (known and known.state is part.state):
            FAILURES.labels(after.app, part.environment, _bound(part.reason)).inc()
    if after.state in ENDED and after.state is not before.state and after.finished_at is not None:
        RUN_SECONDS.labels(after.app, after.state.value).observe(_between(after.created_at, after.finished_at))
        if after.state is RunState.SUCCEEDED:
            LEAD_SECONDS.labels(after.app).observe(_between(released_at, after.finished_at))


def _measure_stage(app: str, stage: StageRun) -> None:
    if stage.started_at is not None and stage.finished_at is not None:
        STAGE_SECONDS.labels(app, stage.environment).observe(_between(stage.started_at, stage.finished_at))


def _list_waits(before: Run, after: Run) -> Iterator[tuple[str, str, float]]:
    """List waits that ended, or whose reason changed: environment, reason, seconds."""
    if before.state is RunState.PAUSED and after.state is not before.state:
        yield "", "Paused", _passed(before.since, after.since)
    for stage in after.stages:
        was = before.stage(stage.environment)
        if was is None or was is stage:
            continue
        if was.state is StageState.HELD:
            yield stage.environment, was.reason, _passed(was.since, stage.since)
        elif was.state is StageState.CHECKING:
            yield stage.environment, "Check", _passed(was.since, stage.since)
    yield from _list_cluster_waits(before.clusters, after.clusters.values())


def _list_cluster_waits(known: dict[str, ClusterRun], parts: Iterable[ClusterRun]) -> Iterator[tuple[str, str, float]]:
    for part in parts:
        was = known.get(part.cluster)
        if was is None or was is part:
            continue
        if was.state is ClusterState.HELD:
            yield part.environment, was.reason, _passed(was.since, part.since)
        elif was.state is ClusterState.SOAKING and was.reason in _CLUSTER_WAITS:
            yield part.environment, _CLUSTER_WAITS[was.reason], _passed(was.since, part.since)


def _passed(since: datetime | None, until: datetime | None) -> float:
    return _between(since, until) if since is not None and until is not None else 0.0


def _between(since: datetime, until: datetime) -> float:
    return (until - since).total_seconds()


def _bound(reason: str) -> str:
    return reason if reason in OWN_REASONS else "Degraded"
