"""What a rollout does next: everything it does comes out of `decide`, which looks at values and touches nothing.

Decisions are carried out, and `decide` is asked again, until it has nothing to say but when to look once more.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import assert_never

from fleet.rollout.asking import describe, due, verdict_of
from fleet.rollout.cluster import follow, take_part
from fleet.rollout.decision import (
    Decision,
    Join,
    MoveCluster,
    MoveRun,
    MoveStage,
    Preflight,
    Return,
    Wake,
    move,
    move_stage,
)
from fleet.rollout.policy import Check, OnFailure, OnNewRelease, Policy, StagePolicy
from fleet.rollout.state import (
    ABSENT,
    IN_FLIGHT,
    SETTLED,
    WAITING,
    ClusterRun,
    ClusterState,
    Facts,
    Given,
    RunState,
    Seen,
    StageRun,
    StageState,
)
from fleet.rollout.verdict import Failed, Passed, Pending
from fleet.rollout.window import opening

Clusters = Sequence[ClusterRun]
_OUT = (ClusterState.FAILED, ClusterState.SKIPPED)
LEAST_WAKE_S = 0.01
"""A moment that rounding left over is waited for, too: time must go on between two looks."""


def decide(policy: Policy, state: Facts, now: datetime) -> Sequence[Decision]:
    """Say what a run does next; at most one `Wake`, and it comes last. Pure."""
    found: list[Decision] = []
    moved: set[str] = set()
    wake_s: float | None = None
    for decision in _decide(policy, state, now):
        if isinstance(decision, Wake):
            wake_s = decision.in_s if wake_s is None else min(wake_s, decision.in_s)
        elif not isinstance(decision, MoveCluster):
            found.append(decision)
        elif decision.cluster not in moved:
            moved.add(decision.cluster)  # what follows from a move is decided once it is made
            found.append(decision)
    return found if wake_s is None else [*found, Wake(in_s=max(LEAST_WAKE_S, wake_s))]


def limits_of(stage: StagePolicy, total: int) -> Sequence[int]:
    """Return how many clusters may have been started in each batch: cumulative, growing, in the end all.

    >>> from fleet.rollout.policy import Amount
    >>> limits_of(StagePolicy(environment="x", batches=(Amount(count=1), Amount(percent=25), Amount(percent=100))), 10)
    [1, 2, 10]
    """
    found: list[int] = []
    for limit in (*(batch.of(total, at_least=1) for batch in stage.batches), total):
        if limit > (found[-1] if found else 0):
            found.append(limit)
    return found


def broken_by_run(clusters: Clusters) -> Clusters:
    """Return the clusters that count against the failure budget."""
    return [c for c in clusters if c.state is ClusterState.FAILED and not c.broken_before and not c.forgiven]


def approvals_of(stage: StagePolicy, given: Sequence[Given], digest: str, now: datetime) -> Sequence[str]:
    """Name the people whose approval of this very plan of a stage still counts."""
    return sorted({g.actor for g, left_s in _counting(stage, given, digest, now) if left_s > 0})


def _counting(stage: StagePolicy, given: Sequence[Given], digest: str, now: datetime) -> Iterator[tuple[Given, float]]:
    """Yield the approvals of this very plan, and how many seconds each still counts."""
    life_s = stage.approval.expires_s if stage.approval is not None else None
    for each in given:
        if (each.environment, each.digest) == (stage.environment, digest):
            yield each, math.inf if life_s is None else life_s - (now - each.at).total_seconds()


def _decide(policy: Policy, state: Facts, now: datetime) -> Iterator[Decision]:
    run = state.run
    if _is_superseded(policy, state):
        yield MoveRun(to=RunState.SUPERSEDED, reason="NewRelease", message="a newer release takes its place")
    elif run.returning:
        yield from _watch_return(policy, state)
    else:
        yield from _go_on_from(run.state, policy, state, now)


def _go_on_from(at: RunState, policy: Policy, state: Facts, now: datetime) -> Iterator[Decision]:
    match at:
        case RunState.PLANNED:
            yield from _membership(state)
            yield from _begin(policy, state)
        case RunState.AWAITING_APPROVAL | RunState.RUNNING:
            yield from _membership(state)
            yield from _observe(policy, state, now)
            yield from _advance(policy, state, now)
        case RunState.PAUSED:
            yield from _membership(state)
            yield from _observe(policy, state, now)
        case RunState.SUCCEEDED:
            yield from _membership(state)
            yield from _observe(policy, state, now)
            for stage, rules in _stages(policy, state):
                yield from _start_some(rules, stage, state, now)
        case RunState.FAILED | RunState.ABORTED | RunState.SUPERSEDED | RunState.ROLLED_BACK:
            pass  # it ended
        case _:
            assert_never(at)


def _is_superseded(policy: Policy, state: Facts) -> bool:
    run = state.run
    if not state.newer or not run.active or run.returning:
        return False
    rules = list(_stages(policy, state))
    under_way = [p for s, p in rules if s.state in (StageState.RUNNING, StageState.CHECKING)]
    return all(p.on_new_release is OnNewRelease.SUPERSEDE for p in under_way or [p for _, p in rules])


def _stages(policy: Policy, state: Facts) -> Iterator[tuple[StageRun, StagePolicy]]:
    for stage in state.run.stages:
        rules = policy.stage(stage.environment)
        if rules is not None:
            yield stage, rules


def _members(state: Facts, environment: str) -> Clusters:
    """Return a stage's clusters in the order they go; those that left come last."""
    known = state.run.clusters
    order = state.order.get(environment, ())
    return [known[name] for name in order if name in known and known[name].environment == environment]


