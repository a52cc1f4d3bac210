"""What a run waits for, gate by gate and in one sentence."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from fleet.rollout.outlook import Gate, cluster_gates, cut_batches, describe_wait, members_of, stage_gates
from fleet.rollout.policy import (
    Amount,
    Approval,
    Check,
    HttpProbe,
    OnUnreachable,
    Policy,
    StagePolicy,
    Window,
)
from fleet.rollout.state import (
    ClusterRun,
    ClusterState,
    Facts,
    Given,
    Run,
    RunState,
    Sample,
    Seen,
    StageRun,
    StageState,
)

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
NEVER_NOW = Window(cron="0 6 * * *", duration_s=3600, timezone="UTC", reason="mornings")
NOON = Window(cron="0 12 * * *", duration_s=1800, timezone="UTC", reason="lunch")
ERRORS = Check(name="errors", question=HttpProbe(url="http://x"), count=3)
OWN = Check(name="own", question=HttpProbe(url="http://x"), per_cluster=True, count=2)


def rules(**fields: Any) -> StagePolicy:
    """Rules of the only stage."""
    return StagePolicy(environment="prod", staged=True, **fields)


def facts(
    of_stage: StageState = StageState.RUNNING,
    /,
    clusters: Mapping[str, ClusterState] | None = None,
    seen: Mapping[str, Seen] | None = None,
    stage: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Facts:
    """A run in one stage; its clusters are pending unless told."""
    parts = clusters or {"a": ClusterState.PENDING}
    run = Run(
        id=1,
        app="shop",
        release=2,
        revision="f" * 40,
        created_at=NOW,
        state=RunState.RUNNING,
        stages=(StageRun(environment="prod", state=of_stage, **(stage or {})),),
        clusters={n: ClusterRun(cluster=n, environment="prod", state=s) for n, s in parts.items()},
    )
    run = msgspec.structs.replace(run, **{k: fields.pop(k) for k in list(fields) if k in run.__struct_fields__})
    return Facts(run=run, seen=seen or {}, order={"prod": sorted(parts)}, digests={"prod": "d"}, **fields)


def gates_of_stage(policy: StagePolicy, given: Facts) -> list[Gate]:
    """What the stage waits for."""
    return list(stage_gates(policy, given.run.stages[0], given, NOW))


def gates_of_cluster(policy: StagePolicy, state: ClusterState, seen: Seen, **stage: Any) -> list[Gate]:
    """What cluster `a` waits for."""
    given = facts(clusters={"a": state}, seen={"a": seen}, stage=stage)
    return list(cluster_gates(policy, given.run.stages[0], given.run.clusters["a"], given))


def test_a_closed_window_says_when_it_opens() -> None:
    """And a freeze when it ends; a promoted stage waits for neither."""
    [gate] = gates_of_stage(rules(windows=(NEVER_NOW,)), facts(StageState.HELD))
    assert (gate.kind, gate.left_s) == ("Window", 18 * 3600)
    [gate] = gates_of_stage(rules(freezes=(NOON,)), facts())
    assert (gate.kind, gate.left_s) == ("Freeze", 1800)
    assert "lunch" in gate.message
    assert gates_of_stage(rules(windows=(NEVER_NOW,)), facts(StageState.HELD, stage={"promoted": True})) == []


def test_approvals_count_for_the_plan_as_it_is() -> None:
    """Those of another plan do not; a stage that began asks no more."""
    given = tuple(
        Given(environment="prod", actor=name, at=NOW, digest=digest) for name, digest in (("ada", "d"), ("bob", "old"))
    )
    policy = rules(approval=Approval(required=2))
    [gate] = gates_of_stage(policy, facts(StageState.HELD, approvals=given))
    assert gate.message == "1 of 2 approvals (ada); fleet rollout approve shop --stage prod"
    assert gates_of_stage(policy, facts(StageState.RUNNING, approvals=given)) == []


def test_pace_and_stage_deadline_count_down() -> None:
    """The pace only while a cluster is still to start."""
    policy = rules(pace_s=60, stage_deadline_s=600)
    times: dict[str, Any] = {"since_start_s": {"prod": 20.0}, "stage_for_s": {"prod": 100.0}}
    assert [(g.kind, g.left_s) for g in gates_of_stage(policy, facts(**times))] == [
        ("Pace", 40.0),
        ("StageDeadline", 500.0),
    ]
    done = facts(clusters={"a": ClusterState.DONE}, **times)
    assert [g.kind for g in gates_of_stage(policy, done)] == ["StageDeadline"]


def test_checks_say_how_far_they_are() -> None:
    """Results of an earlier attempt do not count; one that passed is no gate any more."""
    samples = tuple(
        Sample(check="errors", at=NOW, outcome=outcome, value=value, round=round_)
        for outcome, value, round_ in (("passed", "9", 0), ("passed", "0.1", 1), ("inconclusive", "", 1))
    )
    given = facts(StageState.CHECKING, stage={"samples": samples, "round": 1})
    [gate] = gates_of_stage(rules(checks=(ERRORS, OWN)), given)
    assert gate.message == "errors: 1 of 3 passed; last: inconclusive"
    assert gates_of_stage(rules(checks=(Check(name="errors", question=HttpProbe(url="x")),)), given) == []


@pytest.mark.parametrize(
    ("state", "seen", "expected"),
    [
        (ClusterState.SOAKING, Seen(reachable=True, acknowledged=True, healthy_for_s=40.0), ("Soak", 20.0)),
        (ClusterState.SOAKING, Seen(reachable=True, acknowledged=True, healthy_for_s=61.0), ("Check", None)),
        (ClusterState.APPLYING, Seen(reachable=True, unhealthy_for_s=100.0), ("Deadline", 800.0)),
        (ClusterState.VERIFYING, Seen(reachable=True, unhealthy_for_s=1000.0), ("Deadline", 0.0)),
        (ClusterState.VERIFYING, Seen(reachable=False, unreachable_for_s=10.0), ("Unreachable", 290.0)),
        (ClusterState.HELD, Seen(reachable=False, unreachable_for_s=1000.0), ("Unreachable", 300.0)),
        (ClusterState.HELD, Seen(reachable=True, dependency="waiting for app db"), ("Dependency", None)),
    ],
)
def test_a_cluster_says_what_it_waits_for(state: ClusterState, seen: Seen, expected: tuple[str, float | None]) -> None:
    """And how long still, where anybody knows."""
    policy = rules(soak_s=60, checks=(OWN,), on_unreachable=OnUnreachable.WAIT, unreachable_wait_s=300)
    [gate] = gates_of_cluster(policy, state, seen)
    assert (gate.kind, gate.left_s) == expected


def test_without_rules_of_its_own_a_stage_waits_for_health_alone() -> None:
    """What broke is named; no time is over by itself."""
    seen = Seen(reachable=True, unhealthy_for_s=5000.0, failure="container web crashes")
    [gate] = gates_of_cluster(StagePolicy(environment="prod"), ClusterState.VERIFYING, seen)
    assert gate == Gate(kind="Health", message="container web crashes")


@pytest.mark.parametrize("state", [ClusterState.DONE, ClusterState.FAILED, ClusterState.PENDING, ClusterState.SKIPPED])
def test_a_cluster_at_rest_waits_for_nothing(state: ClusterState) -> None:
    """What is done, failed, skipped or not its turn yet has no gate."""
    assert gates_of_cluster(rules(soak_s=60), state, Seen(reachable=True)) == []


def test_batches_show_what_they_round_to() -> None:
    """In the order clusters go; those before the present step are over."""
    given = facts(clusters=dict.fromkeys("abcde", ClusterState.PENDING), stage={"step": 1})
    policy = rules(batches=(Amount(count=1), Amount(percent=50)))
    cuts = list(cut_batches(policy, given.run.stages[0], members_of(given, "prod")))
    assert [(c.size, "".join(c.clusters), c.over) for c in cuts] == [
        ("1", "a", True),
        ("50%", "b", False),
        ("rest", "cde", False),
    ]


def test_a_cluster_that_left_comes_last() -> None:
    """It is still shown, as long as the run has it."""
    given = facts(clusters=dict.fromkeys("abc", ClusterState.PENDING))
    assert members_of(Facts(run=given.run, seen={}, order={"prod": ["c", "a"]}, digests={}), "prod") == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"state": RunState.PAUSED, "message": "night"}, "waits for somebody: night"),
        ({"state": RunState.PLANNED}, "waits for its preflight: the release is tried on every cluster without"),
        ({"state": RunState.ABORTED}, ""),
        ({"state": RunState.SUCCEEDED}, ""),
        ({}, "goes on at once"),
    ],
)
def test_a_run_says_in_one_sentence_what_it_waits_for(fields: dict[str, Any], sentence: str) -> None:
    """A run that ended says nothing."""
    told = describe_wait(Policy(stages=(rules(),)), facts(**fields), NOW)
    assert told.startswith(sentence)
    assert bool(told) is bool(sentence)


def test_the_sentence_names_few_clusters_and_counts_the_rest() -> None:
    """Also those out of reach of a run that succeeded."""
    names = [f"c{i}" for i in range(5)]
    seen = {n: Seen(reachable=True, acknowledged=True, healthy_for_s=0.0) for n in names}
    policy = Policy(stages=(rules(soak_s=60),))
    soaking = facts(clusters=dict.fromkeys(names, ClusterState.SOAKING), seen=seen)
    assert describe_wait(policy, soaking, NOW).endswith("c2: it must stay healthy for 60 s and 2 more")
    back = facts(clusters=dict.fromkeys(names[:2], ClusterState.ROLLED_BACK), returning=True)
    assert describe_wait(policy, back, NOW) == "waits until what it touched is as it was before: c0, c1"
    deferred = facts(clusters=dict.fromkeys(names, ClusterState.DEFERRED), state=RunState.SUCCEEDED)
    assert describe_wait(policy, deferred, NOW) == "waits until c0, c1, c2 and 2 more can be reached"
