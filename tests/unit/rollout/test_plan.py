"""A plan as values: who goes when, and what is waited for."""

from dataclasses import replace

from fleet.rollout.plan import Batch, Subject, make_plan
from fleet.rollout.policy import (
    Amount,
    Approval,
    Check,
    HttpProbe,
    OnFailure,
    Policy,
    PrometheusQuery,
    StagePolicy,
    Window,
)

DEV = StagePolicy(environment="dev")
PROD = StagePolicy(
    environment="prod",
    after=("dev",),
    staged=True,
    batches=(Amount(count=1), Amount(percent=25), Amount(percent=100)),
    first=("p-9",),
)
POLICY = Policy(stages=(DEV, PROD))


def subject(environment: str = "prod", digest: str = "new", applied: str = "old") -> Subject:
    """Make a target that the release changes."""
    return Subject(environment=environment, labels={}, digest=digest, applied=applied)


SUBJECTS = {
    "d-1": subject("dev"),
    "d-2": subject("dev", applied="new"),
    **{f"p-{n}": subject() for n in range(10)},
}


def test_clusters_go_in_batches_as_a_run_starts_them() -> None:
    """Canaries first, then by name; percentages are of the clusters that change."""
    plan = make_plan(POLICY, "shop", 42, SUBJECTS)
    dev, prod = plan.stages
    assert dev.batches == (Batch(size="100%", clusters=("d-1",)),)
    assert (dev.unchanged, prod.after) == (("d-2",), ("dev",))
    assert [(batch.size, len(batch.clusters)) for batch in prod.batches] == [("1", 1), ("25%", 1), ("100%", 8)]
    assert plan.clusters[:3] == ["d-1", "p-9", "p-0"]
    assert len(plan.clusters) == 11


def test_batches_that_round_to_one_number_are_one() -> None:
    """And what the batches leave over goes last."""
    rules = replace(PROD, batches=(Amount(count=1), Amount(percent=10)), first=())
    found = make_plan(Policy(stages=(rules,)), "shop", 1, {"a": subject(), "b": subject(), "c": subject()})
    assert [(b.size, b.clusters) for b in found.stages[0].batches] == [("1", ("a",)), ("rest", ("b", "c"))]


def test_a_stage_in_which_nothing_changes_has_no_batch() -> None:
    """A release that is what a cluster has makes no step there."""
    plan = make_plan(POLICY, "shop", 42, {name: replace(each, applied="new") for name, each in SUBJECTS.items()})
    assert [stage.batches for stage in plan.stages] == [(), ()]
    assert plan.clusters == []


def test_gates_are_sentences() -> None:
    """In the order in which a stage meets them."""
    window = Window(cron="0 9 * * 1-5", duration_s=28800, timezone="Europe/Berlin")
    rules = replace(
        PROD,
        approval=Approval(required=2, expires_s=3600),
        windows=(window,),
        freezes=(replace(window, reason="Christmas"),),
        pace_s=90,
        soak_s=600,
        on_failure=OnFailure.ROLLBACK,
        checks=(
            Check(name="smoke", question=HttpProbe(url="https://x/up"), per_cluster=True),
            Check(
                name="errors",
                question=PrometheusQuery(url="http://p", query="rate", condition="< 1"),
                count=3,
            ),
        ),
    )
    assert make_plan(Policy(stages=(rules,)), "shop", 1, {}).stages[0].gates == (
        "approval by 2 people; each counts for 1h",
        "starts only in the window 0 9 * * 1-5 for 8h, Europe/Berlin",
        "no start in the freeze 0 9 * * 1-5 for 8h, Europe/Berlin (Christmas)",
        "at least 90s between two starts",
        "each cluster is healthy within 15m",
        "each cluster stays healthy for 10m",
        "check smoke passes once after each cluster: https://x/up",
        "check errors passes 3 times after each batch: rate < 1",
        "more than 0 broken: the rollout goes back",
    )


def test_a_stage_without_a_policy_has_no_gates() -> None:
    """It goes at once, after the stages before it."""
    assert make_plan(Policy(stages=(DEV,)), "shop", 1, {}).stages[0].gates == ()