def _membership(state: Facts) -> Iterator[Decision]:
    for cluster in state.run.clusters.values():
        yield from take_part(cluster, state.seen.get(cluster.cluster))
    for name, (environment, before) in state.joining.items():
        if name not in state.run.clusters:
            yield Join(cluster=name, environment=environment, before=before)


def _begin(policy: Policy, state: Facts) -> Iterator[Decision]:
    run = state.run
    if run.preflight == "failed":
        yield MoveRun(to=RunState.FAILED, reason="PreflightFailed", message=run.message)
    elif not run.preflight and any(rules.staged for rules in policy.stages):
        unknown = [s for name in run.clusters if (s := state.seen.get(name)) is not None and s.reachable is None]
        if unknown:
            yield Wake(in_s=max(s.known_in_s or 0.0 for s in unknown))
        else:
            yield Preflight()
    else:
        yield MoveRun(to=RunState.RUNNING, reason="Started")


def _observe(policy: Policy, state: Facts, now: datetime) -> Iterator[Decision]:
    """Move clusters by what is seen of them."""
    active = state.run.active
    for stage, rules in _stages(policy, state):
        for_s = _turn_for_s(stage, state)
        for cluster in _members(state, stage.environment):
            seen = state.seen.get(cluster.cluster, ABSENT)
            yield from follow(rules, stage, cluster, seen, now, active=active, stage_for_s=for_s)


def _turn_for_s(stage: StageRun, state: Facts) -> float | None:
    """Return how long it has been a stage's turn; None = that has not come yet."""
    if stage.state in (StageState.PENDING, StageState.HELD):
        return None
    return math.inf if stage.state is StageState.DONE else state.stage_for_s.get(stage.environment, 0.0)


def _advance(policy: Policy, state: Facts, now: datetime) -> Iterator[Decision]:
    """Stop what went wrong, else start what may start, stage by stage."""
    for stage, rules in _stages(policy, state):
        failure = _find_failure(rules, stage, state)
        if failure is not None:
            yield _stop(rules, state, *failure)
            return
    for stage in state.run.stages:
        found = policy.stage(stage.environment)
        if found is None:
            if stage.state is not StageState.DONE:
                yield move_stage(stage, StageState.DONE, "Gone", "the app has no targets there any more")
        elif stage.state is StageState.DONE:
            yield from _start_some(found, stage, state, now)
        elif stage.state in (StageState.PENDING, StageState.HELD):
            yield from _open(found, stage, state, now)
        else:
            yield from _go_on(found, stage, state, now)
    yield from _conclude(state)


