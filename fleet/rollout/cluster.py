"""How one cluster of a run goes on, from what is seen of it. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import assert_never

from fleet.rollout.asking import describe, due, verdict_of
from fleet.rollout.decision import Decision, Wake, move
from fleet.rollout.policy import OnUnreachable, StagePolicy
from fleet.rollout.state import IN_FLIGHT, WAITING, ClusterRun, ClusterState, Seen, StageRun
from fleet.rollout.verdict import Failed, Passed, Pending

RETRY_GRACE_S = 60.0
"""How long a cluster that is tried again may go on showing what failed the last time: a container that crashed is not
started again at once."""
HELD, LEFT = "Held", "Left"
"""Why a cluster is skipped only for as long as that lasts."""


def take_part(cluster: ClusterRun, seen: Seen | None) -> Iterator[Decision]:
    """Skip a cluster that left or is held at another release, and take it in again afterwards."""
    if seen is None:
        if cluster.state not in (ClusterState.SKIPPED, ClusterState.DONE):
            yield move(cluster, ClusterState.SKIPPED, LEFT, "it is no target of the app any more")
    elif seen.held:
        if cluster.state in WAITING or cluster.state in IN_FLIGHT or cluster.state is ClusterState.DEFERRED:
            yield move(cluster, ClusterState.SKIPPED, HELD, seen.held)
    elif cluster.state is ClusterState.SKIPPED and cluster.reason in (HELD, LEFT):
        yield move(cluster, ClusterState.PENDING, "Rejoined", "it takes part again")


def follow(
    policy: StagePolicy,
    stage: StageRun,
    cluster: ClusterRun,
    seen: Seen,
    now: datetime,
    *,
    active: bool,
    stage_for_s: float | None,
) -> Iterator[Decision]:
    """Move a cluster by what is seen of it; nothing is started here. `active`: the run has not ended.

    `stage_for_s` is how long its turn has been; None = it has not come, so that being out of reach costs nothing yet.
    """
    if seen.reachable is None and seen.known_in_s is not None:
        yield Wake(in_s=seen.known_in_s)
    match cluster.state:
        case ClusterState.APPLYING | ClusterState.VERIFYING | ClusterState.SOAKING:
            yield from _verify(policy, stage, cluster, seen, now)
        case ClusterState.PENDING | ClusterState.HELD:
            if policy.staged and seen.reachable is False and stage_for_s is not None:
                yield from _miss(policy, cluster, min(seen.unreachable_for_s, stage_for_s))
        case ClusterState.DONE:
            if active and policy.staged and seen.reachable and seen.acknowledged and seen.failure:
                yield move(cluster, ClusterState.FAILED, seen.failure_reason, seen.failure)
        case ClusterState.DEFERRED:
            if seen.reachable:
                to = ClusterState.APPLYING if cluster.touched else ClusterState.PENDING
                yield move(cluster, to, "Reachable", "it can be reached again and is caught up")
        case ClusterState.FAILED | ClusterState.SKIPPED | ClusterState.ROLLED_BACK:
            pass  # nothing of it is watched
        case _:
            assert_never(cluster.state)


def _miss(policy: StagePolicy, cluster: ClusterRun, missed_s: float) -> Iterator[Decision]:
    """Do without a cluster that cannot be reached, or wait for it; `missed_s` is how long the run has done so."""
    if policy.on_unreachable is OnUnreachable.DEFER:
        message = "it cannot be reached, and is caught up when it can"
        yield move(cluster, ClusterState.DEFERRED, "Unreachable", message)
        return
    most_s = policy.unreachable_wait_s
    if policy.on_unreachable is OnUnreachable.FAIL or (most_s is not None and missed_s >= most_s):
        message = f"it could not be reached for {missed_s:.0f} s"
        yield move(cluster, ClusterState.FAILED, "Unreachable", message)
        return
    if most_s is not None:
        yield Wake(in_s=most_s - missed_s)
    if cluster.state is ClusterState.PENDING:
        yield move(cluster, ClusterState.HELD, "Unreachable", "the run waits until it can be reached")


def _verify(policy: StagePolicy, stage: StageRun, cluster: ClusterRun, seen: Seen, now: datetime) -> Iterator[Decision]:
    if seen.reachable is None:
        return
    if not seen.reachable:
        yield from _miss(policy, cluster, seen.unreachable_for_s)
    elif seen.failure and not policy.staged:
        yield from _await_health(policy, cluster, seen)  # nobody said what else to do: it goes on when that is mended
    elif seen.failure and cluster.retried and seen.unhealthy_for_s < RETRY_GRACE_S:
        yield Wake(in_s=RETRY_GRACE_S - seen.unhealthy_for_s)
    elif seen.failure:
        yield move(cluster, ClusterState.FAILED, seen.failure_reason, seen.failure)
    elif seen.acknowledged and seen.healthy_for_s is not None:
        yield from _soak(policy, stage, cluster, seen.healthy_for_s, now)
    else:
        yield from _await_health(policy, cluster, seen)


def _await_health(policy: StagePolicy, cluster: ClusterRun, seen: Seen) -> Iterator[Decision]:
    """Wait for health, at most until the deadline; a flap begins the soak anew."""
    why = (
        seen.failure
        or seen.problem
        or ("it is not healthy yet" if seen.acknowledged else "not everything is applied yet")
    )
    if policy.staged:
        left_s = policy.deadline_s - seen.unhealthy_for_s
        if left_s <= 0:
            message = f"not healthy within {policy.deadline_s:g} s: {why}"
            yield move(cluster, ClusterState.FAILED, "DeadlineExceeded", message)
            return
        yield Wake(in_s=left_s)
    if cluster.state is ClusterState.SOAKING:
        yield move(cluster, ClusterState.VERIFYING, "Flapped", why)
    elif cluster.state is ClusterState.APPLYING and seen.acknowledged:
        yield move(cluster, ClusterState.VERIFYING, "Applied", why)


def _soak(
    policy: StagePolicy, stage: StageRun, cluster: ClusterRun, healthy_s: float, now: datetime
) -> Iterator[Decision]:
    """Let a healthy cluster stay so for the soak, then ask its checks."""
    left_s = 0.0 if stage.promoted else policy.soak_s - healthy_s
    if left_s > 0:
        yield Wake(in_s=left_s)
        if cluster.state is not ClusterState.SOAKING:
            yield move(cluster, ClusterState.SOAKING, "Soaking", f"it must stay healthy for {policy.soak_s:g} s")
        return
    checks = () if stage.promoted else tuple(c for c in policy.checks if c.per_cluster)
    verdict = verdict_of(checks, cluster.samples, cluster.round)
    if isinstance(verdict, Passed):
        yield move(cluster, ClusterState.DONE, "Healthy")
    elif isinstance(verdict, Failed):
        yield move(cluster, ClusterState.FAILED, "CheckFailed", verdict.why)
    elif isinstance(verdict, Pending):
        message = f"waiting for {describe(checks, cluster.samples, cluster.round)}"
        if (cluster.state, cluster.message) != (ClusterState.SOAKING, message):
            yield move(cluster, ClusterState.SOAKING, "Checking", message)
        yield from due(
            checks,
            cluster.samples,
            now,
            environment=policy.environment,
            cluster=cluster.cluster,
            round_=cluster.round,
        )
    else:
        assert_never(verdict)
