"""From documents to the rules of an app's runs."""

import pytest

from fleet.rollout.compile import policy_of
from fleet.rollout.policy import (
    Amount,
    Approval,
    HttpProbe,
    OnFailure,
    OnNewRelease,
    OnUnreachable,
    Policy,
    PrometheusQuery,
    StagePolicy,
    Window,
)
from tests.unit.inventory.build import app, cluster, environment, faults, inventory, repository


def compiled(*documents: str) -> Policy:
    """Return the rules of app `shop`."""
    value = inventory(repository(), *documents)
    assert faults(value) == []
    return policy_of(value.apps["shop"], value)


def stage(policy: Policy, name: str) -> StagePolicy:
    """Return a stage that must be there."""
    found = policy.stage(name)
    assert found is not None
    return found


def test_after_leads_through_environments_without_targets() -> None:
    """Stages are where the app goes; one it skips still orders those around it, in a graph as in a line."""
    policy = compiled(
        environment("dev"),
        environment("qa", "after: [dev]"),
        environment("load", "after: [dev]"),
        environment("prod", "after: [qa, load]"),
        cluster("d"),
        cluster("q", "qa"),
        cluster("l", "load"),
        cluster("p", "prod"),
        app(targets="environments: [dev, load, prod]"),
    )
    assert [(each.environment, each.after) for each in policy.stages] == [
        ("dev", ()),
        ("load", ("dev",)),
        ("prod", ("dev", "load")),
    ]
    assert policy.stage("qa") is None


def test_an_environment_without_rules_still_waits_for_those_before() -> None:
    """It moves at once, behind `after`."""
    policy = compiled(
        environment("dev"), environment("prod", "after: [dev]"), cluster("d"), cluster("p", "prod"), app()
    )
    assert policy.stages == (StagePolicy(environment="dev"), StagePolicy(environment="prod", after=("dev",)))


def test_every_field_arrives() -> None:
    """What an environment says is what the run obeys."""
    rules = """batches: [1, 25%], order: {first: [d], label: ring}, pace: 1m, soak: 10m, deadline: 20m, stageDeadline: 4h,
  failureBudget: 10%, onFailure: rollback, onUnreachable: {wait: 1h}, onNewRelease: queue, approval: {required: 2, expires: 24h},
  windows: [{cron: 0 9 * * 1-5, duration: 8h, timezone: Europe/Berlin}], freezes: [{cron: 0 0 24 12 *, duration: 72h, reason: x}],
  checks: [{name: smoke, perCluster: true, http: {url: 'https://x.example.com/', status: [204], jsonPath: $.ok, equals: 'true', caFile: ca}},
  {name: errors, interval: 30s, count: 3, failureLimit: 1, timeout: 5s, prometheus: {url: 'http://127.0.0.1:9090', query: up, condition: '>= 1'}}]"""
    found = stage(compiled(environment("dev", f"rollout: {{{rules}}}"), cluster("d"), app()), "dev")
    smoke, errors = found.checks
    assert found == StagePolicy(
        environment="dev",
        staged=True,
        batches=(Amount(count=1), Amount(percent=25), Amount(percent=100)),
        first=("d",),
        order_label="ring",
        pace_s=60,
        failure_budget=Amount(percent=10),
        deadline_s=1200,
        stage_deadline_s=14400,
        soak_s=600,
        on_failure=OnFailure.ROLLBACK,
        on_unreachable=OnUnreachable.WAIT,
        unreachable_wait_s=3600,
        on_new_release=OnNewRelease.QUEUE,
        approval=Approval(required=2, expires_s=86400),
        windows=(Window(cron="0 9 * * 1-5", duration_s=28800, timezone="Europe/Berlin"),),
        freezes=(Window(cron="0 0 24 12 *", duration_s=259200, timezone="UTC", reason="x"),),
        checks=(smoke, errors),
    )
    assert (smoke.per_cluster, errors.interval_s, errors.count, errors.failure_limit, errors.timeout_s) == (
        True,
        30,
        3,
        1,
        5,
    )
    assert smoke.question == HttpProbe(
        url="https://x.example.com/", status=(204,), json_path="$.ok", equals="true", ca_file="ca"
    )
    assert errors.question == PrometheusQuery(url="http://127.0.0.1:9090", query="up", condition=">= 1")


RULES = "rollout: {soak: 10m, approval: {required: 1}, windows: [{cron: 0 9 * * *, duration: 8h}]}"


@pytest.mark.parametrize(
    ("rollout", "soak_s", "approval"),
    [
        ("", 600, 1),
        ("rollout: {soak: 1m}", 60, 1),
        ("rollout: {soak: 1m, environments: {prod: {soak: 2m}}}", 120, 1),
        ("rollout: {environments: {dev: {soak: 2m}}}", 600, 1),
        ("rollout: {approval: {required: 0}}", 600, None),
    ],
)
def test_an_app_overrides_field_by_field(rollout: str, soak_s: float, approval: int | None) -> None:
    """The app's own field wins, the one for this environment most of all; the rest stays the environment's."""
    found = compiled(environment("dev"), environment("prod", RULES), cluster("p", "prod"), app(spec=rollout))
    prod = stage(found, "prod")
    assert (prod.soak_s, prod.approval and prod.approval.required, len(prod.windows)) == (soak_s, approval, 1)


def test_an_empty_list_takes_windows_away() -> None:
    """An app that may start at any time says so."""
    found = compiled(environment("prod", RULES), cluster("p", "prod"), app(spec="rollout: {windows: []}"))
    assert stage(found, "prod").windows == ()


def test_an_app_alone_makes_a_stage_staged() -> None:
    """Rules that only the app gives count in environments that have none."""
    found = compiled(environment("dev"), cluster("d"), app(spec="rollout: {soak: 1m}"))
    assert (stage(found, "dev").staged, stage(found, "dev").soak_s) == (True, 60)
