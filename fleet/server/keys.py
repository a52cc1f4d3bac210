"""Operations on sealing keys. Private halves leave the hub in one of them only, and come in by one."""

from collections.abc import Iterable, Sequence

from fleet.errors import RequestError
from fleet.hub.keyview import Compromise, KeyBackup, KeyExport, MasterChange, SealKeyRow, UsageRow
from fleet.secrets.foreign import ForeignKey
from fleet.secrets.key import KeyState
from fleet.server.identity import check_environments
from fleet.server.keymodel import (
    BackupBody,
    CompromiseBody,
    ConfirmBody,
    ExportBody,
    ImportBody,
    KeyFilter,
    MasterBody,
    RetireBody,
    RotateBody,
    UsageFilter,
)
from fleet.server.listing import number, paginate, parse_states
from fleet.server.model import Nothing, Page, Paging
from fleet.server.operation import Call, Operation
from fleet.server.read import not_found
from fleet.store.token import Role

STATES = tuple(state.value for state in KeyState)


async def list_keys(call: Call, query: KeyFilter) -> Page[SealKeyRow]:
    """Answer keys, oldest first; public halves only."""
    states = parse_states(query.state, STATES)
    rows = [
        row
        for row in await call.hub.keys.list()
        if query.cluster in ("", row.cluster)
        and query.environment in ("", row.environment)
        and (not states or row.state in states)
    ]
    return _in_order(rows, Paging(limit=query.limit, after=query.after))


async def get_key(call: Call, _: Nothing) -> Page[SealKeyRow]:
    """Answer a key: once for each cluster that has it."""
    return Page(items=tuple(await _require(call, call.path["kid"])))


async def list_key_usage(call: Call, query: UsageFilter) -> Page[UsageRow]:
    """Answer what in Git needs a key, or any key of a cluster."""
    rows = await call.hub.keys.usage(kid=query.kid, cluster=query.cluster)
    page = paginate(number(rows), lambda numbered: (numbered[0],), Paging(limit=query.limit, after=query.after))
    return Page(items=tuple(row for _, row in page.items), after=page.after)


async def rotate_key(call: Call, body: RotateBody) -> SealKeyRow:
    """Make a new key of a cluster; it is used once a backup holds it."""
    _check_clusters(call, [body.cluster], "this rotation", known=True)
    return await call.hub.keys.rotate(body.cluster, body.algorithm, reason=body.reason, actor=call.actor)


async def retire_key(call: Call, body: RetireBody) -> Page[SealKeyRow]:
    """Retire a key, undo that, or destroy its private half."""
    kid = call.path["kid"]
    _check_clusters(call, [row.cluster for row in await _require(call, kid, body.cluster)], "this")
    rows = await call.hub.keys.retire(
        kid, cluster=body.cluster, how=body.how, force=body.force, reason=body.reason, actor=call.actor
    )
    return Page(items=tuple(rows))


async def compromise_key(call: Call, body: CompromiseBody) -> Compromise:
    """Trust a key no more; answers every value that must change at its source."""
    kid = call.path["kid"]
    _check_clusters(call, [row.cluster for row in await _require(call, kid, body.cluster)], "this")
    return await call.hub.keys.compromise(kid, cluster=body.cluster, reason=body.reason, actor=call.actor)


async def import_keys(call: Call, body: ImportBody) -> Page[SealKeyRow]:
    """Take keys of a cluster in: they open, and are not offered."""
    _check_clusters(call, [body.cluster], "this import", known=True)
    keys = [
        ForeignKey(
            algorithm=key.algorithm,
            secret=key.secret,
            certificate=key.certificate,
            name=key.name,
            cluster=body.cluster,
            compromised=key.compromised,
        )
        for key in body.keys
    ]
    return Page(items=tuple(await call.hub.keys.take_in(body.cluster, keys, actor=call.actor)))


async def export_keys(call: Call, body: ExportBody) -> KeyExport:
    """Let private keys out, encrypted for recipients unless `plain` is said."""
    check_environments(call.actor, [""], "an export")
    if bool(body.recipients) == body.plain:
        raise RequestError(
            "name recipients (age1...) who may open the export, or say plain, not both", reason="RecipientsMissing"
        )
    return await call.hub.keys.export(
        cluster=body.cluster,
        kid=body.kid,
        form=body.form,
        recipients=body.recipients,
        reason=body.reason,
        actor=call.actor,
    )


