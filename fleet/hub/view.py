"""What the hub shows and lets people do: plain values, as JSON on the wire, and the verbs behind `/api/v1`.

Names here are the API's names; they are stable (design §12).
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec

from fleet.store.event import Event
from fleet.store.token import Role, Token


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
class SyncRequest:
    """Fetch and reconcile now; empty names match all."""

    app: str = ""
    cluster: str = ""
    repository: str = ""


class Hub(Protocol):
    """What the server needs of the running hub. Reads never wait for a cluster unless they say so."""

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

    async def events(
        self, *, since: int = -1, limit: int = 100, cluster: str = "", app: str = "", kind: str = ""
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

    async def authenticate(self, secret: str) -> Actor:
        """Return whose token this is. Raises: Unauthorized-like FleetError with reason TokenUnknown, TokenExpired or TokenRevoked."""
        ...

    def checks(self) -> Sequence[Check]:
        """Readiness, check by check; a dead cluster is never one of them."""
        ...

    def live(self) -> bool:
        """Tell whether the event loop is turning and the process should live on."""
        ...
