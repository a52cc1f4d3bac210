"""A hub of plain values: what the server needs of one, without clusters, Git or a store."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from fleet.errors import FleetError, SourceError, StoreError, TargetError
from fleet.hub.view import (
    Actor,
    ApprovalRow,
    AppRow,
    AuditRow,
    AuditVerdict,
    BatchRow,
    Check,
    ClusterRow,
    DrainRow,
    DriftRow,
    FieldRow,
    HoldRequest,
    HoldRow,
    Manifests,
    ObjectCounts,
    ObjectRow,
    PauseRequest,
    PauseRow,
    PlanClusterRow,
    PlannedRow,
    PlanRow,
    PlanStageRow,
    ProblemRow,
    RecoverRow,
    ReleaseRow,
    RenderedRow,
    Rendering,
    RepositoryRow,
    Status,
    SyncRequest,
    TargetDetail,
    TargetRow,
    TriedRow,
    WhereRow,
)
from fleet.store.event import Event
from fleet.store.token import Role, Token
from tests.harness.keydesk import FakeKeys
from tests.harness.rollout import FakeRollouts

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)
SINCE = "2030-01-31T11:48:00Z"
OLD = "1" * 40
NEW = "2" * 40
TOKENS = {
    "flt_viewer-secret": Actor(name="vera", role=Role.VIEWER),
    "flt_operator-secret": Actor(name="otto", role=Role.OPERATOR),
    "flt_dev-operator-secret": Actor(name="dora", role=Role.OPERATOR, environments=("dev",)),
    "flt_approver-secret": Actor(name="petra", role=Role.APPROVER),
    "flt_admin-secret": Actor(name="ada", role=Role.ADMIN),
    "flt_dev-admin-secret": Actor(name="dan", role=Role.ADMIN, environments=("dev",)),
}


def target(app: str, cluster: str, environment: str, state: str = "Synced", message: str = "") -> TargetRow:
    """Make a target's row; one that is not Synced has a reason named after its state."""
    return TargetRow(
        app=app,
        cluster=cluster,
        environment=environment,
        state=state,
        reason="AllCurrent" if state == "Synced" else f"Is{state}",
        message=message,
        since=SINCE,
        desired_revision=NEW,
        applied_revision=NEW if state == "Synced" else OLD,
        release=f"{app}#42",
        observed_at="2030-01-31T11:59:58Z",
        objects=ObjectCounts(total=4, current=4 if state == "Synced" else 3),
        labels={"region": cluster.split("-", maxsplit=1)[0]},
    )


def plan_row(app: str = "shop") -> PlanRow:
    """Make a plan of two stages, in the second of which a quota refuses the only change."""
    return PlanRow(
        app=app,
        release=f"{app}#42",
        revision=NEW,
        outcome="refused",
        stages=(
            PlanStageRow(
                environment="dev",
                after=(),
                gates=(),
                batches=(BatchRow(size="100%", clusters=("eu-1",)),),
                unchanged=("eu-9",),
                held=(),
            ),
            PlanStageRow(
                environment="prod",
                after=("dev",),
                gates=("approval by one person", "each cluster stays healthy for 10m"),
                batches=(BatchRow(size="1", clusters=("us-1",)),),
                unchanged=(),
                held=("us-2",),
            ),
        ),
        clusters=(
            plan_cluster("eu-1", "dev", app, "ok"),
            plan_cluster("us-1", "prod", app, "refused", reason="QuotaExceeded", message="exceeded quota: small"),
        ),
    )


def plan_cluster(
    name: str, environment: str, app: str, outcome: str, *, reason: str = "Changed", message: str = ""
) -> PlanClusterRow:
    """Make one cluster of a plan, with one Deployment that changes."""
    changed = TriedRow(
        group="apps",
        version="v1",
        kind="Deployment",
        namespace="shop",
        name="web",
        action="configure",
        outcome=outcome,
        reason=reason,
        message=message,
    )
    return PlanClusterRow(
        cluster=name,
        environment=environment,
        release=f"{app}#41",
        counts={"configure": 1, "unchanged": 3},
        outcome=outcome,
        reason="",
        message="",
        waits=(),
        objects=(changed,),
    )


