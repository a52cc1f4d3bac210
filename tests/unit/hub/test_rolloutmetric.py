"""Metrics of rollouts, read off a run before and after a change."""

import itertools
from datetime import UTC, datetime, timedelta

import msgspec

from fleet.hub.rolloutmetric import count_states, measure
from fleet.metric import REGISTRY
from fleet.rollout.state import ClusterRun, ClusterState, Run, RunState, StageRun, StageState

BEGAN = datetime(2030, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """A time after the begin."""
    return BEGAN + timedelta(seconds=seconds)


def value(name: str, **labels: str) -> float:
    """What a metric says; 0 before it was moved."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def run_of(app: str, *stages: StageRun, **fields: object) -> Run:
    """A run of an app that begun."""
    clusters = fields.pop("clusters", {})
    made = Run(id=1, app=app, release=2, revision="a" * 40, created_at=BEGAN, state=RunState.RUNNING, since=BEGAN)
    return msgspec.structs.replace(made, stages=stages, clusters=clusters, **fields)


def test_a_stage_is_measured_once_when_it_ends() -> None:
    """From its first start; the gates before it are a wait by their reason."""
    held = StageRun(environment="m1", state=StageState.HELD, reason="Window", since=at(0))
    going = StageRun(environment="m1", state=StageState.RUNNING, since=at(40), started_at=at(40))
    done = msgspec.structs.replace(going, state=StageState.DONE, since=at(100), finished_at=at(100))
    noted = msgspec.structs.replace(done, promoted=True)
    steps = [run_of("m-stage", stage) for stage in (held, going, done, noted)]
    for before, after in itertools.pairwise(steps):
        measure(before, after, BEGAN)
    assert value("fleet_rollout_stage_seconds_sum", app="m-stage", environment="m1") == 60
    assert value("fleet_rollout_stage_seconds_count", app="m-stage", environment="m1") == 1
    assert value("fleet_rollout_waited_seconds_total", environment="m1", reason="Window") == 40


def test_the_end_of_a_run_tells_its_length_and_the_lead_time() -> None:
    """The lead time counts from the release, and only of what succeeded."""
    going = run_of("m-run")
    done = msgspec.structs.replace(going, state=RunState.SUCCEEDED, since=at(90), finished_at=at(90))
    failed = msgspec.structs.replace(going, state=RunState.FAILED, since=at(30), finished_at=at(30))
    measure(going, done, at(-10))
    measure(going, failed, at(-10))
    measure(done, done, at(-10))
    assert value("fleet_rollout_seconds_sum", app="m-run", state="Succeeded") == 90
    assert value("fleet_rollout_seconds_sum", app="m-run", state="Failed") == 30
    assert value("fleet_rollout_lead_seconds_sum", app="m-run") == 100
    assert value("fleet_rollout_lead_seconds_count", app="m-run") == 1


def test_failures_and_waits_of_clusters_are_counted() -> None:
    """A reason that an object gave is one of a few words; a failure is counted when it comes, not while it lasts."""
    held = ClusterRun(cluster="c", environment="m2", state=ClusterState.HELD, reason="Dependency", since=at(0))
    crashed = ClusterRun(
        cluster="c", environment="m2", state=ClusterState.FAILED, reason="CrashLoopBackOff", since=at(5)
    )
    forgiven = msgspec.structs.replace(crashed, forgiven=True)
    late = msgspec.structs.replace(crashed, cluster="d", reason="DeadlineExceeded")
    steps = [run_of("m-fail", clusters=c) for c in ({"c": held}, {"c": crashed}, {"c": forgiven, "d": late})]
    measure(steps[0], steps[1], BEGAN)
    measure(steps[1], steps[2], BEGAN)
    assert value("fleet_rollout_failures_total", app="m-fail", environment="m2", reason="Degraded") == 1
    assert value("fleet_rollout_failures_total", app="m-fail", environment="m2", reason="DeadlineExceeded") == 1
    assert value("fleet_rollout_waited_seconds_total", environment="m2", reason="Dependency") == 5


def test_soaks_and_checks_are_waits() -> None:
    """A cluster soaks, then its checks are asked, then those of the stage: each for its own time, once."""
    soaking = ClusterRun(cluster="c", environment="m3", state=ClusterState.SOAKING, reason="Soaking", since=at(0))
    asked = msgspec.structs.replace(soaking, reason="Checking", since=at(60))
    sampled = msgspec.structs.replace(asked, round=1)
    done = msgspec.structs.replace(asked, state=ClusterState.DONE, reason="Healthy", since=at(70))
    checking = StageRun(environment="m3", state=StageState.CHECKING, reason="Checking", since=at(70))
    over = msgspec.structs.replace(checking, state=StageState.DONE, reason="Done", since=at(100), finished_at=at(100))
    steps = [
        run_of("m-soak", clusters={"c": soaking}),
        run_of("m-soak", clusters={"c": asked}),
        run_of("m-soak", clusters={"c": sampled}),
        run_of("m-soak", checking, clusters={"c": done}),
        run_of("m-soak", over, clusters={"c": done}),
    ]
    for before, after in itertools.pairwise(steps):
        measure(before, after, BEGAN)
    assert value("fleet_rollout_waited_seconds_total", environment="m3", reason="Soak") == 60
    assert value("fleet_rollout_waited_seconds_total", environment="m3", reason="Check") == 40


def test_a_pause_is_a_wait_of_the_whole_run() -> None:
    """Counted when somebody ends it."""
    before = value("fleet_rollout_waited_seconds_total", environment="", reason="Paused")
    paused = run_of("m-pause", state=RunState.PAUSED, since=at(0))
    measure(paused, msgspec.structs.replace(paused, state=RunState.RUNNING, since=at(25)), BEGAN)
    assert value("fleet_rollout_waited_seconds_total", environment="", reason="Paused") == before + 25


def test_rollouts_are_counted_by_state() -> None:
    """A state that none has is zero."""
    count_states([run_of("a"), run_of("b"), run_of("c", state=RunState.PAUSED)])
    assert (value("fleet_rollouts", state="Running"), value("fleet_rollouts", state="Paused")) == (2, 1)
    count_states([])
    assert value("fleet_rollouts", state="Running") == 0
