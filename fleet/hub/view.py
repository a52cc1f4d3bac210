"""What the hub shows and lets people do: plain values, as JSON on the wire, and the verbs behind `/api/v1`.

Names here are the API's names; they are stable (design §12).
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from fleet.hub.rolloutview import RolloutRow, Rollouts
from fleet.store.event import Event
from fleet.store.token import Role, Token

if TYPE_CHECKING:
    from fleet.hub.keyview import SealKeys  # its rows are made of this module's


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything shown: immutable, encodes to JSON as it is."""


class ObjectCounts(Row, frozen=True, kw_only=True):
    """How a target's objects are."""

    total: int = 0
    current: int = 0
    drifted: int = 0
    failed: int = 0


class DriftRow(Row, frozen=True, kw_only=True):
    """One field that is not as Git says."""

    path: str
    manager: str
    at: str
    change: str
    """`changed`, `removed` or `added`."""


class ObjectRow(Row, frozen=True, kw_only=True):
    """One object of a target."""

    group: str
    version: str
    kind: str
    namespace: str
    name: str
    action: str
    health: str
    reason: str
    message: str
    drift: tuple[DriftRow, ...] = ()
    overridden: tuple[str, ...] = ()
    """Managers whose values the last apply replaced, with the field."""
    file: str = ""


class TargetRow(Row, frozen=True, kw_only=True):
    """One app on one cluster. Timestamps are RFC 3339; revisions 40 hex digits or empty."""

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
    """`shop#42`; empty before the first."""
    observed_at: str
    objects: ObjectCounts
    labels: dict[str, str] = {}
    """The cluster's labels, for selectors."""
    hold: str = ""
    """What keeps it at an earlier release: who and why; empty when it follows Git."""


class TargetDetail(Row, frozen=True, kw_only=True):
    """A target with its objects."""

    target: TargetRow
    objects: tuple[ObjectRow, ...]
    last_state: str = ""
    """While Stale: the state before the cluster fell silent."""
    variables: dict[str, str] = {}
    depends_on: tuple[str, ...] = ()


class ClusterRow(Row, frozen=True, kw_only=True):
    """One cluster."""

    name: str
    environment: str
    state: str
    """Ready, Connecting, Stale, Failed, Unknown."""
    reason: str
    message: str
    since: str
    observed_at: str
    server: str
    version: str
    uid: str
    labels: dict[str, str]
    targets: int
    synced: int
    objects: int
    watches: int
    clock_skew_s: float = 0.0
    drained: str = ""
    """What is kept away from it on purpose, by whom and why; empty for nothing."""


class AppRow(Row, frozen=True, kw_only=True):
    """One app over all its clusters."""

    app: str
    repository: str
    path: str
    release: str
    revision: str
    targets: int
    states: dict[str, int]
    """State -> number of targets."""
    depends_on: tuple[str, ...] = ()
    paused: str = ""


class RepositoryRow(Row, frozen=True, kw_only=True):
    """One repository."""

    name: str
    url: str
    ref: str
    revision: str
    state: str
    reason: str
    message: str
    fetched_at: str


class ProblemRow(Row, frozen=True, kw_only=True):
    """One fault in an inventory file."""

    file: str
    line: int
    column: int
    field: str
    message: str


class PauseRow(Row, frozen=True, kw_only=True):
    """One pause in force."""

    scope: str
    cluster: str
    app: str
    environment: str
    reason: str
    actor: str
    since: str
    until: str
    origin: str
    """`file` (set in the inventory; only there to be removed) or `command`."""


class DrainRow(Row, frozen=True, kw_only=True):
    """What was taken off a cluster on purpose, and stays away."""

    cluster: str
    app: str
    """Empty: every app."""
    reason: str
    actor: str
    since: str
    objects: int
    """How many are still there, as far as is known."""


class Manifests(Row, frozen=True, kw_only=True):
    """Manifests that give the hub and the apps of a cluster the rights they need."""

    cluster: str
    manifests: tuple[str, ...]
    """YAML-ready JSON texts."""
    missing: tuple[str, ...] = ()
    """Apps that could not be rendered: what they need is not known."""


class ApprovalRow(Row, frozen=True, kw_only=True):
    """A deletion that waits for approval, or one that was approved and is not over yet."""

    cluster: str
    app: str
    state: str
    """`waiting` or `approved`."""
    digest: str
    """Of the objects; an approval names it."""
    count: int
    objects: tuple[str, ...]
    """What would be deleted: `KIND NAMESPACE/NAME`."""
    reason: str
    """While waiting `MassChange` or `EmptyRender`; then what the approver said."""
    message: str
    actor: str
    """Who approved; empty while waiting."""
    since: str


