"""Operations that change something. Each checks what it would touch against the token's environments first."""

from collections.abc import Iterable, Sequence

from fleet.errors import RequestError
from fleet.hub.view import (
    Actor,
    ApprovalRow,
    HoldRequest,
    HoldRow,
    Hub,
    PauseRequest,
    PauseRow,
    RecoverRow,
    SyncRequest,
    TargetRow,
)
from fleet.server.identity import check_environments
from fleet.server.listing import paginate
from fleet.server.model import (
    ApproveBody,
    HoldBody,
    NewToken,
    Nothing,
    Page,
    Paging,
    PauseBody,
    PruneBody,
    Pruning,
    RecoverBody,
    RestartBody,
    Restarted,
    ResumeBody,
    Resumed,
    Revoked,
    SyncBody,
    TokenBody,
    Unheld,
    UnholdBody,
)
from fleet.server.moment import parse_end
from fleet.server.operation import Call
from fleet.server.read import not_found, require_target
from fleet.store.token import Token


async def sync(call: Call, body: SyncBody) -> Page[TargetRow]:
    """Fetch and reconcile now; answers the targets meant, before they are done."""
    _check_names(call.hub, app=body.app, cluster=body.cluster, repository=body.repository)
    meant = _targets_of(call.hub, body)
    check_environments(call.actor, (row.environment for row in meant), "this sync")
    if not meant and (body.app or body.cluster or body.repository):
        raise RequestError("no target matches all of these names; see fleet status", status=404, reason="NotFound")
    request = SyncRequest(app=body.app, cluster=body.cluster, repository=body.repository)
    return Page(items=tuple(await call.hub.sync(request, call.actor)))


def _targets_of(hub: Hub, body: SyncBody) -> list[TargetRow]:
    source = {row.app: row.repository for row in hub.apps()}
    return [
        row
        for row in hub.targets()
        if body.app in ("", row.app)
        and body.cluster in ("", row.cluster)
        and body.repository in ("", source.get(row.app))
    ]


async def pause(call: Call, body: PauseBody) -> PauseRow:
    """Pause durably: nothing that the names match is written, while detection and health go on."""
    _check_names(call.hub, app=body.app, cluster=body.cluster, environment=body.environment)
    _check_scope(call, body.cluster, body.environment, "this pause")
    request = PauseRequest(
        reason=body.reason,
        cluster=body.cluster,
        app=body.app,
        environment=body.environment,
        until=parse_end("until", body.until, call.now),
    )
    return await call.hub.pause(request, call.actor)


async def resume(call: Call, body: ResumeBody) -> Resumed:
    """End the pause of exactly this scope. Names are not checked: what was paused may have left the inventory."""
    _check_scope(call, body.cluster, body.environment, "this")
    request = PauseRequest(reason="", cluster=body.cluster, app=body.app, environment=body.environment)
    return Resumed(resumed=await call.hub.resume(request, call.actor))


async def rollback(call: Call, body: HoldBody) -> HoldRow:
    """Hold targets at an earlier release, from its stored bytes; they follow Git again when the hold ends."""
    _check_names(call.hub, app=body.app, cluster=body.cluster, environment=body.environment)
    _check_scope(call, body.cluster, body.environment, "this rollback")
    request = HoldRequest(
        app=body.app, environment=body.environment, cluster=body.cluster, to=body.to.strip(), reason=body.reason
    )
    return await call.hub.rollback(request, call.actor)


async def recover(call: Call, body: RecoverBody) -> Page[RecoverRow]:
    """Confirm that what a lost ledger left behind may be pruned; answers the objects meant."""
    _check_names(call.hub, cluster=body.cluster)
    _check_scope(call, body.cluster, "", "this recovery")
    return Page(
        items=tuple(await call.hub.recover(cluster=body.cluster, app=body.app, reason=body.reason, actor=call.actor))
    )


