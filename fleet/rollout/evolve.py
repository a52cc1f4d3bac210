"""How decisions and verbs change a run. Pure; every change comes with a transition that says what and why."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

import msgspec

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
        match move:
            case MoveRun():
                run = _move_run(run, move, now, actor, history)
            case MoveStage():
                run = _move_stage(run, move, now, actor, history)
            case MoveCluster():
                run = _move_cluster(run, move, now, actor, history)
            case Join():
                run = _join(run, move, now, actor, history)
            case Return():
                run = _return(run, move, now, actor, history)
            case _:
                assert_never(move)
    return run, history


def _move_run(run: Run, move: MoveRun, now: datetime, actor: str, history: list[Transition]) -> Run:
    if move.to is not run.state and move.to not in RUN_MOVES[run.state]:
        raise ValueError(f"a run does not go from {run.state} to {move.to}")
    history.append(
        Transition(at=now, before=run.state, after=move.to, reason=move.reason, message=move.message, actor=actor)
    )
    ended = move.to in ENDED
    if ended and move.to is not RunState.SUCCEEDED:
        run = _halt(run, now)
    return msgspec.structs.replace(
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
            held = msgspec.structs.replace(
                stage,
                state=StageState.HELD,
                reason="Stopped",
                message="the rollout ended before it was over",
                since=now,
                round=stage.round + 1,
            )
            run = replace_stage(run, held)
    return run


def _move_stage(run: Run, move: MoveStage, now: datetime, actor: str, history: list[Transition]) -> Run:
    stage = run.stage(move.environment)
    if stage is None:
        raise ValueError(f"{run.app}#{run.release} has no stage {move.environment}")
    history.append(
        Transition(
            at=now,
            environment=move.environment,
            before=stage.state,
            after=move.to,
            reason=move.reason,
            message=move.message,
            actor=actor,
        )
    )
    anew = move.step != stage.step or (stage.state is StageState.CHECKING and move.to is not StageState.CHECKING)
    after = msgspec.structs.replace(
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
    return replace_stage(run, after)


def replace_stage(run: Run, stage: StageRun) -> Run:
    """Return the run with one stage changed."""
    stages = tuple(stage if s.environment == stage.environment else s for s in run.stages)
    return msgspec.structs.replace(run, stages=stages)


def _move_cluster(run: Run, move: MoveCluster, now: datetime, actor: str, history: list[Transition]) -> Run:
    cluster = run.clusters[move.cluster]
    if move.to is not cluster.state and move.to not in CLUSTER_MOVES[cluster.state]:
        raise ValueError(f"a cluster does not go from {cluster.state} to {move.to}")
    history.append(
        Transition(
            at=now,
            environment=cluster.environment,
            cluster=cluster.cluster,
            before=cluster.state,
            after=move.to,
            reason=move.reason,
            message=move.message,
            actor=actor,
        )
    )
    return replace_cluster(run, _moved(cluster, move, now))


def _moved(cluster: ClusterRun, move: MoveCluster, now: datetime) -> ClusterRun:
    to = move.to
    starts = to is ClusterState.APPLYING and not cluster.touched
    anew = to is ClusterState.PENDING or (to is ClusterState.VERIFYING and cluster.state is ClusterState.SOAKING)
    return msgspec.structs.replace(
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


def replace_cluster(run: Run, cluster: ClusterRun) -> Run:
    """Return the run with one cluster changed."""
    return msgspec.structs.replace(run, clusters={**run.clusters, cluster.cluster: cluster})


def _join(run: Run, move: Join, now: datetime, actor: str, history: list[Transition]) -> Run:
    joined = ClusterRun(cluster=move.cluster, environment=move.environment, before=move.before, since=now)
    history.append(
        Transition(
            at=now,
            environment=move.environment,
            cluster=move.cluster,
            before="",
            after=joined.state,
            reason="Joined",
            message=f"it has {run.app}#{move.before}" if move.before else "it has no release yet",
            actor=actor,
        )
    )
    run = replace_cluster(run, joined)
    if run.stage(move.environment) is None:
        run = msgspec.structs.replace(run, stages=(*run.stages, StageRun(environment=move.environment, since=now)))
    return run


def _return(run: Run, move: Return, now: datetime, actor: str, history: list[Transition]) -> Run:
    """Send back what was touched and had something; a cluster that never had a release keeps what it got."""
    history.append(
        Transition(
            at=now, before=run.state, after=RunState.RUNNING, reason=move.reason, message=move.message, actor=actor
        )
    )
    run = msgspec.structs.replace(
        run,
        state=RunState.RUNNING,
        reason=move.reason,
        message=move.message,
        since=now,
        finished_at=None,
        returning=True,
        returned=True,
    )
    for cluster in run.clusters.values():
        if cluster.touched and cluster.before and cluster.state is not ClusterState.ROLLED_BACK:
            back = MoveCluster(
                cluster=cluster.cluster,
                to=ClusterState.ROLLED_BACK,
                reason="SentBack",
                message=f"back to {run.app}#{cluster.before}",
            )
            run = _move_cluster(run, back, now, actor, history)
    return run


def add_sample(run: Run, environment: str, cluster: str, sample: Sample) -> Run:
    """Keep a result of a check; one that says no more than the last one takes its place."""
    if cluster:
        known = run.clusters.get(cluster)
        if known is None:
            return run
        return replace_cluster(run, msgspec.structs.replace(known, samples=_with(known.samples, sample)))
    stage = run.stage(environment)
    if stage is None:
        return run
    return replace_stage(run, msgspec.structs.replace(stage, samples=_with(stage.samples, sample)))


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
