"""`/api/v1`: the table of operations, and how one is served."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from fleet.hub.view import (
    ApprovalRow,
    AppRow,
    AuditRow,
    AuditVerdict,
    ClusterRow,
    DrainRow,
    HoldRow,
    Hub,
    Manifests,
    PauseRow,
    PlannedRow,
    PlanRow,
    RecoverRow,
    ReleaseRow,
    Rendering,
    RepositoryRow,
    Status,
    TargetRow,
    WhereRow,
)
from fleet.server import audit, custody, keys, read, seal, verb
from fleet.server.answer import Exit
from fleet.server.identity import Gate
from fleet.server.intake import read_body, read_query
from fleet.server.model import (
    AcceptBody,
    ApproveBody,
    DrainBody,
    EventFilter,
    Filter,
    HoldBody,
    NewToken,
    Page,
    Paging,
    PauseBody,
    PruneBody,
    Pruning,
    ReasonBody,
    RecoverBody,
    ReleaseChoice,
    RepositoryFilter,
    RestartBody,
    Restarted,
    ResumeBody,
    Resumed,
    RevisionChoice,
    Revoked,
    SyncBody,
    TargetAnswer,
    TargetFilter,
    TokenBody,
    UndrainBody,
    Undrained,
    Unheld,
    UnholdBody,
    Whoami,
)
from fleet.server.operation import PREFIX, Call, Operation
from fleet.server.rollout import ROLLOUT_OPERATIONS
from fleet.server.stream import Streams, wants_stream
from fleet.store.event import Event
from fleet.store.token import Role, Token

ANSWER_S = 150.0
"""Longer than a fetch and a render after it, which a sync waits for."""

_TARGET = "/targets/{cluster}/{app}"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="GET", path="/status", summary="Everything at a glance", carry_out=read.get_status, answers=Status
    ),
    Operation(
        method="GET",
        path="/clusters",
        summary="Clusters",
        carry_out=read.list_clusters,
        takes=Filter,
        answers=Page[ClusterRow],
    ),
    Operation(
        method="GET",
        path="/clusters/{name}",
        summary="One cluster",
        carry_out=read.get_cluster,
        answers=ClusterRow,
        refusals=(404,),
    ),
    Operation(
        method="GET",
        path="/clusters/{name}/manifests",
        summary="The RBAC that the hub and the apps of a cluster need",
        carry_out=custody.get_manifests,
        answers=Manifests,
        refusals=(404,),
    ),
    Operation(
        method="POST",
        path="/clusters/{name}/accept",
        summary="Accept another cluster under this name",
        carry_out=custody.accept_cluster,
        takes=AcceptBody,
        answers=ClusterRow,
        needs=Role.ADMIN,
        refusals=(404, 409),
    ),
    Operation(
        method="POST",
        path="/clusters/{name}/takeover",
        summary="Take a cluster from another hub",
        carry_out=custody.take_over_cluster,
        takes=ReasonBody,
        answers=ClusterRow,
        needs=Role.ADMIN,
        refusals=(404, 409),
    ),
    Operation(
        method="POST",
        path="/clusters/{name}/drain",
        summary="Delete what was applied to a cluster, and keep it away",
        carry_out=custody.drain_cluster,
        takes=DrainBody,
        answers=DrainRow,
        needs=Role.ADMIN,
        status=202,
        refusals=(404,),
    ),
    Operation(
        method="POST",
        path="/clusters/{name}/undrain",
        summary="End a drain",
        carry_out=custody.undrain_cluster,
        takes=UndrainBody,
        answers=Undrained,
        needs=Role.ADMIN,
        refusals=(409,),
    ),
    Operation(method="GET", path="/apps", summary="Apps", carry_out=read.list_apps, takes=Filter, answers=Page[AppRow]),
    Operation(
        method="GET",
        path="/apps/{app}/releases",
        summary="Releases of an app, newest first",
        carry_out=read.list_releases,
        takes=Paging,
        answers=Page[ReleaseRow],
        refusals=(404,),
    ),
    Operation(
        method="GET",
        path="/apps/{app}/plan",
        summary="What a rollout of a release would do, tried by dry runs",
        carry_out=read.plan_release,
        takes=ReleaseChoice,
        answers=PlanRow,
        refusals=(404, 409, 502),
    ),
    *ROLLOUT_OPERATIONS,
    Operation(
        method="GET",
        path="/repositories",
        summary="Repositories",
        carry_out=read.list_repositories,
        takes=RepositoryFilter,
        answers=Page[RepositoryRow],
    ),
    Operation(
        method="GET",
        path="/targets",
        summary="Targets; with at, which release they had then",
        carry_out=read.list_targets,
        takes=TargetFilter,
        answers=Page[TargetRow],
    ),
    Operation(
        method="GET",
        path=_TARGET,
        summary="One target with its objects",
        carry_out=read.get_target,
        answers=TargetAnswer,
        refusals=(404,),
    ),
    Operation(
        method="GET",
        path=f"{_TARGET}/diff",
        summary="Desired against live, per field",
        carry_out=read.diff_target,
        takes=Paging,
        answers=Page[PlannedRow],
        refusals=(404, 409, 502),
    ),
    Operation(
        method="GET",
        path=f"{_TARGET}/render",
        summary="What a target renders to",
        carry_out=read.render_target,
        takes=RevisionChoice,
        answers=Rendering,
        refusals=(404, 409, 422, 502),
    ),
    Operation(
        method="GET",
        path="/where/{commit}",
        summary="Where a commit runs",
        carry_out=read.find_commit,
        takes=Paging,
        answers=Page[WhereRow],
        refusals=(404, 409, 502),
    ),
    Operation(
        method="GET",
        path="/events",
        summary="What happened; with Accept: text/event-stream, what happens",
        carry_out=read.list_events,
        takes=EventFilter,
        answers=Page[Event],
        streams=True,
    ),
    Operation(
        method="GET",
        path="/audit",
        summary="Acts that changed something",
        carry_out=audit.list_audit,
        takes=audit.AuditFilter,
        answers=Page[AuditRow],
    ),
    Operation(
        method="GET",
        path="/audit/verify",
        summary="Whether the audit log is as it was written",
        carry_out=audit.verify_audit,
        takes=audit.HeadChoice,
        answers=AuditVerdict,
    ),
    Operation(
        method="GET",
        path="/pauses",
        summary="Pauses in force",
        carry_out=read.list_pauses,
        takes=Paging,
        answers=Page[PauseRow],
    ),
    Operation(
        method="GET",
        path="/approvals",
        summary="Deletions that wait for approval",
        carry_out=read.list_approvals,
        takes=Paging,
        answers=Page[ApprovalRow],
    ),
    Operation(
        method="GET",
        path="/recovery",
        summary="What a lost ledger left behind",
        carry_out=read.list_recovery,
        takes=Paging,
        answers=Page[RecoverRow],
    ),
    Operation(
        method="GET",
        path="/holds",
        summary="Holds in force",
        carry_out=read.list_holds,
        takes=Paging,
        answers=Page[HoldRow],
    ),
    Operation(method="GET", path="/whoami", summary="Who asks", carry_out=read.get_whoami, answers=Whoami),
    Operation(
        method="POST",
        path="/sync",
        summary="Fetch and reconcile now",
        carry_out=verb.sync,
        takes=SyncBody,
        answers=Page[TargetRow],
        needs=Role.OPERATOR,
        status=202,
        refusals=(404, 502),
    ),
    Operation(
        method="POST",
        path="/pause",
        summary="Pause",
        carry_out=verb.pause,
        takes=PauseBody,
        answers=PauseRow,
        needs=Role.OPERATOR,
        refusals=(404,),
    ),
    Operation(
        method="POST",
        path="/resume",
        summary="End a pause",
        carry_out=verb.resume,
        takes=ResumeBody,
        answers=Resumed,
        needs=Role.OPERATOR,
        refusals=(409,),
    ),
    Operation(
        method="POST",
        path="/rollback",
        summary="Hold targets at an earlier release",
        carry_out=verb.rollback,
        takes=HoldBody,
        answers=HoldRow,
        needs=Role.OPERATOR,
        refusals=(404, 409, 422, 502),
    ),
    Operation(
        method="POST",
        path="/recover",
        summary="Confirm that what a lost ledger left behind may be pruned",
        carry_out=verb.recover,
        takes=RecoverBody,
        answers=Page[RecoverRow],
        needs=Role.APPROVER,
        refusals=(404, 409),
    ),
    Operation(
        method="POST",
        path="/unhold",
        summary="End a hold",
        carry_out=verb.unhold,
        takes=UnholdBody,
        answers=Unheld,
        needs=Role.OPERATOR,
        refusals=(409,),
    ),
    Operation(
        method="POST",
        path=f"{_TARGET}/restart",
        summary="Restart workloads",
        carry_out=verb.restart,
        takes=RestartBody,
        answers=Restarted,
        needs=Role.OPERATOR,
        refusals=(404, 409, 502),
    ),
    Operation(
        method="POST",
        path=f"{_TARGET}/approve",
        summary="Allow a deletion that is held",
        carry_out=verb.approve,
        takes=ApproveBody,
        answers=ApprovalRow,
        needs=Role.APPROVER,
        refusals=(404, 409),
    ),
    Operation(
        method="POST",
        path=f"{_TARGET}/prune",
        summary="Prune before a failed apply is mended",
        carry_out=verb.prune,
        takes=PruneBody,
        answers=Pruning,
        needs=Role.ADMIN,
        status=202,
        refusals=(404, 409, 502),
    ),
    Operation(
        method="GET",
        path="/tokens",
        summary="Tokens",
        carry_out=verb.list_tokens,
        takes=Paging,
        answers=Page[Token],
        needs=Role.ADMIN,
    ),
    Operation(
        method="POST",
        path="/tokens",
        summary="Make a token",
        carry_out=verb.create_token,
        takes=TokenBody,
        answers=NewToken,
        needs=Role.ADMIN,
        status=201,
        refusals=(409,),
        secret=True,
    ),
    Operation(
        method="DELETE",
        path="/tokens/{name}",
        summary="Revoke a token",
        carry_out=verb.revoke_token,
        answers=Revoked,
        needs=Role.ADMIN,
        refusals=(404,),
    ),
    *keys.OPERATIONS,
    *seal.OPERATIONS,
)


class Api:
    """Serves operations over one hub."""

    def __init__(self, hub: Hub, gate: Gate, out: Exit, streams: Streams) -> None:
        self._hub = hub
        self._gate = gate
        self._out = out
        self._streams = streams

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add a route per operation."""
        for operation in OPERATIONS:
            methods = ("GET", "HEAD") if operation.method == "GET" else (operation.method,)
            for method in methods:
                router.add_route(method, PREFIX + operation.path, self._handler(operation))

    def _handler(self, operation: Operation) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            # admitted before anything of the request is read
            actor = await self._gate.admit(request, operation.needs)
            taken: Any = (
                await read_body(request, operation.takes)
                if operation.has_body
                else read_query(request, operation.takes)
            )
            if operation.streams and wants_stream(request):
                return await self._streams.serve(request, taken)
            call = Call(hub=self._hub, actor=actor, path=request.match_info)
            async with asyncio.timeout(ANSWER_S):
                value = await operation.carry_out(call, taken)
            return await self._out.json(value, status=operation.status, secret=operation.secret)

        return handle
