"""How runs are written for the store, and read back. Pure."""

import msgspec

from fleet.rollout.evolve import Transition
from fleet.rollout.state import ClusterRun, Run
from fleet.store.rollout import RolloutRow, TransitionRow


def read_run(row: RolloutRow) -> Run:
    """Read a run and its clusters."""
    run = msgspec.json.decode(row.document, type=Run)
    clusters = {name: msgspec.json.decode(text, type=ClusterRun) for name, text in row.clusters.items()}
    return msgspec.structs.replace(run, id=row.id, clusters=clusters)


def write_run(run: Run) -> str:
    """Write a run without its clusters, which have rows of their own."""
    return msgspec.json.encode(msgspec.structs.replace(run, clusters={})).decode()


def write_cluster(part: ClusterRun) -> str:
    """Write one cluster of a run."""
    return msgspec.json.encode(part).decode()


def write_transition(step: Transition) -> TransitionRow:
    """Write one step of a run's history."""
    return TransitionRow(
        at=step.at,
        environment=step.environment,
        cluster=step.cluster,
        before=step.before,
        after=step.after,
        reason=step.reason,
        message=step.message,
        actor=step.actor,
    )
