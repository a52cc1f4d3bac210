"""How decisions and verbs change a run. Pure; every change comes with a transition that says what and why."""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import assert_never

from msgspec.structs import replace

from fleet.rollout.decision import Join, Move, MoveCluster, MoveRun, MoveStage, Return
from fleet.rollout.state import (
    CLUSTER_MOVES,
    RUN_MOVES,
    SETTLED,
    ClusterRun,
    ClusterState,
    Run,
    RunState,
    Sample,
    StageRun,
    StageState,
)

KEPT_SAMPLES = 200
"""Results of earlier rounds that are kept."""
ENDED = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.ABORTED, RunState.SUPERSEDED, RunState.ROLLED_BACK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One step in the history of a run: of the run, of a stage, or of a cluster."""

    at: datetime
    environment: str = ""
    cluster: str = ""
    before: str
    after: str
    reason: str
    message: str
    actor: str = ""
    """Who asked for it; empty = the run itself."""


def evolve(run: Run, moves: Iterable[Move], now: datetime, actor: str = "") -> tuple[Run, Sequence[Transition]]:
    """Apply moves in their order. Raises: ValueError when one is not allowed: a bug, nothing is changed."""
    history: list[Transition] = []
    for move in moves:
        for step in _expand(run, move):
            history.append(_describe(run, step, now, actor))
            run = _apply(run, step, now)
    return run, history


def _expand(run: Run, move: Move) -> Iterator[Move]:
    """Yield a move and what follows from it: a return sends back what was touched and had something before.

    A cluster that never had a release keeps what it got.
    """
    yield move
    if isinstance(move, Return):
        for cluster in run.clusters.values():
            if cluster.touched and cluster.before and cluster.state is not ClusterState.ROLLED_BACK:
                yield MoveCluster(
                    cluster=cluster.cluster,
                    to=ClusterState.ROLLED_BACK,
                    reason="SentBack",
                    message=f"back to {run.app}#{cluster.before}",
                )


def _describe(run: Run, move: Move, now: datetime, actor: str) -> Transition:
    """Say what a move changes. Raises: ValueError when it is not allowed."""
    environment = cluster = ""
    before: str
    after: str
    match move:
        case MoveRun():
            _allow("run", run.state, move.to, RUN_MOVES[run.state])
            before, after = run.state, move.to
        case MoveStage():
            before, after, environment = _stage(run, move.environment).state, move.to, move.environment
        case MoveCluster():
            known = run.clusters[move.cluster]
            _allow("cluster", known.state, move.to, CLUSTER_MOVES[known.state])
            before, after, environment, cluster = known.state, move.to, known.environment, move.cluster
        case Join():
            before, after, environment, cluster = "", ClusterState.PENDING, move.environment, move.cluster
        case Return():
            before, after = run.state, RunState.RUNNING
        case _:
            assert_never(move)
    reason, message = ("Joined", _welcome(run, move)) if isinstance(move, Join) else (move.reason, move.message)
    return Transition(
        at=now,
        environment=environment,
        cluster=cluster,
        before=before,
        after=after,
        reason=reason,
        message=message,
        actor=actor,
    )


def _allow(what: str, before: StrEnum, after: StrEnum, moves: Container[StrEnum]) -> None:
    if after is not before and after not in moves:
        raise ValueError(f"a {what} does not go from {before} to {after}")


def _stage(run: Run, environment: str) -> StageRun:
    stage = run.stage(environment)
    if stage is None:
        raise ValueError(f"{run.app}#{run.release} has no stage {environment}")
    return stage


def _welcome(run: Run, move: Join) -> str:
    return f"it has {run.app}#{move.before}" if move.before else "it has no release yet"


def _apply(run: Run, move: Move, now: datetime) -> Run:
    match move:
        case MoveRun():
            return _move_run(run, move, now)
        case MoveStage():
            return replace_stage(run, _moved_stage(_stage(run, move.environment), move, now))
        case MoveCluster():
            return replace_cluster(run, _moved_cluster(run.clusters[move.cluster], move, now))
        case Join():
            return _join(run, move, now)
        case Return():
            run = _move_run(run, MoveRun(to=RunState.RUNNING, reason=move.reason, message=move.message), now)
            return replace(run, returning=True, returned=True)
        case _:
            assert_never(move)


def _move_run(run: Run, move: MoveRun, now: datetime) -> Run:
    ended = move.to in ENDED
    if ended and move.to is not RunState.SUCCEEDED:
        run = _halt(run, now)
    return replace(
        run,
        state=move.to,
        reason=move.reason,
        message=move.message,
        since=now,
        finished_at=now if ended else None,
        returning=run.returning and not ended,
    )


def _halt(run: Run, now: datetime) -> Run:
    """Leave no stage of a run that ended looking as if it went on; retried, its gates are asked anew."""
    for stage in run.stages:
        if stage.state in (StageState.RUNNING, StageState.CHECKING):
            held = replace(
                stage,
                state=StageState.HELD,
                reason="Stopped",
                message="the rollout ended before it was over",
                since=now,
                round=stage.round + 1,
            )
            run = replace_stage(run, held)
    return run


def _moved_stage(stage: StageRun, move: MoveStage, now: datetime) -> StageRun:
    anew = move.step != stage.step or (stage.state is StageState.CHECKING and move.to is not StageState.CHECKING)
    return replace(
        stage,
        state=move.to,
        reason=move.reason,
        message=move.message,
        since=now,
        step=move.step,
        round=stage.round + anew,
        started_at=stage.started_at or (now if move.to is StageState.RUNNING else None),
        finished_at=now if move.to is StageState.DONE else None,
    )


def _moved_cluster(cluster: ClusterRun, move: MoveCluster, now: datetime) -> ClusterRun:
    to = move.to
    starts = to is ClusterState.APPLYING and not cluster.touched
    anew = to is ClusterState.PENDING or (to is ClusterState.VERIFYING and cluster.state is ClusterState.SOAKING)
    return replace(
        cluster,
        state=to,
        reason=move.reason,
        message=move.message,
        since=now,
        touched=(cluster.touched or starts) and to is not ClusterState.ROLLED_BACK,
        broken_before=move.broken_before if starts else cluster.broken_before,
        forgiven=cluster.forgiven and to is ClusterState.FAILED,
        retried=(cluster.retried or cluster.state is ClusterState.FAILED) and to not in SETTLED,
        started_at=now if starts else cluster.started_at,
        finished_at=now if to in SETTLED else None,
        round=cluster.round + anew,
    )


def _join(run: Run, move: Join, now: datetime) -> Run:
    joined = ClusterRun(cluster=move.cluster, environment=move.environment, before=move.before, since=now)
    run = replace_cluster(run, joined)
    if run.stage(move.environment) is None:
        run = replace(run, stages=(*run.stages, StageRun(environment=move.environment, since=now)))
    return run


def replace_stage(run: Run, stage: StageRun) -> Run:
    """Return the run with one stage changed."""
    return replace(run, stages=tuple(stage if s.environment == stage.environment else s for s in run.stages))


def replace_cluster(run: Run, cluster: ClusterRun) -> Run:
    """Return the run with one cluster changed."""
    return replace(run, clusters={**run.clusters, cluster.cluster: cluster})


def add_sample(run: Run, environment: str, cluster: str, sample: Sample) -> Run:
    """Keep a result of a check; one that says no more than the last one takes its place."""
    if cluster:
        known = run.clusters.get(cluster)
        if known is None:
            return run
        return replace_cluster(run, replace(known, samples=_with(known.samples, sample)))
    stage = run.stage(environment)
    if stage is None:
        return run
    return replace_stage(run, replace(stage, samples=_with(stage.samples, sample)))


def _with(samples: tuple[Sample, ...], sample: Sample) -> tuple[Sample, ...]:
    same = [i for i, s in enumerate(samples) if (s.check, s.round) == (sample.check, sample.round)]
    if sample.outcome == "inconclusive" and same and samples[same[-1]].outcome == "inconclusive":
        return (*samples[: same[-1]], *samples[same[-1] + 1 :], sample)
    # those of the present round say together what the check says: only what is over is forgotten
    over = [s for s in samples if s.round != sample.round][-KEPT_SAMPLES:]
    return (*over, *(s for s in samples if s.round == sample.round), sample)


def assigned(run: Run, cluster: str) -> int | None:
    """Return the release that the run gives a cluster, or gave back to it; None when that is not its affair."""
    known = run.clusters.get(cluster)
    if known is None:
        return None
    if known.touched:
        return run.release
    return known.before or None