class HoldRow(Row, frozen=True, kw_only=True):
    """One hold in force: targets that stay at a release instead of following Git."""

    scope: str
    app: str
    environment: str
    cluster: str
    release: str
    """`shop#41`."""
    reason: str
    actor: str
    since: str


class RecoverRow(Row, frozen=True, kw_only=True):
    """One object that this hub applied before it lost its records, and that is not in Git."""

    cluster: str
    app: str
    group: str
    kind: str
    namespace: str
    name: str


class ReleaseRow(Row, frozen=True, kw_only=True):
    """One release of an app. Objects are `KIND NAMESPACE/NAME`, against the release before it, over all clusters."""

    app: str
    number: int
    release: str
    """`shop#42`."""
    repository: str
    revision: str
    reason: str
    """`First`, `Commit`, `Inventory` or `Joined`."""
    created_at: str
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    runs_on: tuple[str, ...]
    """Clusters that have it now."""
    good_on: tuple[str, ...]
    """Clusters that had all of it once, for which it is kept."""
    holds: tuple[str, ...]
    """Scopes that are held at it."""


class Status(Row, frozen=True, kw_only=True):
    """Everything at a glance."""

    version: str
    hub_id: str
    started_at: str
    now: str
    clusters: dict[str, int]
    """State -> number."""
    targets: dict[str, int]
    repositories: tuple[RepositoryRow, ...]
    problems: tuple[ProblemRow, ...]
    pauses: tuple[PauseRow, ...]
    holds: tuple[HoldRow, ...] = ()
    environments: tuple[str, ...] = ()
    """Every environment of the inventory, in the order of stages."""
    rollouts: tuple[RolloutRow, ...] = ()
    """The newest of each app that is under way, did not end well or left a cluster behind."""


class PlannedRow(Row, frozen=True, kw_only=True):
    """One object of a plan or diff; Secret values are masked."""

    group: str
    version: str
    kind: str
    namespace: str
    name: str
    action: str
    reason: str
    message: str
    fields: tuple["FieldRow", ...] = ()


class FieldRow(Row, frozen=True, kw_only=True):
    """One differing field. Values are JSON texts, cut to a readable length; empty = not there."""

    path: str
    desired: str
    live: str
    manager: str
    """Who holds the live value, as far as managedFields tell."""


class TriedRow(Row, frozen=True, kw_only=True):
    """One object that a release would change, as tried by a dry run."""

    group: str
    version: str
    kind: str
    namespace: str
    name: str
    action: str
    outcome: str
    """`ok`, `refused` or `unverified` (it cannot be known before it is done)."""
    reason: str
    message: str


class PlanClusterRow(Row, frozen=True, kw_only=True):
    """One cluster that a release would change."""

    cluster: str
    environment: str
    release: str
    """What it has now: `shop#41`; empty for nothing."""
    counts: dict[str, int]
    """Action -> number of objects, unchanged ones counted."""
    outcome: str
    """The worst of its objects', or `unverified` when the cluster cannot be asked."""
    reason: str
    """Why the cluster as a whole is not ok; empty otherwise."""
    message: str
    waits: tuple[str, ...]
    """What it waits for besides the gates of its stage."""
    objects: tuple[TriedRow, ...]
    """What would change, and what is refused."""


class BatchRow(Row, frozen=True, kw_only=True):
    """Clusters that a rollout has under way at the same time."""

    size: str
    """As in the inventory, cumulative; `rest` for what the batches leave over."""
    clusters: tuple[str, ...]


class PlanStageRow(Row, frozen=True, kw_only=True):
    """One environment of a plan."""

    environment: str
    after: tuple[str, ...]
    gates: tuple[str, ...]
    """What it waits for, as sentences."""
    batches: tuple[BatchRow, ...]
    unchanged: tuple[str, ...]
    """Clusters for which the release changes nothing."""
    held: tuple[str, ...]
    """Clusters that are held at another release."""


class PlanRow(Row, frozen=True, kw_only=True):
    """What a rollout of a release would do; clusters in the order they go."""

    app: str
    release: str
    """`shop#42`; empty for a commit that is no release."""
    revision: str
    outcome: str
    """The worst of the clusters'."""
    stages: tuple[PlanStageRow, ...]
    clusters: tuple[PlanClusterRow, ...]


class WhereRow(Row, frozen=True, kw_only=True):
    """Whether a commit runs on a target."""

    app: str
    cluster: str
    environment: str
    runs: str
    """`yes`, `no` or `contained` (a later commit that contains it runs)."""
    applied_revision: str
    state: str
    message: str


