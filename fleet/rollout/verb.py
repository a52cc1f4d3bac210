"""What people may tell a run to do. Pure; each verb says the same thing twice without harm."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, assert_never

import msgspec

from fleet.errors import TargetError
from fleet.rollout.decision import Move, MoveRun, Return, move
from fleet.rollout.evolve import Transition, evolve, replace_cluster, replace_stage
from fleet.rollout.state import ACTIVE, ClusterRun, ClusterState, Given, Run, RunState, StageRun, StageState


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Start no more clusters; those under way are watched to their end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Go on; failures so far no longer count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """End the run where it is; every cluster keeps what it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Try again what failed, was aborted or was sent back, preflight included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Leave a cluster out of the run; it keeps what it has."""

    cluster: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """Let a stage do without windows, freezes, pace, soak and checks; health and approvals still count."""

    environment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Say yes to a stage as planned; once more begins its time anew."""

    environment: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """Send every cluster that the run touched back to what it had."""


Verb: TypeAlias = Pause | Resume | Abort | Retry | Skip | Promote | Approve | Rollback


def obey(run: Run, verb: Verb, *, actor: str, reason: str, now: datetime) -> tuple[Run, Sequence[Transition]]:
    """Apply a verb; one that is already in force changes nothing.

    Raises: TargetError (`RunEnded`, `NotPaused`, `GoingBack`, `NothingToRetry`, `UnknownStage`, `UnknownCluster`,
    `NothingToReturnTo`).
    """
    before = run
    moves: Sequence[Move] = ()
    match verb:
        case Pause():
            moves = _pause(run, reason)
        case Resume():
            run, moves = _resume(run, reason)
        case Abort():
            moves = _abort(run, reason)
        case Retry():
            run, moves = _retry(run, reason)
        case Skip(cluster=name):
            moves = _skip(run, name, reason)
        case Promote(environment=name):
            run = _promote(run, name)
        case Approve():
            run = _approve(run, verb, actor, reason, now)
        case Rollback():
            moves = _rollback(run, reason)
        case _:
            assert_never(verb)
    noted = tuple(_note(run, verb, actor, reason, now)) if run is not before and not moves else ()
    run, history = evolve(run, moves, now, actor)
    return run, (*noted, *history)


def _note(run: Run, verb: Verb, actor: str, reason: str, now: datetime) -> Iterator[Transition]:
    """Put into the history what moved nothing by itself."""
    environment = getattr(verb, "environment", "")
    stage = run.stage(environment)
    state = stage.state if stage is not None else run.state
    word = type(verb).__name__ + "d"
    yield Transition(
        at=now, environment=environment, before=state, after=state, reason=word, message=reason, actor=actor
    )


def _pause(run: Run, reason: str) -> Sequence[Move]:
    if run.state is RunState.PAUSED:
        return ()
    _must_be_active(run)
    return (MoveRun(to=RunState.PAUSED, reason="PausedByUser", message=reason),)


def _must_be_active(run: Run) -> None:
    if run.state not in ACTIVE:
        raise TargetError(
            f"{run.app}#{run.release} is {run.state}; fleet rollout retry {run.app} begins it anew", reason="RunEnded"
        )


def _resume(run: Run, reason: str) -> tuple[Run, Sequence[Move]]:
    if run.state is not RunState.PAUSED:
        if run.active:
            return run, ()
        raise TargetError(
            f"{run.app}#{run.release} is {run.state}, not Paused; fleet rollout retry {run.app} begins it anew",
            reason="NotPaused",
        )
    for cluster in list(run.clusters.values()):
        if cluster.state is ClusterState.FAILED and not cluster.forgiven:
            run = replace_cluster(run, msgspec.structs.replace(cluster, forgiven=True))
    run = _check_anew(run)
    to = RunState.RUNNING if run.preflight or any(s.started_at for s in run.stages) else RunState.PLANNED
    return run, (MoveRun(to=to, reason="Resumed", message=reason),)


def _check_anew(run: Run) -> Run:
    for stage in run.stages:
        if stage.state is StageState.CHECKING:
            run = replace_stage(run, msgspec.structs.replace(stage, round=stage.round + 1))
    return run


def _abort(run: Run, reason: str) -> Sequence[Move]:
    if run.state is RunState.ABORTED:
        return ()
    if run.state is not RunState.FAILED:
        _must_be_active(run)
    return (MoveRun(to=RunState.ABORTED, reason="AbortedByUser", message=reason),)