def _find_failure(rules: StagePolicy, stage: StageRun, state: Facts) -> tuple[str, str] | None:
    clusters = _members(state, stage.environment)
    broken = broken_by_run(clusters)
    budget = rules.failure_budget.of(len(clusters))
    if rules.staged and len(broken) > budget:
        first = broken[0]
        allowed = f"{len(broken)} of {stage.environment}'s clusters broke, {budget} may"
        return first.reason, f"{first.cluster}: {first.message} ({allowed})"
    started, _ = _batch(rules, stage, clusters)
    first_broken = next(iter(broken_by_run(started)), None)
    if rules.staged and first_broken is not None and all(c.state in _OUT for c in started):
        # within the budget, but nothing is left that could open what comes next: waiting would have no end
        message = f"{first_broken.cluster}: {first_broken.message} (none of {stage.environment}'s clusters so far could be verified)"
        return first_broken.reason, message
    limit_s, for_s = rules.stage_deadline_s, state.stage_for_s.get(stage.environment, 0.0)
    if stage.state in (StageState.RUNNING, StageState.CHECKING) and limit_s is not None and for_s >= limit_s:
        return "StageDeadlineExceeded", f"{stage.environment} was not over within {limit_s:g} s"
    return None


def _stop(rules: StagePolicy, state: Facts, reason: str, message: str) -> Decision:
    """Do what the policy says of a failure: going back is done once."""
    if rules.on_failure is OnFailure.ROLLBACK and not state.run.returned:
        return Return(reason=reason, message=message)
    run = state.run
    ways = f"fleet rollout retry, resume, rollback or abort {run.app}"
    return MoveRun(to=RunState.PAUSED, reason=reason, message=f"{message}; go on with {ways}")


def _open(rules: StagePolicy, stage: StageRun, state: Facts, now: datetime) -> Iterator[Decision]:
    """Begin a stage once those before it are over and its gates are open."""
    run = state.run
    before = [s for name in rules.after if (s := run.stage(name)) is not None]
    if any(s.state is not StageState.DONE for s in before):
        return
    if not _members(state, stage.environment):
        yield move_stage(stage, StageState.DONE, "NothingChanges")
        return
    reason, message = _gate(rules, stage, state, now)
    if not reason:
        yield move_stage(stage, StageState.RUNNING, "Started")
    elif (stage.state, stage.reason, stage.message) != (StageState.HELD, reason, message):
        yield move_stage(stage, StageState.HELD, reason, message)
    if reason:
        yield from _wake_at_expiry(rules, state, now)
    if reason and reason != "Approval":
        yield from _wake_at_opening(rules, now)


def _gate(rules: StagePolicy, stage: StageRun, state: Facts, now: datetime) -> tuple[str, str]:
    """Return why a stage may not begin yet: reason and message; empty when it may."""
    need = rules.approval.required if rules.approval is not None else 0
    given = approvals_of(rules, state.run.approvals, state.digests.get(stage.environment, ""), now)
    if len(given) < need:
        names = f" ({', '.join(given)})" if given else ""
        command = f"fleet rollout approve {state.run.app} --stage {stage.environment}"
        return "Approval", f"{len(given)} of {need} approvals{names}; {command}"
    at = opening(rules.windows, rules.freezes, now)
    return ("", "") if at.open or stage.promoted else (at.reason, at.message)


def _wake_at_expiry(rules: StagePolicy, state: Facts, now: datetime) -> Iterator[Decision]:
    digest = state.digests.get(rules.environment, "")
    for _, left_s in _counting(rules, state.run.approvals, digest, now):
        if 0 < left_s < math.inf:
            yield Wake(in_s=left_s)