class RenderedRow(Row, frozen=True, kw_only=True):
    """One manifest as it would be applied; Secret values are masked. `origins` tells where variables came from."""

    manifest: str
    """YAML-ready JSON text."""
    file: str


class Rendering(Row, frozen=True, kw_only=True):
    """What a target renders to."""

    app: str
    cluster: str
    revision: str
    manifests: tuple[RenderedRow, ...]
    variables: dict[str, str]
    origins: dict[str, str]
    """Variable -> `App`, `Environment`, `Cluster` or `override`, with its file."""


class AuditRow(Row, frozen=True, kw_only=True):
    """One act that changed something, or was to."""

    seq: int
    at: str
    actor: str
    """The token's name."""
    action: str
    cluster: str
    app: str
    subject: str
    """What it was done to, in words, where cluster and app do not say it."""
    reason: str
    """What the actor said."""
    before: dict[str, str]
    after: dict[str, str]
    result: str
    """`done`, or what failed; empty while it is under way, or when the hub ended before it did."""
    finished_at: str
    hash: str


class AuditVerdict(Row, frozen=True, kw_only=True):
    """What a walk along the audit log's chain found."""

    intact: bool
    rows: int
    head: str
    """`SEQ:HASH` of the last row that is as it was written; a later walk can be asked whether it is still there."""
    broken: int
    """Number of the first row that is not as it was written; 0 = none."""
    message: str


class Check(Row, frozen=True, kw_only=True):
    """One line of `/readyz?verbose`."""

    name: str
    ok: bool
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asks: the token's name and what it may do. `environments` empty = all."""

    name: str
    role: Role
    environments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRequest:
    """A pause of everything the non-empty names match."""

    reason: str
    cluster: str = ""
    app: str = ""
    environment: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRequest:
    """Which targets of an app to hold or to let go. `to` is `42`, `shop#42` or a commit; empty = the good release before."""

    app: str
    environment: str = ""
    cluster: str = ""
    to: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """Fetch and reconcile now; empty names match all."""

    app: str = ""
    cluster: str = ""
    repository: str = ""


