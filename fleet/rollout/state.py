"""What a rollout is and how it stands: values that are stored, and what is seen of clusters while it goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import msgspec


class RunState(StrEnum):
    """How a run stands."""

    PLANNED = "Planned"
    AWAITING_APPROVAL = "AwaitingApproval"
    RUNNING = "Running"
    PAUSED = "Paused"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    ABORTED = "Aborted"
    SUPERSEDED = "Superseded"
    ROLLED_BACK = "RolledBack"


class StageState(StrEnum):
    """How one environment of a run stands."""

    PENDING = "Pending"
    HELD = "Held"
    RUNNING = "Running"
    CHECKING = "Checking"
    DONE = "Done"


class ClusterState(StrEnum):
    """How one cluster of a run stands."""

    PENDING = "Pending"
    HELD = "Held"
    APPLYING = "Applying"
    VERIFYING = "Verifying"
    SOAKING = "Soaking"
    DONE = "Done"
    FAILED = "Failed"
    DEFERRED = "Deferred"
    SKIPPED = "Skipped"
    ROLLED_BACK = "RolledBack"


R, C = RunState, ClusterState
RUN_MOVES: Mapping[RunState, frozenset[RunState]] = {
    R.PLANNED: frozenset({R.AWAITING_APPROVAL, R.RUNNING, R.PAUSED, R.SUCCEEDED, R.FAILED, R.ABORTED, R.SUPERSEDED}),
    R.AWAITING_APPROVAL: frozenset(
        {R.RUNNING, R.PAUSED, R.SUCCEEDED, R.FAILED, R.ABORTED, R.SUPERSEDED, R.ROLLED_BACK}
    ),
    R.RUNNING: frozenset(
        {R.AWAITING_APPROVAL, R.PAUSED, R.SUCCEEDED, R.FAILED, R.ABORTED, R.SUPERSEDED, R.ROLLED_BACK}
    ),
    R.PAUSED: frozenset({R.PLANNED, R.RUNNING, R.FAILED, R.ABORTED, R.SUPERSEDED, R.ROLLED_BACK}),
    R.SUCCEEDED: frozenset({R.RUNNING, R.SUPERSEDED, R.ROLLED_BACK}),
    R.FAILED: frozenset({R.PLANNED, R.RUNNING, R.ABORTED, R.SUPERSEDED, R.ROLLED_BACK}),
    R.ABORTED: frozenset({R.PLANNED, R.RUNNING, R.SUPERSEDED, R.ROLLED_BACK}),
    R.ROLLED_BACK: frozenset({R.PLANNED, R.RUNNING, R.FAILED, R.SUPERSEDED}),
    R.SUPERSEDED: frozenset(),
}
"""Every move a run may make."""

CLUSTER_MOVES: Mapping[ClusterState, frozenset[ClusterState]] = {
    C.PENDING: frozenset({C.HELD, C.APPLYING, C.DEFERRED, C.SKIPPED, C.FAILED, C.ROLLED_BACK}),
    C.HELD: frozenset({C.PENDING, C.APPLYING, C.DEFERRED, C.SKIPPED, C.FAILED, C.ROLLED_BACK}),
    C.APPLYING: frozenset({C.VERIFYING, C.SOAKING, C.DONE, C.FAILED, C.DEFERRED, C.SKIPPED, C.ROLLED_BACK}),
    C.VERIFYING: frozenset({C.SOAKING, C.DONE, C.FAILED, C.DEFERRED, C.SKIPPED, C.ROLLED_BACK}),
    C.SOAKING: frozenset({C.VERIFYING, C.DONE, C.FAILED, C.DEFERRED, C.SKIPPED, C.ROLLED_BACK}),
    C.DONE: frozenset({C.FAILED, C.SKIPPED, C.ROLLED_BACK}),
    C.FAILED: frozenset({C.PENDING, C.SKIPPED, C.ROLLED_BACK}),
    C.DEFERRED: frozenset({C.PENDING, C.APPLYING, C.FAILED, C.SKIPPED, C.ROLLED_BACK}),
    C.SKIPPED: frozenset({C.PENDING, C.ROLLED_BACK}),
    C.ROLLED_BACK: frozenset({C.PENDING, C.SKIPPED}),
}
"""Every move a cluster may make."""

ACTIVE = frozenset({R.PLANNED, R.AWAITING_APPROVAL, R.RUNNING, R.PAUSED})
"""A run that may still move clusters by itself or when told to."""
IN_FLIGHT = frozenset({C.APPLYING, C.VERIFYING, C.SOAKING})
WAITING = frozenset({C.PENDING, C.HELD})
SETTLED = frozenset({C.DONE, C.FAILED, C.DEFERRED, C.SKIPPED, C.ROLLED_BACK})
"""A cluster that its batch no longer waits for."""


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One result of a check, as kept in the history of a run."""

    check: str
    at: datetime
    outcome: str
    """`passed`, `failed` or `inconclusive`."""
    value: str = ""
    message: str = ""
    round: int = 0
    """Which attempt it belongs to; only those of the present one count."""


