"""The API's own shapes: what comes in with a request, and answers that are not one of the hub's rows."""

from datetime import datetime
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta

from fleet.hub.view import ObjectCounts, ObjectRow, TargetDetail, TargetRow
from fleet.store.token import Role

T = TypeVar("T")

MOST_EVENTS = 1000

_NAMES = "; several with commas"
Limit = Annotated[int, Meta(ge=0, le=10_000, description="Most items of this page; 0 = all.")]
Continue = Annotated[str, Meta(description="`continue` of the page before.")]
AppFilter = Annotated[str, Meta(description=f"Apps{_NAMES}.")]
ClusterFilter = Annotated[str, Meta(description=f"Clusters{_NAMES}.")]
LABEL = "[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?"
DIGEST = "[0-9a-f]{16}"
"""What a name is made of."""
# the look-ahead keeps Python's $ from passing a last newline; readers of the schema see nothing but the end
Name = Annotated[str, Meta(pattern=rf"^({LABEL})?$(?!\n)")]
Reason = Annotated[str, Meta(min_length=1, max_length=500)]
TokenName = Annotated[str, Meta(pattern=rf"^{LABEL}$(?!\n)")]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the API's own shapes."""


class Nothing(Model, frozen=True, kw_only=True):
    """Takes no parameter."""


class Paging(Model, frozen=True, kw_only=True):
    """Parameters of every list."""

    limit: Limit = 0
    after: Continue = msgspec.field(name="continue", default="")


class PageFilter(Model, frozen=True, kw_only=True):
    """Which targets the status page shows."""

    app: AppFilter = ""
    cluster: ClusterFilter = ""
    environment: Annotated[str, Meta(description=f"Environments{_NAMES}.")] = ""
    state: Annotated[str, Meta(description=f"States{_NAMES}.")] = ""
    label: Annotated[
        str, Meta(description="Label selector over the labels of clusters: `region=eu,tier in (a,b)`.")
    ] = ""


class Filter(PageFilter, frozen=True, kw_only=True):
    """Parameters of lists of targets, apps and clusters."""

    limit: Limit = 0
    after: Continue = msgspec.field(name="continue", default="")


class TargetFilter(Filter, frozen=True, kw_only=True):
    """Parameters of the list of targets."""

    at: Annotated[
        str,
        Meta(description="What ran at a past moment, RFC 3339 or a length of time ago such as 2h: rows have no state."),
    ] = ""


class RepositoryFilter(Paging, frozen=True, kw_only=True):
    """Parameters of the list of repositories."""

    app: AppFilter = ""
    state: Annotated[str, Meta(description=f"States{_NAMES}.")] = ""


class EventFilter(Model, frozen=True, kw_only=True):
    """Parameters of events."""

    since: Annotated[int, Meta(ge=-1, description="Events after this number; -1 = the newest.")] = -1
    limit: Annotated[
        int,
        Meta(ge=0, le=MOST_EVENTS, description="Most events; 0 = 100. Of a stream: how many old ones come first."),
    ] = 0
    cluster: Annotated[str, Meta(description="One cluster.")] = ""
    app: Annotated[str, Meta(description="One app.")] = ""
    kind: Annotated[
        str, Meta(description="One kind: apply, drift, prune, adopt, health, git, inventory, cluster, rollout, audit.")
    ] = ""
    reason: Annotated[str, Meta(description="One reason, such as `Orphaned`.")] = ""
    after: Continue = msgspec.field(name="continue", default="")


class RevisionChoice(Model, frozen=True, kw_only=True):
    """Parameters of a rendering."""

    revision: Annotated[str, Meta(description="A commit, or a prefix of one; empty = the desired one.")] = ""


class ReleaseChoice(Model, frozen=True, kw_only=True):
    """Parameters of a plan."""

    to: Annotated[str, Meta(description="A release (`42` or `shop#42`) or a commit; empty = the newest release.")] = ""


class Page(Model, Generic[T], frozen=True, kw_only=True):
    """A list, or a page of it."""

    items: tuple[T, ...]
    after: str = msgspec.field(name="continue", default="")
    """Give it back as `?continue=` for the next page; empty on the last."""


class TargetAnswer(Model, frozen=True, kw_only=True):
    """A target with its objects: the fields of its row, where `objects` lists them one by one, and the row as it is."""

    app: str
    cluster: str
    environment: str
    state: str
    reason: str
    message: str
    since: str
    desired_revision: str
    applied_revision: str
    release: str
    observed_at: str
    labels: dict[str, str]
    hold: str
    counts: ObjectCounts
    objects: tuple[ObjectRow, ...]
    target: TargetRow
    last_state: str
    variables: dict[str, str]
    depends_on: tuple[str, ...]

    @classmethod
    def of(cls, detail: TargetDetail) -> "TargetAnswer":
        """Spread a detail."""
        fields = {**msgspec.structs.asdict(detail.target), **msgspec.structs.asdict(detail)}
        return cls(counts=detail.target.objects, **fields)