def cluster(name: str, environment: str, state: str = "Ready") -> ClusterRow:
    """Make a cluster's row."""
    return ClusterRow(
        name=name,
        environment=environment,
        state=state,
        reason="Connected" if state == "Ready" else "Unreachable",
        message="" if state == "Ready" else "no answer in 30 s; is the API server up?",
        since=SINCE,
        observed_at="2030-01-31T11:59:58Z",
        server=f"https://{name}.example.com:6443",
        version="v1.36.3",
        uid=f"uid-{name}",
        labels={"region": name.split("-", maxsplit=1)[0]},
        targets=2,
        synced=2,
        objects=8,
        watches=12,
    )


def app(name: str, repository: str = "config") -> AppRow:
    """Make an app's row."""
    return AppRow(
        app=name, repository=repository, path=f"apps/{name}", release=f"{name}#42", revision=NEW, targets=2, states={}
    )


def repository(name: str = "config", state: str = "Ready", message: str = "") -> RepositoryRow:
    """Make a repository's row."""
    return RepositoryRow(
        name=name,
        url=f"https://git.example.com/{name}.git",
        ref="branch main",
        revision=NEW,
        state=state,
        reason="Fetched",
        message=message,
        fetched_at="2030-01-31T11:59:30Z",
    )


def release(number: int, runs_on: tuple[str, ...] = ()) -> ReleaseRow:
    """Make a release of shop that changed one object."""
    return ReleaseRow(
        app="shop",
        number=number,
        release=f"shop#{number}",
        repository="config",
        revision=NEW if number == 42 else OLD,
        reason="Commit",
        created_at=SINCE,
        added=(),
        changed=("ConfigMap default/settings",),
        removed=(),
        runs_on=runs_on,
        good_on=runs_on,
        holds=(),
    )


def hold(app: str = "shop", cluster: str = "", reason: str = "incident", actor: str = "otto") -> HoldRow:
    """Make a hold's row."""
    scope = f"app {app}, cluster {cluster}" if cluster else f"app {app}"
    return HoldRow(
        scope=scope,
        app=app,
        environment="",
        cluster=cluster,
        release=f"{app}#41",
        reason=reason,
        actor=actor,
        since=SINCE,
    )


def event(seq: int, message: str = "applied", **fields: str) -> Event:
    """Make an event of kind apply unless told."""
    given = {"kind": "apply", "reason": "Applied", **fields}
    return Event(seq=seq, at=NOW, message=message, **given)


def approval(app: str = "shop", cluster: str = "eu-2", state: str = "waiting") -> ApprovalRow:
    """Make the row of a deletion of two objects."""
    return ApprovalRow(
        cluster=cluster,
        app=app,
        state=state,
        digest="0123456789abcdef",
        count=2,
        objects=("ConfigMap shop/a", "ConfigMap shop/b"),
        reason="MassChange",
        message="nothing of the app would stay",
        actor="" if state == "waiting" else "petra",
        since=SINCE,
    )


def act(seq: int, action: str = "Paused", **fields: str) -> AuditRow:
    """Make an act of ada on app shop, done, unless told."""
    texts = {"actor": "ada", "cluster": "", "app": "shop", "subject": "", "reason": "night", "result": "done", **fields}
    return AuditRow(seq=seq, at=SINCE, action=action, before={}, after={}, finished_at=SINCE, hash="0" * 64, **texts)