async def unhold(call: Call, body: UnholdBody) -> Unheld:
    """End the hold of exactly this scope. Names are not checked: what was held may have left the inventory."""
    _check_scope(call, body.cluster, body.environment, "this")
    request = HoldRequest(app=body.app, environment=body.environment, cluster=body.cluster)
    return Unheld(unheld=await call.hub.unhold(request, call.actor))


def _check_scope(call: Call, cluster: str, environment: str, act: str) -> None:
    """Hold a pause within the token's environments, also for targets that are yet to come."""
    if environment:
        touched = [environment]
    else:
        touched = [row.environment for row in call.hub.clusters() if cluster and row.name == cluster] or [""]
    check_environments(call.actor, touched, act)


async def restart(call: Call, body: RestartBody) -> Restarted:
    """Restart workloads of a target, as kubectl rollout restart does."""
    row = require_target(call)
    check_environments(call.actor, [row.environment], "this restart")
    count = await call.hub.restart(
        row.cluster, row.app, kind=body.kind, namespace=body.namespace, name=body.name, actor=call.actor
    )
    return Restarted(restarted=count)


async def approve(call: Call, body: ApproveBody) -> ApprovalRow:
    """Allow exactly the deletion of this digest."""
    row = _deleting_from(call, "this approval")
    return await call.hub.approve(row.cluster, row.app, digest=body.digest, reason=body.reason, actor=call.actor)


async def prune(call: Call, body: PruneBody) -> Pruning:
    """Prune although a failed apply blocks it; answers before the objects are gone."""
    row = _deleting_from(call, "this prune")
    return Pruning(pruning=await call.hub.prune(row.cluster, row.app, reason=body.reason, actor=call.actor))


def _deleting_from(call: Call, act: str) -> TargetRow:
    """Return the target; the environment is the cluster's, since an app that left the inventory has none."""
    row = require_target(call)
    environments = [each.environment for each in call.hub.clusters() if each.name == row.cluster]
    check_environments(call.actor, environments or [row.environment], act)
    return row


async def list_tokens(call: Call, query: Paging) -> Page[Token]:
    """Answer tokens, without their secrets; revoked ones too."""
    return paginate(await call.hub.tokens(), lambda token: (token.name,), query)


async def create_token(call: Call, body: TokenBody) -> NewToken:
    """Make a token; its secret is in this answer and nowhere else."""
    _check_grant(call.actor, body.environments)
    for environment in body.environments:
        _check_names(call.hub, environment=environment)
    expires_at = parse_end("expires", body.expires, call.now)
    secret = await call.hub.create_token(body.name, body.role, body.environments, expires_at, call.actor)
    return NewToken(name=body.name, role=body.role, environments=body.environments, expires_at=expires_at, token=secret)


async def revoke_token(call: Call, _: Nothing) -> Revoked:
    """Revoke a token, from now on. Idempotent; the answer says when it had been revoked before."""
    name = call.path["name"]
    tokens = {token.name: token for token in await call.hub.tokens()}
    if name in tokens:
        _check_grant(call.actor, tokens[name].environments)
    if not await call.hub.revoke_token(name, call.actor):
        raise not_found("token", name, tokens)
    return Revoked(revoked=name, already=tokens[name].revoked_at is not None)


def _check_grant(actor: Actor, environments: Sequence[str]) -> None:
    """Keep a token that is limited to environments from granting or taking more than it has."""
    check_environments(actor, environments or [""], "this token")


def _check_names(hub: Hub, *, app: str = "", cluster: str = "", repository: str = "", environment: str = "") -> None:
    """Refuse names that nothing has. Raises: RequestError with status 404 naming the nearest."""
    clusters = hub.clusters()
    environments = {*(row.environment for row in clusters), *hub.status().environments} if environment else set()
    asked: list[tuple[str, str, Iterable[str]]] = [
        ("app", app, (row.app for row in hub.apps())),
        ("cluster", cluster, (row.name for row in clusters)),
        ("environment", environment, environments),
        ("repository", repository, (row.name for row in hub.status().repositories)),
    ]
    for what, name, known in asked:
        names = set(known) if name else set()
        if name and name not in names:
            raise not_found(what, name, names)