class Whoami(Model, frozen=True, kw_only=True):
    """Who asks, as the hub sees it."""

    name: str
    role: Role
    environments: tuple[str, ...]
    """Where acting is allowed; empty = everywhere."""


class SyncBody(Model, frozen=True, kw_only=True):
    """What to fetch and reconcile now; empty = all."""

    app: Name = ""
    cluster: Name = ""
    repository: Name = ""


class PauseBody(Model, frozen=True, kw_only=True):
    """A pause of everything that the given names match."""

    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    cluster: Name = ""
    app: Name = ""
    environment: Name = ""
    until: Annotated[str, Meta(description="RFC 3339, or a length of time such as 2h; empty = until resumed.")] = ""


class ResumeBody(Model, frozen=True, kw_only=True):
    """The scope of the pause that is over."""

    cluster: Name = ""
    app: Name = ""
    environment: Name = ""


class ReasonBody(Model, frozen=True, kw_only=True):
    """Why it is done."""

    reason: Reason


class AcceptBody(ReasonBody, frozen=True, kw_only=True):
    """The identity that is accepted."""

    uid: Annotated[str, Meta(min_length=1, max_length=100, description="Of namespace kube-system.")]


class DrainBody(ReasonBody, frozen=True, kw_only=True):
    """What is drained."""

    app: Annotated[Name, Meta(description="One app; empty = every app.")] = ""


class UndrainBody(Model, frozen=True, kw_only=True):
    """The scope of the drain that is over."""

    app: Annotated[Name, Meta(description="The app that was drained; empty = the whole cluster.")] = ""


class Undrained(Model, frozen=True, kw_only=True):
    """How many drains ended; 0 when none had this scope."""

    undrained: int


class HoldBody(Model, frozen=True, kw_only=True):
    """Targets of an app to hold at an earlier release; without environment and cluster, all of them."""

    app: TokenName
    environment: Name = ""
    cluster: Name = ""
    to: Annotated[
        str, Meta(max_length=100, description="`42`, `shop#42` or a commit; empty = the last good one before.")
    ] = ""
    reason: Annotated[str, Meta(min_length=1, max_length=500)]


class UnholdBody(Model, frozen=True, kw_only=True):
    """The scope of the hold that is over."""

    app: TokenName
    environment: Name = ""
    cluster: Name = ""


class RecoverBody(Model, frozen=True, kw_only=True):
    """What a person confirms: that objects which a lost ledger left behind may be pruned; empty names match all."""

    cluster: Name = ""
    app: Name = ""
    reason: Annotated[str, Meta(min_length=1, max_length=500)]


class RestartBody(Model, frozen=True, kw_only=True):
    """Which workloads of a target; empty = all."""

    kind: str = ""
    namespace: str = ""
    name: str = ""


class ApproveBody(Model, frozen=True, kw_only=True):
    """What is approved, and why."""

    digest: Annotated[
        str, Meta(pattern=rf"^{DIGEST}$(?!\n)", description="Of what would be deleted, as /approvals shows it.")
    ]
    reason: Reason


class PruneBody(Model, frozen=True, kw_only=True):
    """Why to prune before what fails is mended."""

    reason: Reason


class TokenBody(Model, frozen=True, kw_only=True):
    """A token to make."""

    name: TokenName
    role: Role
    environments: tuple[TokenName, ...] = ()
    """Where it may act; empty = everywhere."""
    expires: Annotated[str, Meta(description="RFC 3339, or a length of time such as 30d; empty = never.")] = ""


class NewToken(Model, frozen=True, kw_only=True):
    """A new token; `token` is its secret, which is shown nowhere else."""

    name: str
    role: Role
    environments: tuple[str, ...]
    expires_at: datetime | None
    token: str


class Resumed(Model, frozen=True, kw_only=True):
    """How many pauses ended; 0 when none had this scope."""

    resumed: int


class Unheld(Model, frozen=True, kw_only=True):
    """How many holds ended; 0 when none had this scope."""

    unheld: int


class Restarted(Model, frozen=True, kw_only=True):
    """How many workloads restart."""

    restarted: int


class Pruning(Model, frozen=True, kw_only=True):
    """How many objects are pruned or let go; 0 when nothing is left to prune."""

    pruning: int


class Revoked(Model, frozen=True, kw_only=True):
    """The token that no longer works."""

    revoked: str
    already: bool = False
    """It had been revoked before."""