class Given(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One person's approval of a stage."""

    environment: str
    actor: str
    at: datetime
    digest: str
    """Of the plan that was approved."""
    reason: str = ""


class ClusterRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One cluster of a run."""

    cluster: str
    environment: str
    before: int = 0
    """The release it had, to which it may be sent back; 0 = none."""
    state: ClusterState = ClusterState.PENDING
    reason: str = ""
    message: str = ""
    since: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    touched: bool = False
    """It was given the run's release, and not sent back since."""
    broken_before: bool = False
    """It was not healthy when the run came to it."""
    retried: bool = False
    """Somebody had it tried again: what it still shows of the last time is given a while to go."""
    forgiven: bool = False
    """Its failure no longer counts: somebody resumed the run."""
    round: int = 0
    """Grows when its health is watched anew."""
    samples: tuple[Sample, ...] = ()


class StageRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One environment of a run."""

    environment: str
    state: StageState = StageState.PENDING
    reason: str = ""
    message: str = ""
    since: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    step: int = 0
    """How many batches are over, their checks passed."""
    promoted: bool = False
    """Somebody with a reason let it do without windows, pace, soak and checks."""
    round: int = 0
    """Grows when its checks are asked anew."""
    samples: tuple[Sample, ...] = ()


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One release of one app on its way; clusters by name."""

    id: int
    app: str
    release: int
    revision: str
    created_at: datetime
    state: RunState = RunState.PLANNED
    reason: str = ""
    message: str = ""
    since: datetime | None = None
    finished_at: datetime | None = None
    preflight: str = ""
    """`passed` or `failed`; empty = not asked yet."""
    returning: bool = False
    """Its clusters are being sent back."""
    returned: bool = False
    """They were sent back once: what fails again pauses."""
    stages: tuple[StageRun, ...] = ()
    approvals: tuple[Given, ...] = ()
    clusters: dict[str, ClusterRun] = {}

    @property
    def active(self) -> bool:
        """May still move clusters."""
        return self.state in ACTIVE

    def stage(self, environment: str) -> StageRun | None:
        """Return one stage."""
        return next((s for s in self.stages if s.environment == environment), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is seen of a cluster now. Times are seconds of a clock that never jumps."""

    reachable: bool | None = None
    """None = not known yet."""
    unreachable_for_s: float = 0.0
    known_in_s: float | None = None
    """When it will be known whether it can be reached, if nothing is heard of it."""
    held: str = ""
    """Why it stays at another release: somebody holds or drains it."""
    dependency: str = ""
    """What it must wait for on its own cluster."""
    acknowledged: bool = False
    """It has everything of the release that the run gave it, or gave it back."""
    healthy_for_s: float | None = None
    """How long it has been healthy without a break since it acknowledged; None = it is not, or nobody knows."""
    unhealthy_for_s: float = 0.0
    """How long it has not been healthy since it was started, or since it was healthy last."""
    failure: str = ""
    """What will not mend by itself: object, container and message."""
    failure_reason: str = ""
    broken: bool = False
    """It is known not to be healthy with what it has."""
    problem: str = ""
    """What is not as it should be, though it may mend; for messages."""


ABSENT = Seen()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a decision looks at besides the policy and the time."""

    run: Run
    seen: Mapping[str, Seen]
    """By cluster; one that is missing is no target of the app any more."""
    order: Mapping[str, Sequence[str]]
    """The clusters of each stage, in the order they go."""
    digests: Mapping[str, str]
    """What an approval of each stage is for."""
    joining: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Targets that the release changes and the run does not know: environment, and the release they have."""
    newer: bool = False
    """A newer release waits."""
    since_start_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds since a cluster of a stage was started last."""
    stage_for_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds that a stage has been going on, gates not counted."""