def _wake_at_opening(rules: StagePolicy, now: datetime) -> Iterator[Decision]:
    at = opening(rules.windows, rules.freezes, now)
    if at.changes_at is not None:
        yield Wake(in_s=(at.changes_at - now).total_seconds())


def _start_some(rules: StagePolicy, stage: StageRun, state: Facts, now: datetime) -> Iterator[Decision]:
    """Start as many clusters of the present batch as may be under way at once."""
    clusters = _members(state, stage.environment)
    allowed, size = _batch(rules, stage, clusters)
    waiting = [c for c in allowed if c.state in WAITING]
    room = size - sum(c.state in IN_FLIGHT for c in clusters)
    if not waiting or room <= 0:
        return
    at = opening(rules.windows, rules.freezes, now)
    if not at.open and not stage.promoted:
        held = [c for c in waiting[:room] if (c.state, c.reason) != (ClusterState.HELD, at.reason)]
        yield from (move(c, ClusterState.HELD, at.reason, at.message) for c in held)
        yield from _wake_at_opening(rules, now)
        return
    yield from _start(rules, stage, state, waiting, room)


def _start(rules: StagePolicy, stage: StageRun, state: Facts, waiting: Clusters, room: int) -> Iterator[Decision]:
    pace_s = 0.0 if stage.promoted else rules.pace_s
    since_s = state.since_start_s.get(stage.environment)
    if pace_s and since_s is not None and since_s < pace_s:
        yield Wake(in_s=pace_s - since_s)
        return
    for cluster in waiting:
        seen = state.seen.get(cluster.cluster)
        if room <= 0:
            return
        if seen is None or seen.held or (rules.staged and not seen.reachable):
            continue
        if rules.staged and seen.dependency:
            if (cluster.state, cluster.message) != (ClusterState.HELD, seen.dependency):
                yield move(cluster, ClusterState.HELD, "Dependency", seen.dependency)
            continue
        yield MoveCluster(
            cluster=cluster.cluster, to=ClusterState.APPLYING, reason="Started", broken_before=seen.broken
        )
        room = 0 if pace_s else room - 1


def _batch(rules: StagePolicy, stage: StageRun, clusters: Clusters) -> tuple[Clusters, int]:
    """Return the clusters that may have been started by now, and how many of them may be under way at once."""
    limits = limits_of(rules, len(clusters))
    if not limits:
        return (), 0
    step = min(stage.step, len(limits) - 1)
    return clusters[: limits[step]], limits[step] - (limits[step - 1] if step else 0)


def _go_on(rules: StagePolicy, stage: StageRun, state: Facts, now: datetime) -> Iterator[Decision]:
    """Start more of a batch; when it is over ask the checks, then begin the next one."""
    clusters = _members(state, stage.environment)
    allowed, _ = _batch(rules, stage, clusters)
    limit_s = rules.stage_deadline_s
    if limit_s is not None:
        yield Wake(in_s=limit_s - state.stage_for_s.get(stage.environment, 0.0))
    if any(c.state not in SETTLED for c in allowed):
        if stage.state is StageState.CHECKING or stage.reason == "NothingVerified":
            yield move_stage(stage, StageState.RUNNING, "Started")
        yield from _start_some(rules, stage, state, now)
    elif any(c.state is ClusterState.DONE for c in allowed) or all(c.state is ClusterState.SKIPPED for c in allowed):
        yield from _end_batch(rules, stage, state, now)
    elif stage.reason != "NothingVerified":
        ways = f"fleet rollout retry or skip {state.run.app}"
        message = f"none of its clusters could be verified; the run goes on when one is, or all are skipped: {ways}"
        yield move_stage(stage, StageState.RUNNING, "NothingVerified", message)