def _retry(run: Run, reason: str) -> tuple[Run, Sequence[Move]]:
    if run.returning:
        raise TargetError(
            f"clusters of {run.app}#{run.release} are still going back; try again when it is RolledBack",
            reason="GoingBack",
        )
    again = (ClusterState.FAILED, ClusterState.ROLLED_BACK)
    failed = [c for c in run.clusters.values() if c.state in again]
    if run.state is RunState.SUPERSEDED or (run.state is RunState.SUCCEEDED and not failed):
        raise TargetError(
            f"{run.app}#{run.release} is {run.state}: nothing is to be tried again", reason="NothingToRetry"
        )
    if run.active and run.state is not RunState.PAUSED and not failed:
        return run, ()
    moves: list[Move] = [move(c, ClusterState.PENDING, "Retried", reason) for c in failed]
    begun = any(c.touched for c in run.clusters.values())
    to = RunState.RUNNING if begun and run.preflight == "passed" else RunState.PLANNED
    if run.state is RunState.SUCCEEDED or run.state in (RunState.RUNNING, RunState.AWAITING_APPROVAL):
        to = RunState.RUNNING
    run = _check_anew(msgspec.structs.replace(run, preflight="" if to is RunState.PLANNED else run.preflight))
    run = _reopen(run, failed)
    return run, (*moves, MoveRun(to=to, reason="Retried", message=reason))


def _reopen(run: Run, again: Sequence[ClusterRun]) -> Run:
    """Let stages that were over be run again; what was sent back goes through all of them once more, in their order."""
    sent_back = any(c.state is ClusterState.ROLLED_BACK for c in again)
    environments = {c.environment for c in again}
    for stage in run.stages:
        if sent_back or (stage.environment in environments and stage.state is StageState.DONE):
            anew = msgspec.structs.replace(
                stage,
                state=StageState.PENDING if sent_back else StageState.RUNNING,
                reason="Retried",
                message="",
                step=0,
                finished_at=None,
                round=stage.round + 1,
            )
            run = replace_stage(run, anew)
    return run


def _skip(run: Run, name: str, reason: str) -> Sequence[Move]:
    cluster = run.clusters.get(name)
    if cluster is None:
        raise TargetError(
            f"{name} takes no part in {run.app}#{run.release}; it has: {', '.join(sorted(run.clusters))}",
            reason="UnknownCluster",
        )
    if cluster.state is ClusterState.SKIPPED and cluster.reason == "SkippedByUser":
        return ()
    return (move(cluster, ClusterState.SKIPPED, "SkippedByUser", reason),)


def _stage(run: Run, name: str) -> StageRun:
    stage = run.stage(name)
    if stage is None:
        names = ", ".join(s.environment for s in run.stages)
        raise TargetError(f"{run.app}#{run.release} has no stage {name}; it has: {names}", reason="UnknownStage")
    return stage


def _promote(run: Run, name: str) -> Run:
    stage = _stage(run, name)
    if run.state is not RunState.SUCCEEDED:
        _must_be_active(run)
    return run if stage.promoted else replace_stage(run, msgspec.structs.replace(stage, promoted=True))


def _approve(run: Run, verb: Approve, actor: str, reason: str, now: datetime) -> Run:
    _stage(run, verb.environment)
    _must_be_active(run)
    others = tuple(g for g in run.approvals if (g.environment, g.actor) != (verb.environment, actor))
    given = Given(environment=verb.environment, actor=actor, at=now, digest=verb.digest, reason=reason)
    return msgspec.structs.replace(run, approvals=(*others, given))


def _rollback(run: Run, reason: str) -> Sequence[Move]:
    if run.returning or run.state is RunState.ROLLED_BACK:
        return ()
    if run.state is RunState.SUPERSEDED:
        raise TargetError(
            f"{run.app}#{run.release} was superseded; fleet rollback {run.app} holds an earlier release",
            reason="RunEnded",
        )
    if not any(c.touched and c.before for c in run.clusters.values()):
        raise TargetError(
            f"no cluster that {run.app}#{run.release} touched had an earlier release", reason="NothingToReturnTo"
        )
    return (Return(reason="RolledBackByUser", message=reason),)
