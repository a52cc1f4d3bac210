"""What can be decided about a rollout: a closed union of values."""

from dataclasses import dataclass
from typing import TypeAlias

from fleet.rollout.policy import Check
from fleet.rollout.state import ClusterRun, ClusterState, RunState, StageRun, StageState


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveRun:
    """The run as a whole changes."""

    to: RunState
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveStage:
    """A stage changes; `step` batches of it are over then."""

    environment: str
    to: StageState
    reason: str
    message: str = ""
    step: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveCluster:
    """A cluster changes; `Applying` gives it the release."""

    cluster: str
    to: ClusterState
    reason: str
    message: str = ""
    broken_before: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A cluster takes part that did not so far; `before` is the release it has, 0 = none."""

    cluster: str
    environment: str
    before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """Every cluster that the run touched is given back what it had."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What the release would do is to be tried on every cluster, without doing it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A check is due: of one cluster, or, with none, of a stage."""

    check: Check
    environment: str
    cluster: str
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """Nothing is to be done for so many seconds, unless something happens."""

    in_s: float


Move: TypeAlias = MoveRun | MoveStage | MoveCluster | Join | Return
"""What changes the run itself, and is stored before anything is done about it."""
Act: TypeAlias = Preflight | Ask | Wake
"""What is done outside the run."""
Decision: TypeAlias = Move | Act


def move(cluster: ClusterRun, to: ClusterState, reason: str, message: str = "") -> MoveCluster:
    """Move a cluster."""
    return MoveCluster(cluster=cluster.cluster, to=to, reason=reason, message=message)


def move_stage(stage: StageRun, to: StageState, reason: str, message: str = "") -> MoveStage:
    """Move a stage that stays at its batch."""
    return MoveStage(environment=stage.environment, to=to, reason=reason, message=message, step=stage.step)
