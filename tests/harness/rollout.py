"""Rollouts of plain values, for whoever shows or steers them."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from fleet.errors import TargetError
from fleet.hub.rolloutview import (
    GateRow,
    GivenRow,
    RolloutBatchRow,
    RolloutClusterRow,
    RolloutDetail,
    RolloutRow,
    RolloutStageRow,
    SampleRow,
    Steering,
    SteerRequest,
    StepRow,
)
from fleet.hub.view import Actor

NOW = "2030-01-31T12:00:00Z"
BEGAN = "2030-01-31T11:48:00Z"
DIGEST = "0123456789abcdef"


def rollout_row(app: str = "shop", number: int = 42, state: str = "Running", **changes: Any) -> RolloutRow:
    """Make the row of a rollout that is under way unless told."""
    active = state in ("Planned", "AwaitingApproval", "Running", "Paused")
    values: dict[str, Any] = {
        "revision": "2" * 40,
        "reason": "Started",
        "message": "",
        "since": BEGAN,
        "created_at": BEGAN,
        "finished_at": "" if active else NOW,
        "active": active,
        "returning": False,
        "stage": "prod" if active else "",
        "waits_for": "prod waits: eu-2: it must stay healthy for 600 s" if active else "",
        "clusters": {"Done": 1, "Soaking": 1, "Pending": 1},
    }
    return RolloutRow(app=app, release=f"{app}#{number}", number=number, state=state, **{**values, **changes})


def cluster_row(cluster: str, state: str = "Done", **changes: Any) -> RolloutClusterRow:
    """Make one cluster of a rollout."""
    values: dict[str, Any] = {
        "reason": "Healthy" if state == "Done" else "",
        "message": "",
        "since": BEGAN,
        "started_at": BEGAN if state not in ("Pending", "Held") else "",
        "finished_at": NOW if state == "Done" else "",
        "before": "shop#41",
        "broken_before": False,
        "gates": (),
        "samples": (),
    }
    return RolloutClusterRow(cluster=cluster, state=state, **{**values, **changes})


def stage_row(environment: str, state: str, *clusters: RolloutClusterRow, **changes: Any) -> RolloutStageRow:
    """Make one stage; all its clusters are one batch unless told."""
    whole = RolloutBatchRow(size="100%", clusters=tuple(c.cluster for c in clusters), over=state == "Done")
    values: dict[str, Any] = {
        "after": (),
        "reason": state,
        "message": "",
        "since": BEGAN,
        "started_at": BEGAN if state != "Pending" else "",
        "finished_at": NOW if state == "Done" else "",
        "promoted": False,
        "batches": (whole,),
        "gates": (),
        "approvals_needed": 0,
        "approvals": (),
        "digest": DIGEST,
        "samples": (),
    }
    return RolloutStageRow(environment=environment, state=state, clusters=clusters, **{**values, **changes})


def rollout_detail(row: RolloutRow | None = None, *stages: RolloutStageRow) -> RolloutDetail:
    """Make a rollout: dev is done, prod soaks one cluster of two, and last waits for an approval, unless told."""
    soak = GateRow(kind="Soak", message="it must stay healthy for 600 s", at="2030-01-31T12:04:00Z")
    approval = GateRow(kind="Approval", message="1 of 2 approvals (petra)", at="")
    sample = SampleRow(check="errors", at=BEGAN, outcome="passed", value="0.002", message="", counts=True)
    given = GivenRow(actor="petra", at=BEGAN, digest=DIGEST, reason="looks good", counts=True)
    shown = stages or (
        stage_row("dev", "Done", cluster_row("eu-1"), samples=(sample,)),
        stage_row(
            "prod",
            "Running",
            cluster_row("eu-2", "Soaking", reason="Soaking", gates=(soak,)),
            cluster_row("us-1", "Pending"),
            after=("dev",),
            batches=(
                RolloutBatchRow(size="50%", clusters=("eu-2",), over=False),
                RolloutBatchRow(size="100%", clusters=("us-1",), over=False),
            ),
        ),
        stage_row(
            "last",
            "Held",
            cluster_row("as-1", "Pending"),
            after=("dev",),
            gates=(approval,),
            approvals_needed=2,
            approvals=(given,),
        ),
    )
    begun = StepRow(
        at=BEGAN, environment="", cluster="", before="Planned", after="Running", reason="Started", message="", actor=""
    )
    resumed = StepRow(
        at=NOW,
        environment="",
        cluster="",
        before="Paused",
        after="Running",
        reason="Resumed",
        message="ok",
        actor="ada",
    )
    return RolloutDetail(rollout=row or rollout_row(), now=NOW, stages=shown, history=(begun, resumed))


class FakeRollouts:
    """A `fleet.hub.rolloutview.Rollouts` whose truth is its attributes; verbs are noted in `acts`."""

    def __init__(self, acts: list[tuple[str, object, str]]) -> None:
        self.acts = acts
        self.details: list[RolloutDetail] = [rollout_detail()]
        """Newest first."""

    def current(self) -> tuple[RolloutRow, ...]:
        """Every rollout that is under way or failed."""
        rows = [d.rollout for d in self.details]
        return tuple(row for row in rows if row.state not in ("Succeeded", "Superseded"))

    async def list(
        self, *, app: str = "", states: Collection[str] = (), limit: int = 100, before: int = 0
    ) -> Sequence[tuple[int, RolloutRow]]:
        """Every rollout, numbered down to one."""
        numbered = [(len(self.details) - i, detail.rollout) for i, detail in enumerate(self.details)]
        return [
            (seq, row)
            for seq, row in numbered
            if app in ("", row.app) and (not states or row.state in states) and (not before or seq < before)
        ][:limit]

    async def show(self, app: str, number: int = 0, *, history: bool = True) -> RolloutDetail | None:
        """One rollout."""
        found = [d for d in self.details if d.rollout.app == app and number in (0, d.rollout.number)]
        if found and not history:
            return msgspec.structs.replace(found[0], history=())
        return found[0] if found else None

    async def steer(self, request: SteerRequest, actor: Actor) -> RolloutRow:
        """Note it; only one plan is current."""
        if request.verb is Steering.APPROVE and request.plan not in ("", DIGEST):
            message = f"the plan of {request.stage} is {DIGEST} now, not {request.plan}"
            raise TargetError(message, reason="StalePlan")
        self.acts.append((f"rollout {request.verb}", request, actor.name))
        return next(d.rollout for d in self.details if d.rollout.app == request.app)