def _end_batch(rules: StagePolicy, stage: StageRun, state: Facts, now: datetime) -> Iterator[Decision]:
    checks: tuple[Check, ...] = () if stage.promoted else tuple(c for c in rules.checks if not c.per_cluster)
    verdict = verdict_of(checks, stage.samples, stage.round)
    if isinstance(verdict, Failed):
        yield _stop(rules, state, "CheckFailed", f"{stage.environment}: {verdict.why}")
    elif isinstance(verdict, Passed):
        step = stage.step + 1
        total = len(limits_of(rules, len(_members(state, stage.environment))))
        to, reason = (StageState.DONE, "Done") if step >= total else (StageState.RUNNING, "BatchDone")
        message = "" if to is StageState.DONE else f"batch {step} of {total} is over"
        yield MoveStage(environment=stage.environment, to=to, reason=reason, message=message, step=step)
    elif isinstance(verdict, Pending):
        message = f"waiting for {describe(checks, stage.samples, stage.round)}"
        if (stage.state, stage.message) != (StageState.CHECKING, message):
            yield move_stage(stage, StageState.CHECKING, "Checking", message)
        yield from due(checks, stage.samples, now, environment=stage.environment, round_=stage.round)
    else:
        assert_never(verdict)


def _conclude(state: Facts) -> Iterator[Decision]:
    run = state.run
    states = [s.state for s in run.stages]
    if all(s is StageState.DONE for s in states) and not any(name not in run.clusters for name in state.joining):
        yield MoveRun(to=RunState.SUCCEEDED, reason="Done", message=_describe_end(state))
        return
    waits = any(s.state is StageState.HELD and s.reason == "Approval" for s in run.stages)
    moves = any(s in (StageState.RUNNING, StageState.CHECKING) for s in states)
    to = RunState.AWAITING_APPROVAL if waits and not moves else RunState.RUNNING
    if run.state is not to:
        held = next((s for s in run.stages if s.reason == "Approval" and s.state is StageState.HELD), None)
        message = f"{held.environment}: {held.message}" if held is not None and to is not RunState.RUNNING else ""
        yield MoveRun(to=to, reason="Approval" if to is RunState.AWAITING_APPROVAL else "Started", message=message)


def _describe_end(state: Facts) -> str:
    deferred = [c.cluster for c in state.run.clusters.values() if c.state is ClusterState.DEFERRED]
    return f"to be caught up: {', '.join(sorted(deferred))}" if deferred else ""


def _watch_return(policy: Policy, state: Facts) -> Iterator[Decision]:
    """Wait until every cluster that was sent back has what it had, and is as healthy as it was."""
    run = state.run
    sent = [c for c in run.clusters.values() if c.state is ClusterState.ROLLED_BACK]
    if not sent:
        message = f"{run.message}; no cluster had an earlier release to go back to"
        yield MoveRun(to=RunState.FAILED, reason="NothingToReturnTo", message=message)
        return
    open_ = [(c, seen) for c in sent if (seen := state.seen.get(c.cluster)) is not None and not _is_back(c, seen)]
    if not open_:
        yield MoveRun(to=RunState.ROLLED_BACK, reason=run.reason, message=run.message)
        return
    for cluster, seen in open_:
        rules = policy.stage(cluster.environment)
        left_s = (rules.deadline_s if rules is not None else 0.0) - seen.unhealthy_for_s
        if left_s <= 0:
            why = seen.failure or seen.problem or "it is not healthy"
            message = f"{cluster.cluster} did not become healthy with {run.app}#{cluster.before}: {why}"
            yield MoveRun(to=RunState.FAILED, reason="RollbackIncomplete", message=message)
            return
        yield Wake(in_s=left_s)


def _is_back(cluster: ClusterRun, seen: Seen) -> bool:
    """Tell whether a cluster needs no more watching: one out of reach gets what it had when it is back."""
    if seen.reachable is False or seen.held:
        return True
    return bool(seen.reachable) and seen.acknowledged and (cluster.broken_before or seen.healthy_for_s is not None)
