"""What a run waits for, as people are shown it: gates with what is left of them, and one sentence. Pure.

Shown only: what a run does is `decide`'s affair, which looks at the same values.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from fleet.rollout.decide import approvals_of, limits_of
from fleet.rollout.policy import OnUnreachable, Policy, StagePolicy
from fleet.rollout.state import (
    ABSENT,
    IN_FLIGHT,
    WAITING,
    ClusterRun,
    ClusterState,
    Facts,
    Run,
    RunState,
    StageRun,
    StageState,
)
from fleet.rollout.verdict import Failed, Passed, judge
from fleet.rollout.window import opening

NAMED = 3
"""So many clusters are named in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One thing that a stage or a cluster waits for, or that ends it."""

    kind: str
    """Approval, Window, Freeze, Stage, Pace, Check, StageDeadline; of clusters Soak, Deadline, Health, Dependency,
    Unreachable."""
    message: str
    left_s: float | None = None
    """When it opens by itself, or, of a deadline, when time is over; None = nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One batch of a stage."""

    size: str
    """As the inventory says it, cumulative; `rest` for what the batches leave over."""
    clusters: tuple[str, ...]
    over: bool


def cut_batches(rules: StagePolicy, stage: StageRun, members: Sequence[str]) -> Iterator[Cut]:
    """Cut the clusters of a stage, in the order they go, into batches as a run does."""
    begin = 0
    for index, limit in enumerate(limits_of(rules, len(members))):
        size = next((str(b) for b in rules.batches if b.of(len(members), at_least=1) == limit), "rest")
        yield Cut(
            size=size, clusters=tuple(members[begin:limit]), over=stage.state is StageState.DONE or index < stage.step
        )
        begin = limit


def members_of(facts: Facts, environment: str) -> Sequence[str]:
    """Name a stage's clusters in the order they go; those that are no target any more come last."""
    mine = {name for name, part in facts.run.clusters.items() if part.environment == environment}
    ordered = [name for name in facts.order.get(environment, ()) if name in mine]
    return [*ordered, *sorted(mine.difference(ordered))]


def stage_gates(rules: StagePolicy, stage: StageRun, facts: Facts, now: datetime) -> Iterator[Gate]:
    """Say what a stage waits for before it begins, goes on or ends."""
    if not facts.run.active or facts.run.returning or stage.state is StageState.DONE:
        return
    before = [s.environment for name in rules.after if (s := facts.run.stage(name)) and s.state is not StageState.DONE]
    if before:
        yield Gate(kind="Stage", message=f"comes after {', '.join(before)}")
    if stage.state in (StageState.PENDING, StageState.HELD):
        yield from _approval(rules, facts, now)
    if any(part.state in WAITING for part in _parts(facts, stage.environment)) and not stage.promoted:
        at = opening(rules.windows, rules.freezes, now)
        if not at.open:
            left_s = (at.changes_at - now).total_seconds() if at.changes_at is not None else None
            yield Gate(kind=at.reason, message=at.message, left_s=left_s)
    if stage.state in (StageState.RUNNING, StageState.CHECKING):
        yield from _under_way(rules, stage, facts)


def _parts(facts: Facts, environment: str) -> Sequence[ClusterRun]:
    return [part for part in facts.run.clusters.values() if part.environment == environment]


def _approval(rules: StagePolicy, facts: Facts, now: datetime) -> Iterator[Gate]:
    needed = rules.approval.required if rules.approval is not None else 0
    given = approvals_of(rules, facts.run.approvals, facts.digests.get(rules.environment, ""), now)
    if len(given) < needed:
        by = f" ({', '.join(given)})" if given else ""
        command = f"fleet rollout approve {facts.run.app} --stage {rules.environment}"
        yield Gate(kind="Approval", message=f"{len(given)} of {needed} approvals{by}; {command}")


def _under_way(rules: StagePolicy, stage: StageRun, facts: Facts) -> Iterator[Gate]:
    since_s = facts.since_start_s.get(stage.environment)
    waiting = any(part.state in WAITING for part in _parts(facts, stage.environment))
    if rules.pace_s and not stage.promoted and since_s is not None and waiting and since_s < rules.pace_s:
        message = f"at least {rules.pace_s:g} s between two starts"
        yield Gate(kind="Pace", message=message, left_s=rules.pace_s - since_s)
    if stage.state is StageState.CHECKING:
        yield from check_gates(rules, stage, per_cluster=False)
    if rules.stage_deadline_s is not None:
        left_s = max(0.0, rules.stage_deadline_s - facts.stage_for_s.get(stage.environment, 0.0))
        yield Gate(kind="StageDeadline", message=f"it must be over within {rules.stage_deadline_s:g} s", left_s=left_s)