async def back_up_keys(call: Call, body: BackupBody) -> KeyBackup:
    """Make a backup of every key, encrypted under the master key."""
    check_environments(call.actor, [""], "a backup")
    return await call.hub.keys.back_up(body.reason, call.actor)


async def confirm_key_backup(call: Call, body: ConfirmBody) -> KeyBackup:
    """Let a backup count: the keys it holds may be used."""
    check_environments(call.actor, [""], "a backup")
    return await call.hub.keys.confirm_backup(body.digest, body.place, call.actor)


async def rotate_master_key(call: Call, body: MasterBody) -> MasterChange:
    """Encrypt every key under another master key."""
    check_environments(call.actor, [""], "the master key")
    return await call.hub.keys.rotate_master(body.to, reason=body.reason, actor=call.actor)


async def _require(call: Call, kid: str, cluster: str = "") -> list[SealKeyRow]:
    """Return the rows of a kid. Raises: RequestError with status 404."""
    rows = await call.hub.keys.list()
    found = [row for row in rows if row.kid == kid and cluster in ("", row.cluster)]
    if not found:
        raise not_found("sealing key", kid, {row.kid for row in rows})
    return found


def _check_clusters(call: Call, names: Iterable[str], act: str, *, known: bool = False) -> None:
    """Hold an act within the token's environments. Raises: RequestError with status 403, or 404 if it must be known."""
    clusters = {row.name: row.environment for row in call.hub.clusters()}
    for name in names:
        if known and name not in clusters:
            raise not_found("cluster", name, clusters)
        check_environments(call.actor, [clusters.get(name, "")], act)


def _in_order(rows: Sequence[SealKeyRow], paging: Paging) -> Page[SealKeyRow]:
    page = paginate(number(rows), lambda numbered: (numbered[0],), paging)
    return Page(items=tuple(row for _, row in page.items), after=page.after)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="GET",
        path="/keys",
        summary="Sealing keys",
        carry_out=list_keys,
        takes=KeyFilter,
        answers=Page[SealKeyRow],
    ),
    Operation(
        method="GET",
        path="/keys/usage",
        summary="What in Git needs which sealing key",
        carry_out=list_key_usage,
        takes=UsageFilter,
        answers=Page[UsageRow],
    ),
    Operation(
        method="GET",
        path="/keys/{kid}",
        summary="One sealing key",
        carry_out=get_key,
        answers=Page[SealKeyRow],
        refusals=(404,),
    ),
    Operation(
        method="POST",
        path="/keys/rotate",
        summary="Make a new sealing key",
        carry_out=rotate_key,
        takes=RotateBody,
        answers=SealKeyRow,
        needs=Role.ADMIN,
        refusals=(404, 409),
    ),
    Operation(
        method="POST",
        path="/keys/import",
        summary="Import private keys",
        carry_out=import_keys,
        takes=ImportBody,
        answers=Page[SealKeyRow],
        needs=Role.ADMIN,
        refusals=(404, 409),
    ),
    Operation(
        method="POST",
        path="/keys/export",
        summary="Export private keys",
        carry_out=export_keys,
        takes=ExportBody,
        answers=KeyExport,
        needs=Role.ADMIN,
        refusals=(404, 409),
        secret=True,
    ),
    Operation(
        method="POST",
        path="/keys/backup",
        summary="Make a backup of the sealing keys",
        carry_out=back_up_keys,
        takes=BackupBody,
        answers=KeyBackup,
        needs=Role.ADMIN,
        refusals=(409,),
        secret=True,
    ),
    Operation(
        method="POST",
        path="/keys/backup/confirm",
        summary="Let a backup count",
        carry_out=confirm_key_backup,
        takes=ConfirmBody,
        answers=KeyBackup,
        needs=Role.ADMIN,
        refusals=(404, 409),
    ),
    Operation(
        method="POST",
        path="/keys/master",
        summary="Replace the master key",
        carry_out=rotate_master_key,
        takes=MasterBody,
        answers=MasterChange,
        needs=Role.ADMIN,
        refusals=(409,),
    ),
    Operation(
        method="POST",
        path="/keys/{kid}/retire",
        summary="Retire a sealing key",
        carry_out=retire_key,
        takes=RetireBody,
        answers=Page[SealKeyRow],
        needs=Role.ADMIN,
        refusals=(404, 409),
    ),
    Operation(
        method="POST",
        path="/keys/{kid}/compromise",
        summary="Trust a sealing key no more",
        carry_out=compromise_key,
        takes=CompromiseBody,
        answers=Compromise,
        needs=Role.ADMIN,
        refusals=(404, 409),
    ),
)