class FakeHub:
    """A `fleet.hub.view.Hub` whose truth is its attributes; verbs are noted in `acts`."""

    def __init__(self) -> None:
        self.keys = FakeKeys()
        self.cluster_rows = [cluster("eu-1", "dev"), cluster("eu-2", "prod"), cluster("us-1", "prod", "Stale")]
        self.stages: tuple[str, ...] = ("dev", "prod")
        self.target_rows = [
            target("db", "eu-1", "dev"),
            target("shop", "eu-1", "dev", "Progressing", "1 of 4 objects is not Current"),
            target("shop", "eu-2", "prod", "Drifted", "Deployment default/web: replicas"),
            target("shop", "us-1", "prod", "Stale", "not observed for 120 s"),
        ]
        self.app_rows = [app("db", "base"), app("shop")]
        self.repository_rows = [repository("base"), repository()]
        self.problem_rows: list[ProblemRow] = []
        self.pause_rows: list[PauseRow] = []
        self.hold_rows: list[HoldRow] = []
        self.recover_rows = [
            RecoverRow(cluster="eu-1", app="shop", group="", kind="ConfigMap", namespace="default", name="old")
        ]
        self.approval_rows: list[ApprovalRow] = []
        self.stored_events = [event(1, cluster="eu-1", app="db"), event(2, cluster="eu-2", app="shop", kind="drift")]
        self.audit_rows = [act(1), act(3, "Resumed", actor="otto"), act(5, cluster="eu-1", app="db")]
        self.audit_verdict = AuditVerdict(intact=True, rows=6, head=f"6:{'0' * 64}", broken=0, message="")
        self.check_rows = [Check(name="running", ok=True, message=""), Check(name="inventory", ok=True, message="")]
        self.is_live = True
        self.failure: Exception | None = None
        """Raised by whatever asks a cluster or a repository."""
        self.acts: list[tuple[str, object, str]] = []
        """Verb, what it was given, the actor's name."""
        self.rollouts = FakeRollouts(self.acts)
        self.token_rows = {actor.name: _token(actor) for actor in TOKENS.values()}
        self.refused_tokens: dict[str, FleetError] = {}
        self.followers: list[asyncio.Queue[Event]] = []

    def happen(self, new: Event) -> None:
        """Let an event happen."""
        self.stored_events.append(new)
        for follower in self.followers:
            follower.put_nowait(new)

    def status(self) -> Status:
        """Everything at a glance."""
        return Status(
            version="1.2.3",
            hub_id="hub-1",
            started_at="2030-01-31T06:00:00Z",
            now="2030-01-31T12:00:00Z",
            clusters=dict(Counter(row.state for row in self.cluster_rows)),
            targets=dict(Counter(row.state for row in self.target_rows)),
            repositories=tuple(self.repository_rows),
            problems=tuple(self.problem_rows),
            pauses=tuple(self.pause_rows),
            holds=tuple(self.hold_rows),
            environments=self.stages,
            rollouts=self.rollouts.current(),
        )

    def clusters(self) -> Sequence[ClusterRow]:
        """Every cluster."""
        return self.cluster_rows

    def apps(self) -> Sequence[AppRow]:
        """Every app."""
        return self.app_rows

    def targets(self) -> Sequence[TargetRow]:
        """Every target."""
        return self.target_rows

    def target(self, cluster: str, app: str) -> TargetDetail | None:
        """One target with one drifted object."""
        row = next((row for row in self.target_rows if (row.cluster, row.app) == (cluster, app)), None)
        drift = DriftRow(path=".spec.replicas", manager="kubectl-edit", at=SINCE, change="changed")
        deployment = ObjectRow(
            group="apps",
            version="v1",
            kind="Deployment",
            namespace="default",
            name="web",
            action="unchanged",
            health="Current",
            reason="",
            message="",
            drift=(drift,),
        )
        return TargetDetail(target=row, objects=(deployment,)) if row is not None else None

    async def diff(self, cluster: str, app: str) -> Sequence[PlannedRow]:
        """One object with one differing field."""
        self._fail()
        field = FieldRow(path=".spec.replicas", desired="2", live="5", manager="kubectl-edit")
        return [
            PlannedRow(
                group="apps",
                version="v1",
                kind="Deployment",
                namespace="default",
                name="web",
                action="configure",
                reason="Drifted",
                message="",
                fields=(field,),
            )
        ]

    async def render(self, cluster: str, app: str, revision: str = "") -> Rendering:
        """One manifest."""
        self._fail()
        manifest = RenderedRow(manifest='{"kind":"ConfigMap"}', file="apps/shop/map.yaml")
        return Rendering(
            app=app,
            cluster=cluster,
            revision=revision or NEW,
            manifests=(manifest,),
            variables={"replicas": "2"},
            origins={"replicas": "App apps.yaml"},
        )

    async def plan(self, app: str, to: str = "") -> PlanRow:
        """Two clusters in two stages; the second refuses the object. Only what shop has is known."""
        if to not in ("", "42", "shop#42"):
            raise TargetError(f"{to} is no release of {app} and no commit", reason="ReleaseUnknown")
        return plan_row(app)

    async def where(self, commit: str) -> Sequence[WhereRow]:
        """Say where a commit runs; only those of the repository are known."""
        self._fail()
        if not NEW.startswith(commit):
            raise SourceError(f"no repository has a commit {commit}", reason="RevisionMissing")
        return [
            WhereRow(
                app=row.app,
                cluster=row.cluster,
                environment=row.environment,
                runs="yes" if row.applied_revision == NEW else "no",
                applied_revision=row.applied_revision,
                state=row.state,
                message="",
            )
            for row in self.target_rows
        ]

    async def sync(self, request: SyncRequest, actor: Actor) -> Sequence[TargetRow]:
        """Note it; all targets of the app and cluster are meant."""
        self._act("sync", request, actor)
        return [r for r in self.target_rows if request.app in ("", r.app) and request.cluster in ("", r.cluster)]

    async def pause(self, request: PauseRequest, actor: Actor) -> PauseRow:
        """Note it."""
        self._act("pause", request, actor)
        row = PauseRow(
            scope=f"app {request.app}" if request.app else "the whole fleet",
            cluster=request.cluster,
            app=request.app,
            environment=request.environment,
            reason=request.reason,
            actor=actor.name,
            since=SINCE,
            until=request.until.isoformat() if request.until else "",
            origin="command",
        )
        self.pause_rows.append(row)
        return row

    async def resume(self, request: PauseRequest, actor: Actor) -> int:
        """Note it; ends every pause."""
        self._act("resume", request, actor)
        if request.app == "db":
            raise TargetError("app db is paused by its document; remove spec.paused", reason="PausedByFile")
        ended = len(self.pause_rows)
        self.pause_rows.clear()
        return ended

    async def releases(self, app: str) -> Sequence[ReleaseRow]:
        """Two releases of shop; the older runs on one cluster."""
        return [release(42), release(41, runs_on=("us-1",))] if app == "shop" else []

    async def rollback(self, request: HoldRequest, actor: Actor) -> HoldRow:
        """Note it; app db has nothing to go back to."""
        if request.app == "db":
            raise TargetError("no earlier good release of db is kept; see fleet release db", reason="NoEarlierRelease")
        self._act("rollback", request, actor)
        row = hold(request.app, cluster=request.cluster, reason=request.reason, actor=actor.name)
        self.hold_rows.append(row)
        return row

    async def unhold(self, request: HoldRequest, actor: Actor) -> int:
        """Note it; ends every hold."""
        self._act("unhold", request, actor)
        ended = len(self.hold_rows)
        self.hold_rows.clear()
        return ended

    def recovery(self) -> Sequence[RecoverRow]:
        """One object."""
        return self.recover_rows

    async def recover(self, *, cluster: str, app: str, reason: str, actor: Actor) -> Sequence[RecoverRow]:
        """Note it; nothing waits any more."""
        self._act("recover", (cluster, app, reason), actor)
        rows, self.recover_rows = self.recover_rows, []
        return rows

    async def targets_at(self, moment: datetime) -> Sequence[TargetRow]:
        """Answer the targets with what they had, since the moment asked for."""
        return [
            msgspec.structs.replace(row, state="", release=f"{row.app}#41", since=moment.isoformat())
            for row in self.target_rows
        ]

    async def restart(self, cluster: str, app: str, *, kind: str, namespace: str, name: str, actor: Actor) -> int:
        """Note it."""
        self._fail()
        self._act("restart", (cluster, app, kind, namespace, name), actor)
        return 1

    def approvals(self) -> Sequence[ApprovalRow]:
        """What waits for approval."""
        return self.approval_rows

    async def approve(self, cluster: str, app: str, *, digest: str, reason: str, actor: Actor) -> ApprovalRow:
        """Note it; only what waits can be approved."""
        if not any((row.cluster, row.app) == (cluster, app) for row in self.approval_rows):
            raise TargetError(
                f"nothing of {cluster}/{app} waits for approval; see fleet approve --list", reason="NothingHeld"
            )
        self._act("approve", (cluster, app, digest, reason), actor)
        return approval(app, cluster, "approved")

    async def prune(self, cluster: str, app: str, *, reason: str, actor: Actor) -> int:
        """Note it; two objects are meant."""
        self._fail()
        self._act("prune", (cluster, app, reason), actor)
        return 2

    async def accept_cluster(self, name: str, *, uid: str, reason: str, actor: Actor) -> ClusterRow:
        """Note it; another uid than that of the row is refused."""
        if uid != f"uid-{name}":
            raise TargetError(f"the uid of the cluster that answers is uid-{name}, not {uid}", reason="UidDiffers")
        self._act("accept_cluster", (name, uid, reason), actor)
        return next(row for row in self.cluster_rows if row.name == name)

    async def take_over_cluster(self, name: str, *, reason: str, actor: Actor) -> ClusterRow:
        """Note it."""
        self._act("take_over_cluster", (name, reason), actor)
        return next(row for row in self.cluster_rows if row.name == name)

    async def drain_cluster(self, name: str, app: str, *, reason: str, actor: Actor) -> DrainRow:
        """Note it."""
        self._act("drain_cluster", (name, app, reason), actor)
        return DrainRow(cluster=name, app=app, reason=reason, actor=actor.name, since=SINCE, objects=3)

    async def undrain_cluster(self, name: str, app: str, *, actor: Actor) -> int:
        """Note it; there was one drain."""
        self._act("undrain_cluster", (name, app), actor)
        return 1

    def cluster_manifests(self, name: str) -> Manifests:
        """One namespace."""
        return Manifests(cluster=name, manifests=('{"kind":"Namespace"}',), missing=("db",))

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
        """Read events."""
        found = [
            e
            for e in self.stored_events
            if cluster in ("", e.cluster) and app in ("", e.app) and kind in ("", e.kind) and e.seq > since
            if reason in ("", e.reason)
        ]
        return found[:limit] if since >= 0 else found[-limit:]

    async def follow(self, since: int) -> AsyncIterator[Event]:
        """Yield events after a number as they happen."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self.followers.append(queue)
        try:
            for old in [e for e in self.stored_events if e.seq > since]:
                yield old
            while True:
                yield await queue.get()
        finally:
            self.followers.remove(queue)

    async def create_token(
        self, name: str, role: Role, environments: Sequence[str], expires_at: datetime | None, actor: Actor
    ) -> str:
        """Note it; a name can be had once."""
        if name in self.token_rows:
            raise StoreError(f"a token named {name} exists; choose another name", reason="TokenExists")
        self._act("create_token", (name, role, tuple(environments), expires_at), actor)
        made = Actor(name=name, role=role, environments=tuple(environments))
        self.token_rows[name] = replace(_token(made), expires_at=expires_at)
        return f"flt_new-secret-of-{name}"

    async def tokens(self) -> Sequence[Token]:
        """List tokens."""
        return list(self.token_rows.values())

    async def revoke_token(self, name: str, actor: Actor) -> bool:
        """Note it; tell whether there was one."""
        self._act("revoke_token", name, actor)
        return self.token_rows.pop(name, None) is not None

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
        """Read acts."""
        found = [
            row
            for row in self.audit_rows
            if actor in ("", row.actor)
            and app in ("", row.app)
            and cluster in ("", row.cluster)
            and row.seq > after
            and (since is None or datetime.fromisoformat(row.at) >= since)
        ]
        return found[:limit] if since is not None or after >= 0 else found[-limit:]

    async def verify_audit(self, head: str = "") -> AuditVerdict:
        """Answer the verdict that the test made; another head is not in the chain."""
        if head not in ("", self.audit_verdict.head):
            return AuditVerdict(
                intact=False, rows=6, head=self.audit_verdict.head, broken=6, message="not in the chain"
            )
        return self.audit_verdict

    async def authenticate(self, secret: str) -> Actor:
        """Return whose token this is."""
        if secret in self.refused_tokens:
            raise self.refused_tokens[secret]
        if secret not in TOKENS:
            raise FleetError(
                "this hub does not know the token; make one with fleet token create", reason="TokenUnknown"
            )
        return TOKENS[secret]

    def checks(self) -> Sequence[Check]:
        """Readiness."""
        return self.check_rows

    def live(self) -> bool:
        """Liveness."""
        return self.is_live

    def _act(self, verb: str, given: object, actor: Actor) -> None:
        self.acts.append((verb, given, actor.name))

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


def _token(actor: Actor) -> Token:
    return Token(
        name=actor.name,
        role=actor.role,
        environments=actor.environments,
        created_at=NOW,
        created_by="hub",
        expires_at=None,
        used_at=None,
        revoked_at=None,
    )
