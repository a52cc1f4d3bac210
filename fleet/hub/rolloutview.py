"""What the hub shows of rollouts: plain values, as JSON on the wire. Names here are the API's names; they are stable."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from fleet.hub.view import Actor  # whose status is made of this module's rows


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything shown: immutable, encodes to JSON as it is. Times are RFC 3339 or empty."""


class GateRow(Shown, frozen=True, kw_only=True):
    """One thing that a stage or a cluster waits for, or that ends it."""

    kind: str
    """Approval, Window, Freeze, Stage, Pace, Check, StageDeadline; of clusters Soak, Deadline, Health, Dependency,
    Unreachable."""
    message: str
    at: str
    """When it opens by itself, or, of a deadline, when time is over; empty = nobody knows."""


class GivenRow(Shown, frozen=True, kw_only=True):
    """One person's approval of a stage."""

    actor: str
    """The token's name: different people are different tokens."""
    at: str
    digest: str
    """Of the plan that was approved."""
    reason: str
    counts: bool
    """It is for the plan as it is now, and has not expired."""


class SampleRow(Shown, frozen=True, kw_only=True):
    """One result of a check."""

    check: str
    at: str
    outcome: str
    """`passed`, `failed` or `inconclusive`."""
    value: str
    message: str
    counts: bool
    """It belongs to the present attempt."""


class RolloutBatchRow(Shown, frozen=True, kw_only=True):
    """One batch of a stage, with the clusters that it came to."""

    size: str
    """As in the inventory, cumulative: `25%`; `rest` for what the batches leave over."""
    clusters: tuple[str, ...]
    over: bool


class RolloutClusterRow(Shown, frozen=True, kw_only=True):
    """One cluster of a rollout."""

    cluster: str
    state: str
    """Pending, Held, Applying, Verifying, Soaking, Done, Failed, Deferred, Skipped or RolledBack."""
    reason: str
    message: str
    since: str
    started_at: str
    finished_at: str
    before: str
    """The release it had, to which it can be sent back: `shop#41`; empty for none."""
    broken_before: bool
    """It was not healthy when the rollout came to it, and does not count against the budget."""
    gates: tuple[GateRow, ...]
    samples: tuple[SampleRow, ...]


class RolloutStageRow(Shown, frozen=True, kw_only=True):
    """One environment of a rollout; clusters in the order they go."""

    environment: str
    after: tuple[str, ...]
    state: str
    """Pending, Held, Running, Checking or Done."""
    reason: str
    message: str
    since: str
    started_at: str
    finished_at: str
    promoted: bool
    """Somebody let it do without windows, pace, soak and checks."""
    batches: tuple[RolloutBatchRow, ...]
    gates: tuple[GateRow, ...]
    approvals_needed: int
    approvals: tuple[GivenRow, ...]
    digest: str
    """What an approval is for; empty when the rollout is over."""
    clusters: tuple[RolloutClusterRow, ...]
    samples: tuple[SampleRow, ...]


class StepRow(Shown, frozen=True, kw_only=True):
    """One step in the history of a rollout: of the run, of a stage, or of a cluster."""

    at: str
    environment: str
    cluster: str
    before: str
    after: str
    reason: str
    message: str
    actor: str
    """Who asked for it; empty = the rollout itself."""


class RolloutRow(Shown, frozen=True, kw_only=True):
    """One release of one app on its way."""

    app: str
    release: str
    """`shop#42`."""
    number: int
    revision: str
    state: str
    """Planned, AwaitingApproval, Running, Paused, Succeeded, Failed, Aborted, Superseded or RolledBack."""
    reason: str
    message: str
    since: str
    created_at: str
    finished_at: str
    active: bool
    """It may still move clusters."""
    returning: bool
    """Its clusters are being sent back."""
    stage: str
    """The environments that it is in now."""
    waits_for: str
    """What it waits for, in one sentence; empty when nothing is to come."""
    clusters: dict[str, int]
    """State -> number."""


class RolloutDetail(Shown, frozen=True, kw_only=True):
    """A rollout with its stages, and what happened to it."""

    rollout: RolloutRow
    now: str
    """The hub's time when this was so; what is left of a gate counts from here."""
    stages: tuple[RolloutStageRow, ...]
    history: tuple[StepRow, ...]
    """Oldest first; empty where it was not asked for."""


class Steering(StrEnum):
    """What people may tell a rollout."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    RETRY = "retry"
    SKIP = "skip"
    PROMOTE = "promote"
    APPROVE = "approve"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerRequest:
    """One verb about the newest rollout of an app.

    `cluster` goes with skip, `stage` with promote and approve; `plan` is the digest that was looked at, empty = as it is.
    """

    app: str
    verb: Steering
    reason: str
    cluster: str = ""
    stage: str = ""
    plan: str = ""
    release: int = 0
    """Only if this is the newest rollout; 0 = whichever is."""


class Rollouts(Protocol):
    """What the server needs of rollouts."""

    def current(self) -> tuple[RolloutRow, ...]:
        """Return the newest rollout of each app that is under way, did not end well or left a cluster behind, by app."""
        ...

    async def list(
        self, *, app: str = "", states: Collection[str] = (), limit: int = 100, before: int = 0
    ) -> Sequence[tuple[int, RolloutRow]]:
        """List rollouts, also those that ended, newest first, each with its number in that order.

        `before` is the number of the last one of an earlier list.
        """
        ...

    async def show(self, app: str, number: int = 0, *, history: bool = True) -> RolloutDetail | None:
        """Return the rollout of a release, the newest without a number; None when there is none.

        Without `history`, which may be long, that is left empty.
        """
        ...

    async def steer(self, request: SteerRequest, actor: "Actor") -> RolloutRow:
        """Do what a person says about the newest rollout of an app. Idempotent.

        Raises: TargetError when there is none, when it ended, or when the plan is another than the one looked at.
        """
        ...