def check_gates(rules: StagePolicy, of: StageRun | ClusterRun, *, per_cluster: bool) -> Iterator[Gate]:
    """Say how far the checks of a stage or a cluster are."""
    for check in rules.checks:
        mine = [s for s in of.samples if (s.check, s.round) == (check.name, of.round)]
        verdict = judge(mine, check)
        if check.per_cluster is per_cluster and not isinstance(verdict, Passed):
            passed = sum(s.outcome == "passed" for s in mine)
            last = f"; last: {mine[-1].outcome} {mine[-1].value or mine[-1].message}".rstrip() if mine else ""
            why = (
                verdict.why if isinstance(verdict, Failed) else f"{check.name}: {passed} of {check.count} passed{last}"
            )
            yield Gate(kind="Check", message=why)


def cluster_gates(rules: StagePolicy, stage: StageRun, part: ClusterRun, facts: Facts) -> Iterator[Gate]:
    """Say what a cluster waits for."""
    seen = facts.seen.get(part.cluster, ABSENT)
    if part.state is ClusterState.ROLLED_BACK and facts.run.returning:
        yield Gate(kind="Deadline", message="it must be healthy again", left_s=rules.deadline_s - seen.unhealthy_for_s)
    elif part.state in WAITING and seen.dependency:
        yield Gate(kind="Dependency", message=seen.dependency)
    elif (part.state in IN_FLIGHT or part.state is ClusterState.HELD) and seen.reachable is False:
        yield _unreachable(rules, part, facts, seen.unreachable_for_s)
    elif part.state is ClusterState.SOAKING:
        yield from _soak(rules, stage, part, seen.healthy_for_s)
    elif part.state in IN_FLIGHT:
        why = seen.failure or seen.problem or "it is not healthy with the release yet"
        if rules.staged:
            yield Gate(kind="Deadline", message=why, left_s=max(0.0, rules.deadline_s - seen.unhealthy_for_s))
        else:
            yield Gate(kind="Health", message=why)


def _unreachable(rules: StagePolicy, part: ClusterRun, facts: Facts, away_s: float) -> Gate:
    """Say how long a cluster is waited for; before it was started that counts from its turn."""
    if part.state is ClusterState.HELD:
        away_s = min(away_s, facts.stage_for_s.get(part.environment, 0.0))
    most_s = rules.unreachable_wait_s if rules.on_unreachable is OnUnreachable.WAIT else None
    left_s = max(0.0, most_s - away_s) if most_s is not None else None
    return Gate(kind="Unreachable", message="it cannot be reached", left_s=left_s)


def _soak(rules: StagePolicy, stage: StageRun, part: ClusterRun, healthy_s: float | None) -> Iterator[Gate]:
    left_s = 0.0 if stage.promoted else rules.soak_s - (healthy_s or 0.0)
    if left_s > 0:
        yield Gate(kind="Soak", message=f"it must stay healthy for {rules.soak_s:g} s", left_s=left_s)
    elif not stage.promoted:
        yield from check_gates(rules, part, per_cluster=True)


def describe_wait(policy: Policy, facts: Facts, now: datetime) -> str:
    """Say in one sentence what a run waits for; empty when it ended and nothing is to come."""
    run = facts.run
    if run.returning:
        return f"waits until what it touched is as it was before: {_name(run, ClusterState.ROLLED_BACK)}"
    if run.state is RunState.PAUSED:
        return f"waits for somebody: {run.message or run.reason}"
    if run.state is RunState.PLANNED:
        return "waits for its preflight: the release is tried on every cluster without being written"
    if run.state is RunState.SUCCEEDED:
        deferred = _name(run, ClusterState.DEFERRED)
        return f"waits until {deferred} can be reached" if deferred else ""
    if not run.active:
        return ""
    found = [text for stage in run.stages if (rules := policy.stage(stage.environment))
             if (text := _describe_stage(rules, stage, facts, now))]  # fmt: skip
    return "; ".join(found) or "goes on at once"


def _describe_stage(rules: StagePolicy, stage: StageRun, facts: Facts, now: datetime) -> str:
    if stage.state is StageState.DONE:
        return ""
    gates = list(stage_gates(rules, stage, facts, now))
    if any(gate.kind == "Stage" for gate in gates):
        return ""  # what those before it wait for is said there
    parts = [part for name in members_of(facts, stage.environment) if (part := facts.run.clusters.get(name))]
    own = [f"{part.cluster}: {gate.message}" for part in parts for gate in cluster_gates(rules, stage, part, facts)]
    said = [gate.message for gate in gates if gate.kind != "StageDeadline"]
    if not said and not own and stage.reason == "NothingVerified":
        said = [stage.message]
    rest = f" and {len(own) - NAMED} more" if len(own) > NAMED else ""
    told = "; ".join([*said, *own[:NAMED]])
    return f"{stage.environment} waits: {told}{rest}" if told else ""


def _name(run: Run, state: ClusterState) -> str:
    names = sorted(part.cluster for part in run.clusters.values() if part.state is state)
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest
