"""Operations that look."""

from collections.abc import Iterable
from typing import TypeVar

from fleet.errors import RequestError, TargetError
from fleet.hub.view import (
    ApprovalRow,
    AppRow,
    ClusterRow,
    HoldRow,
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
from fleet.server.listing import CLUSTER_STATES, REPOSITORY_STATES, Scope, number, paginate, parse_names, parse_states
from fleet.server.model import (
    EventFilter,
    Filter,
    Nothing,
    Page,
    Paging,
    ReleaseChoice,
    RepositoryFilter,
    RevisionChoice,
    TargetAnswer,
    TargetFilter,
    Whoami,
)
from fleet.server.moment import parse_past
from fleet.server.nearest import suggest
from fleet.server.operation import Call
from fleet.store.event import Event

T = TypeVar("T")

EVENTS = 100


def not_found(what: str, name: str, known: Iterable[str]) -> RequestError:
    """Make the error for a name that nothing has."""
    return RequestError(f"there is no {what} {name}{suggest(name, known)}", status=404, reason="NotFound")


async def get_status(call: Call, _: Nothing) -> Status:
    """Answer everything at a glance."""
    return call.hub.status()


async def list_clusters(call: Call, query: Filter) -> Page[ClusterRow]:
    """Answer clusters; `app` keeps those it goes to, `state` is the cluster's own."""
    scope = Scope.parse(query, CLUSTER_STATES)
    reached = {row.cluster for row in call.hub.targets() if row.app in scope.apps} if scope.apps else set()
    rows = [
        row
        for row in call.hub.clusters()
        if (not scope.apps or row.name in reached)
        and (not scope.clusters or row.name in scope.clusters)
        and (not scope.environments or row.environment in scope.environments)
        and (not scope.states or row.state in scope.states)
        and scope.selector.matches(row.labels)
    ]
    return paginate(rows, lambda row: (row.name,), query)


async def get_cluster(call: Call, _: Nothing) -> ClusterRow:
    """Answer one cluster."""
    rows = {row.name: row for row in call.hub.clusters()}
    name = call.path["name"]
    if name not in rows:
        raise not_found("cluster", name, rows)
    return rows[name]


async def list_apps(call: Call, query: Filter) -> Page[AppRow]:
    """Answer apps; beside `app`, a filter keeps apps with a target that it matches."""
    scope = Scope.parse(query)
    having = {row.app for row in call.hub.targets() if scope.matches(row)} if scope.is_of_targets else None
    rows = [
        row
        for row in call.hub.apps()
        if (not scope.apps or row.app in scope.apps) and (having is None or row.app in having)
    ]
    return paginate(rows, lambda row: (row.app,), query)


async def list_repositories(call: Call, query: RepositoryFilter) -> Page[RepositoryRow]:
    """Answer repositories; `app` keeps the one it comes from."""
    apps, states = parse_names(query.app), parse_states(query.state, REPOSITORY_STATES)
    sources = {row.repository for row in call.hub.apps() if row.app in apps}
    rows = [
        row
        for row in call.hub.status().repositories
        if (not apps or row.name in sources) and (not states or row.state in states)
    ]
    return paginate(rows, lambda row: (row.name,), query)


async def list_targets(call: Call, query: TargetFilter) -> Page[TargetRow]:
    """Answer targets: as they are, or what they had at a past moment."""
    scope = Scope.parse(query)
    if query.at and scope.states:
        raise RequestError("states of then are not kept; leave out state, or at", reason="InvalidField")
    found = await call.hub.targets_at(parse_past("at", query.at, call.now)) if query.at else call.hub.targets()
    rows = [row for row in found if scope.matches(row)]
    return paginate(rows, lambda row: (row.cluster, row.app), query)


def require_target(call: Call) -> TargetRow:
    """Return the row of the target that the path names. Raises: RequestError with status 404."""
    cluster, app = call.path["cluster"], call.path["app"]
    detail = call.hub.target(cluster, app)
    if detail is not None:
        return detail.target
    clusters = [row.name for row in call.hub.clusters()]
    if cluster not in clusters:
        raise not_found("cluster", cluster, clusters)
    apps = [row.app for row in call.hub.apps()]
    if app not in apps:
        raise not_found("app", app, apps)
    raise TargetError(f"app {app} does not go to cluster {cluster}", reason="NotFound")


async def get_target(call: Call, _: Nothing) -> TargetAnswer:
    """Answer a target with its objects."""
    require_target(call)
    detail = call.hub.target(call.path["cluster"], call.path["app"])
    assert detail is not None
    return TargetAnswer.of(detail)


async def diff_target(call: Call, query: Paging) -> Page[PlannedRow]:
    """Compare desired with live, per field; asks the cluster."""
    require_target(call)
    rows = await call.hub.diff(call.path["cluster"], call.path["app"])
    return _in_order(rows, query)


async def render_target(call: Call, query: RevisionChoice) -> Rendering:
    """Render a target as it would be applied."""
    require_target(call)
    return await call.hub.render(call.path["cluster"], call.path["app"], query.revision.strip())


async def find_commit(call: Call, query: Paging) -> Page[WhereRow]:
    """Say on which targets a commit runs."""
    commit = call.path["commit"]
    if not 4 <= len(commit) <= 40 or not set(commit.lower()) <= set("0123456789abcdef"):
        raise RequestError(f"{commit!r} is not a commit: give 4 to 40 hex digits", status=400, reason="CommitInvalid")
    rows = await call.hub.where(commit.lower())
    return paginate(rows, lambda row: (row.cluster, row.app), query)


async def list_events(call: Call, query: EventFilter) -> Page[Event]:
    """Answer events, oldest first: the newest, or those after `since`, page by page."""
    since, limit = event_start(query), query.limit or EVENTS
    rows = await call.hub.events(
        since=since, limit=limit, cluster=query.cluster, app=query.app, kind=query.kind, reason=query.reason
    )
    more = since >= 0 and len(rows) == limit
    return Page(items=tuple(rows), after=str(rows[-1].seq) if more else "")


def event_start(query: EventFilter) -> int:
    """Return the number after which events are asked for; -1 for the newest."""
    if query.after and not (query.after.isascii() and query.after.isdigit() and len(query.after) < 19):
        raise RequestError("continue is not one that this list gave; start over without it", reason="ContinueInvalid")
    return int(query.after) if query.after else query.since


async def list_pauses(call: Call, query: Paging) -> Page[PauseRow]:
    """Answer the pauses in force."""
    return _in_order(call.hub.status().pauses, query)


async def list_approvals(call: Call, query: Paging) -> Page[ApprovalRow]:
    """Answer deletions that wait for approval, then those approved and not over yet."""
    return _in_order(call.hub.approvals(), query)


async def list_releases(call: Call, query: Paging) -> Page[ReleaseRow]:
    """Answer an app's releases, newest first."""
    apps, name = {row.app for row in call.hub.apps()}, call.path["app"]
    rows = await call.hub.releases(name)
    if not rows and name not in apps:
        raise not_found("app", name, apps)
    return _in_order(rows, query)


async def plan_release(call: Call, query: ReleaseChoice) -> PlanRow:
    """Plan a release of an app, and try it on its clusters without writing."""
    apps, name = {row.app for row in call.hub.apps()}, call.path["app"]
    if name not in apps:
        raise not_found("app", name, apps)
    return await call.hub.plan(name, query.to.strip())


async def list_recovery(call: Call, query: Paging) -> Page[RecoverRow]:
    """Answer the objects that a lost ledger left behind, which wait for somebody to confirm that they may go."""
    return _in_order(call.hub.recovery(), query)


async def list_holds(call: Call, query: Paging) -> Page[HoldRow]:
    """Answer the holds in force."""
    return _in_order(call.hub.status().holds, query)


async def get_whoami(call: Call, _: Nothing) -> Whoami:
    """Answer who asks."""
    actor = call.actor
    return Whoami(name=actor.name, role=actor.role, environments=actor.environments)


def _in_order(rows: Iterable[T], paging: Paging) -> Page[T]:
    page = paginate(number(list(rows)), lambda numbered: (numbered[0],), paging)
    return Page(items=tuple(row for _, row in page.items), after=page.after)
