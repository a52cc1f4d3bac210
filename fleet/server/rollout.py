"""Operations on rollouts: looking at them, and steering them."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fleet.errors import RequestError
from fleet.hub.rolloutview import RolloutDetail, RolloutRow, Steering, SteerRequest
from fleet.rollout.state import RunState
from fleet.server.identity import check_environments
from fleet.server.listing import parse_states
from fleet.server.model import DIGEST, LABEL, Continue, Model, Page, ReasonBody
from fleet.server.operation import Call, Operation
from fleet.server.read import not_found
from fleet.store.token import Role

ROLLOUTS = 100
MOST_ROLLOUTS = 500

NeededName = Annotated[str, Meta(pattern=rf"^{LABEL}$(?!\n)")]


class RolloutFilter(Model, frozen=True, kw_only=True):
    """Parameters of the list of rollouts."""

    app: Annotated[str, Meta(description="One app.")] = ""
    state: Annotated[str, Meta(description="States; several with commas.")] = ""
    limit: Annotated[int, Meta(ge=0, le=MOST_ROLLOUTS, description="Most rollouts; 0 = 100.")] = 0
    after: Continue = msgspec.field(name="continue", default="")


class RolloutChoice(Model, frozen=True, kw_only=True):
    """Parameters of one rollout."""

    history: Annotated[bool, Meta(description="Whether its history, which may be long, comes too.")] = True


class SteerBody(ReasonBody, frozen=True, kw_only=True):
    """Why, and of which rollout."""

    release: Annotated[
        int,
        Meta(ge=0, description="Number of the release; another newest rollout is refused. 0 = whichever is newest."),
    ] = 0


class SkipBody(SteerBody, frozen=True, kw_only=True):
    """Which cluster is left out, and why."""

    cluster: NeededName


class PromoteBody(SteerBody, frozen=True, kw_only=True):
    """Which stage does without windows, freezes, pace, soak and checks, and why."""

    stage: NeededName


class ApproveStageBody(SteerBody, frozen=True, kw_only=True):
    """Which stage may begin, and why."""

    stage: NeededName
    plan: Annotated[
        str,
        Meta(
            pattern=rf"^({DIGEST})?$(?!\n)",
            description="`digest` of the stage as it was looked at; another plan is refused. Empty = as it is.",
        ),
    ] = ""


async def list_rollouts(call: Call, query: RolloutFilter) -> Page[RolloutRow]:
    """Answer rollouts, newest first, also those that ended."""
    if query.after and not (query.after.isascii() and query.after.isdigit() and len(query.after) < 19):
        raise RequestError("continue is not one that this list gave; start over without it", reason="ContinueInvalid")
    limit, states = query.limit or ROLLOUTS, parse_states(query.state, [state.value for state in RunState])
    found = await call.hub.rollouts.list(app=query.app, states=states, limit=limit, before=int(query.after or 0))
    if query.app and not found and query.app not in (apps := [row.app for row in call.hub.apps()]):
        raise not_found("app", query.app, apps)
    return Page(items=tuple(row for _, row in found), after=str(found[-1][0]) if len(found) == limit else "")


async def get_newest_rollout(call: Call, query: RolloutChoice) -> RolloutDetail:
    """Answer the newest rollout of an app, with its stages and history."""
    return await _require(call, history=query.history)


async def get_rollout(call: Call, query: RolloutChoice) -> RolloutDetail:
    """Answer the rollout of one release."""
    text = call.path["release"]
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text)):
        raise RequestError(f"{text!r} is not the number of a release, such as 42", reason="ReleaseInvalid")
    return await _require(call, int(text), history=query.history)


async def _require(call: Call, number: int = 0, *, history: bool = False) -> RolloutDetail:
    """Return the rollout that the path names. Raises: RequestError with status 404."""
    app = call.path["app"]
    detail = await call.hub.rollouts.show(app, number, history=history)
    if detail is not None:
        return detail
    apps = [row.app for row in call.hub.apps()]
    if app not in apps:
        raise not_found("app", app, apps)
    what = f"{app}#{number} has no rollout" if number else f"app {app} has no rollout yet"
    raise RequestError(f"{what}; fleet rollout list --app {app} shows what there is", status=404, reason="NoRollout")


async def pause_rollout(call: Call, body: SteerBody) -> RolloutRow:
    """Start no more clusters."""
    return await _steer(call, Steering.PAUSE, body)


async def resume_rollout(call: Call, body: SteerBody) -> RolloutRow:
    """Go on; failures so far no longer count."""
    return await _steer(call, Steering.RESUME, body)


async def abort_rollout(call: Call, body: SteerBody) -> RolloutRow:
    """End it where it is."""
    return await _steer(call, Steering.ABORT, body)


async def retry_rollout(call: Call, body: SteerBody) -> RolloutRow:
    """Try again what failed, was aborted or was sent back."""
    return await _steer(call, Steering.RETRY, body)


async def roll_back_rollout(call: Call, body: SteerBody) -> RolloutRow:
    """Send every cluster that it touched back to what it had."""
    return await _steer(call, Steering.ROLLBACK, body)


async def skip_cluster(call: Call, body: SkipBody) -> RolloutRow:
    """Leave a cluster out."""
    return await _steer(call, Steering.SKIP, body, cluster=body.cluster)


async def promote_stage(call: Call, body: PromoteBody) -> RolloutRow:
    """Let a stage do without windows, freezes, pace, soak and checks."""
    return await _steer(call, Steering.PROMOTE, body, stage=body.stage)


async def approve_stage(call: Call, body: ApproveStageBody) -> RolloutRow:
    """Say yes to a stage as planned."""
    return await _steer(call, Steering.APPROVE, body, stage=body.stage, plan=body.plan)


async def _steer(
    call: Call, verb: Steering, body: SteerBody, *, cluster: str = "", stage: str = "", plan: str = ""
) -> RolloutRow:
    detail = await _require(call)
    check_environments(call.actor, _touched(detail, cluster, stage), "this")
    app = detail.rollout.app
    request = SteerRequest(
        app=app, verb=verb, reason=body.reason, cluster=cluster, stage=stage, plan=plan, release=body.release
    )
    return await call.hub.rollouts.steer(request, call.actor)


def _touched(detail: RolloutDetail, cluster: str, stage: str) -> list[str]:
    """Name the environments that a verb is about: that of the cluster or stage, else all of the rollout."""
    if stage:
        return [stage]
    return [s.environment for s in detail.stages if cluster in ("", *(c.cluster for c in s.clusters))]


_ONE = "/rollouts/{app}"


def _verb(
    name: str,
    summary: str,
    carry_out: Callable[[Call, Any], Awaitable[RolloutRow]],
    takes: type[Model] = SteerBody,
    needs: Role = Role.OPERATOR,
) -> Operation:
    return Operation(
        method="POST",
        path=f"{_ONE}/{name}",
        summary=summary,
        carry_out=carry_out,
        takes=takes,
        answers=RolloutRow,
        needs=needs,
        refusals=(404, 409),
    )


ROLLOUT_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path="/rollouts",
        summary="Rollouts, newest first",
        carry_out=list_rollouts,
        takes=RolloutFilter,
        answers=Page[RolloutRow],
        refusals=(404,),
    ),
    Operation(
        method="GET",
        path=_ONE,
        summary="The newest rollout of an app: stages, clusters, gates, history",
        carry_out=get_newest_rollout,
        takes=RolloutChoice,
        answers=RolloutDetail,
        refusals=(404,),
    ),
    Operation(
        method="GET",
        path=f"{_ONE}/{{release}}",
        summary="The rollout of one release, by its number",
        carry_out=get_rollout,
        takes=RolloutChoice,
        answers=RolloutDetail,
        refusals=(404,),
    ),
    _verb("pause", "Start no more clusters", pause_rollout),
    _verb("resume", "Go on after a pause; failures so far no longer count", resume_rollout),
    _verb("abort", "End a rollout where it is; every cluster keeps what it has", abort_rollout),
    _verb("retry", "Try again what failed, was aborted or was sent back", retry_rollout),
    _verb("rollback", "Send every cluster that a rollout touched back to what it had", roll_back_rollout),
    _verb("skip", "Leave a cluster out; it keeps what it has", skip_cluster, SkipBody),
    _verb("promote", "Let a stage do without windows, freezes, pace, soak and checks", promote_stage, PromoteBody),
    _verb("approve", "Approve a stage as planned", approve_stage, ApproveStageBody, Role.APPROVER),
)
