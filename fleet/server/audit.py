"""Operations on the audit log: reading it, and checking that it is as it was written."""

from typing import Annotated

import msgspec
from msgspec import Meta

from fleet.errors import RequestError
from fleet.hub.view import AuditRow, AuditVerdict
from fleet.server.model import Continue, Model, Page
from fleet.server.moment import parse_past
from fleet.server.operation import Call

ACTS = 100
MOST_ACTS = 1000


class AuditFilter(Model, frozen=True, kw_only=True):
    """Parameters of the audit log."""

    since: Annotated[
        str, Meta(description="Acts since then: RFC 3339, or a length of time such as 24h; empty = the newest.")
    ] = ""
    actor: Annotated[str, Meta(description="One token's name.")] = ""
    app: Annotated[str, Meta(description="One app.")] = ""
    cluster: Annotated[str, Meta(description="One cluster.")] = ""
    limit: Annotated[int, Meta(ge=0, le=MOST_ACTS, description="Most acts; 0 = 100.")] = 0
    after: Continue = msgspec.field(name="continue", default="")


class HeadChoice(Model, frozen=True, kw_only=True):
    """Parameters of a check."""

    head: Annotated[
        str, Meta(pattern="^([0-9]{1,18}:[0-9a-f]{64})?$", description="`head` of an earlier check, to be still there.")
    ] = ""


async def list_audit(call: Call, query: AuditFilter) -> Page[AuditRow]:
    """Answer acts, oldest first: the newest, or those since a time, page by page."""
    if query.after and not (query.after.isascii() and query.after.isdigit() and len(query.after) < 19):
        raise RequestError("continue is not one that this list gave; start over without it", reason="ContinueInvalid")
    since = parse_past("since", query.since, call.now) if query.since.strip() else None
    after, limit = int(query.after or -1), query.limit or ACTS
    rows = await call.hub.audit(
        since=since, after=after, limit=limit, actor=query.actor, app=query.app, cluster=query.cluster
    )
    more = (since is not None or after >= 0) and len(rows) == limit
    return Page(items=tuple(rows), after=str(rows[-1].seq) if more else "")


async def verify_audit(call: Call, query: HeadChoice) -> AuditVerdict:
    """Walk the whole chain and say whether it is as it was written."""
    return await call.hub.verify_audit(query.head)