class Hub(Protocol):
    """What the server needs of the running hub. Reads never wait for a cluster unless they say so."""

    @property
    def keys(self) -> "SealKeys":
        """The sealing keys."""
        ...

    @property
    def rollouts(self) -> Rollouts:
        """Releases on their way through environments."""
        ...

    def status(self) -> Status:
        """Everything at a glance."""
        ...

    def clusters(self) -> Sequence[ClusterRow]:
        """Every cluster of the inventory, by name."""
        ...

    def apps(self) -> Sequence[AppRow]:
        """Every app, by name."""
        ...

    def targets(self) -> Sequence[TargetRow]:
        """Every target, by cluster and app."""
        ...

    def target(self, cluster: str, app: str) -> TargetDetail | None:
        """One target with its objects; None when there is none."""
        ...

    async def diff(self, cluster: str, app: str) -> Sequence[PlannedRow]:
        """Compare desired with live, per field; asks the cluster. Raises: KubeError, TargetError."""
        ...

    async def render(self, cluster: str, app: str, revision: str = "") -> Rendering:
        """Render a target, at another revision if given. Raises: RenderError, SourceError, TargetError."""
        ...

    async def plan(self, app: str, to: str = "") -> PlanRow:
        """Plan a release by number or commit (empty: the newest) and try it on its clusters, without writing.

        Raises: TargetError when there is no such app or release; SourceError when nobody knows the commit.
        """
        ...

    async def where(self, commit: str) -> Sequence[WhereRow]:
        """Say on which targets a commit (or an unambiguous prefix) runs. Raises: SourceError when nobody knows it."""
        ...

    async def sync(self, request: SyncRequest, actor: Actor) -> Sequence[TargetRow]:
        """Fetch and reconcile now; returns the targets meant. Returns before they are done."""
        ...

    async def pause(self, request: PauseRequest, actor: Actor) -> PauseRow:
        """Pause durably. Idempotent."""
        ...

    async def resume(self, request: PauseRequest, actor: Actor) -> int:
        """End the pause of exactly this scope; returns how many ended. Raises: TargetError when a file sets it."""
        ...

    async def restart(self, cluster: str, app: str, *, kind: str, namespace: str, name: str, actor: Actor) -> int:
        """Restart workloads of a target (all when `kind` is empty); returns how many. Raises: KubeError, TargetError."""
        ...

    async def accept_cluster(self, name: str, *, uid: str, reason: str, actor: Actor) -> ClusterRow:
        """Take the cluster that answers for the one known by this name: its ledger starts empty. Idempotent.

        Raises: TargetError when the uid is not that of the cluster which answers, or a file pins another.
        """
        ...

    async def take_over_cluster(self, name: str, *, reason: str, actor: Actor) -> ClusterRow:
        """Take a cluster from the hub that holds it. Raises: TargetError when no other hub holds it."""
        ...

    async def drain_cluster(self, name: str, app: str, *, reason: str, actor: Actor) -> DrainRow:
        """Delete what was applied to a cluster, of one app or of all, and keep it away. Idempotent."""
        ...

    async def undrain_cluster(self, name: str, app: str, *, actor: Actor) -> int:
        """End the drain of exactly this scope; returns how many ended. Raises: TargetError DrainedAsAWhole."""
        ...

    def cluster_manifests(self, name: str) -> Manifests:
        """Write the rights that the hub and the apps of a cluster need. Raises: TargetError."""
        ...

    def approvals(self) -> Sequence[ApprovalRow]:
        """Deletions that wait for approval, by cluster and app; then those approved and not over yet."""
        ...

    async def approve(self, cluster: str, app: str, *, digest: str, reason: str, actor: Actor) -> ApprovalRow:
        """Allow exactly the deletion of this digest. Idempotent. Raises: TargetError NothingHeld, ApprovalStale."""
        ...

    async def prune(self, cluster: str, app: str, *, reason: str, actor: Actor) -> int:
        """Prune although a failed apply blocks it; returns how many objects are meant, before they are gone.

        Raises: KubeError, TargetError when the target may not be written, or a deletion needs an approval first.
        """
        ...

    async def releases(self, app: str) -> Sequence[ReleaseRow]:
        """List an app's releases, newest first."""
        ...

    async def rollback(self, request: HoldRequest, actor: Actor) -> HoldRow:
        """Hold targets at an earlier release, durably. Idempotent.

        Raises: TargetError when there is no such release or target; SourceError, RenderError when it is not to be had.
        """
        ...

    async def unhold(self, request: HoldRequest, actor: Actor) -> int:
        """End the hold of exactly this scope; returns how many ended. Raises: TargetError when others hold it."""
        ...

    def recovery(self) -> Sequence[RecoverRow]:
        """List what a lost ledger left behind and nobody has confirmed."""
        ...

    async def recover(self, *, cluster: str, app: str, reason: str, actor: Actor) -> Sequence[RecoverRow]:
        """Let what `recovery` lists be pruned; returns it. Idempotent. Raises: TargetError when a cluster is away."""
        ...

    async def targets_at(self, moment: datetime) -> Sequence[TargetRow]:
        """Say which release every target had at a past moment; rows have no state."""
        ...

    async def events(
        self,
        *,
        since: int = -1,
        limit: int = 100,
        cluster: str = "",
        app: str = "",
        kind: str = "",
        reason: str = "",
    ) -> Sequence[Event]:
        """Read events after a number; -1 reads the newest."""
        ...

    def follow(self, since: int) -> AsyncIterator[Event]:
        """Yield events after `since` as they happen; a reader that is too slow misses some."""
        ...

    async def create_token(
        self, name: str, role: Role, environments: Sequence[str], expires_at: datetime | None, actor: Actor
    ) -> str:
        """Make a token; returns its secret once. Raises: StoreError TokenExists."""
        ...

    async def tokens(self) -> Sequence[Token]:
        """List tokens."""
        ...

    async def revoke_token(self, name: str, actor: Actor) -> bool:
        """Revoke a token."""
        ...

    async def audit(
        self,
        *,
        since: datetime | None = None,
        after: int = -1,
        limit: int = 100,
        actor: str = "",
        app: str = "",
        cluster: str = "",
    ) -> Sequence[AuditRow]:
        """Read acts, oldest first: those after a number or a time, or, with neither, the newest."""
        ...

    async def verify_audit(self, head: str = "") -> AuditVerdict:
        """Walk the audit log's chain; `head` is that of an earlier walk, which must still be in it."""
        ...

    async def authenticate(self, secret: str) -> Actor:
        """Return whose token this is. Raises: Unauthorized-like FleetError with reason TokenUnknown, TokenExpired or TokenRevoked."""
        ...

    def checks(self) -> Sequence[Check]:
        """Readiness, check by check; a dead cluster is never one of them."""
        ...

    def live(self) -> bool:
        """Tell whether the event loop is turning and the process should live on."""
        ...
