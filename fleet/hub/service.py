"""The running hub as the server sees it: `fleet.hub.view.Hub` over board, inspector, store and supervisor."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import msgspec

from fleet.clock import Clock, format_at
from fleet.errors import FleetError, NotFound, TargetError
from fleet.hub.audit import Auditor, audit_row, audit_verdict
from fleet.hub.board import Board, pause_row
from fleet.hub.custody import Custody
from fleet.hub.deletion import Deletions, approved_row
from fleet.hub.event import StoredEvents
from fleet.hub.guard import Approvals
from fleet.hub.history import History
from fleet.hub.inspect import Inspector
from fleet.hub.keyview import SealKeys
from fleet.hub.plan import Planner
from fleet.hub.pods import WORKLOADS
from fleet.hub.recovery import Recovery
from fleet.hub.rolloutview import Rollouts
from fleet.hub.session import Session
from fleet.hub.supervisor import Supervisor
from fleet.hub.tenant import Tenant
from fleet.hub.view import (
    Actor,
    ApprovalRow,
    AppRow,
    AuditRow,
    AuditVerdict,
    Check,
    ClusterRow,
    DrainRow,
    HoldRequest,
    HoldRow,
    Manifests,
    PauseRequest,
    PauseRow,
    PlannedRow,
    PlanRow,
    RecoverRow,
    ReleaseRow,
    Rendering,
    Status,
    SyncRequest,
    TargetDetail,
    TargetRow,
    WhereRow,
)
from fleet.kube.gate import Priority
from fleet.object import GroupKind, ObjectKey, TargetId
from fleet.store.audit import AuditStore
from fleet.store.cluster import ClusterStore
from fleet.store.drain import DrainStore
from fleet.store.event import Event, EventStore
from fleet.store.pause import PauseStore
from fleet.store.token import HUB_ADMIN, Role, Token, TokenStore

RESTARTED_AT = ("metadata", "annotations", "kubectl.kubernetes.io/restartedAt")
RESTARTABLE = WORKLOADS - {GroupKind("batch", "Job")}
USE_NOTED_S = 60.0
AUDITED = 20
"""So many objects of an approved deletion are named in the audit log; the digest stands for all."""


class HubService:
    """Reads are answered from memory; verbs are written to the store first, then carried out."""

    def __init__(
        self,
        *,
        supervisor: Supervisor,
        board: Board,
        inspector: Inspector,
        history: History,
        planner: Planner,
        events: StoredEvents,
        event_store: EventStore,
        pauses: PauseStore,
        approvals: Approvals,
        clusters: ClusterStore,
        drains: DrainStore,
        tokens: TokenStore,
        audits: AuditStore,
        auditor: Auditor,
        keys: SealKeys,
        rollouts: Rollouts,
        clock: Clock,
    ) -> None:
        self._supervisor = supervisor
        self._board = board
        self._inspector = inspector
        self._history = history
        self._planner = planner
        self._recovery = Recovery(supervisor)
        self._events = events
        self._event_store = event_store
        self._pauses = pauses
        self._deletions = Deletions(supervisor, approvals)
        self._auditor = auditor
        self._custody = Custody(supervisor, board, clusters, drains, auditor)
        self._tokens = tokens
        self._audits = audits
        self._clock = clock
        self.keys = keys
        self.rollouts = rollouts
        self._used: dict[str, float] = {}
        self.stopping = False

    def status(self) -> Status:
        """Everything at a glance."""
        return self._board.status()

    def clusters(self) -> Sequence[ClusterRow]:
        """Every cluster of the inventory, by name."""
        return self._board.clusters()

    def apps(self) -> Sequence[AppRow]:
        """Every app, by name."""
        return self._board.apps()

    def targets(self) -> Sequence[TargetRow]:
        """Every target, by cluster and app."""
        return self._board.targets()

    def target(self, cluster: str, app: str) -> TargetDetail | None:
        """One target with its objects; None when there is none."""
        return self._board.target(TargetId(cluster, app))

    async def diff(self, cluster: str, app: str) -> Sequence[PlannedRow]:
        """Compare desired with live, per field; asks the cluster. Raises: KubeError, TargetError."""
        return await self._inspector.diff(TargetId(cluster, app))

    async def render(self, cluster: str, app: str, revision: str = "") -> Rendering:
        """Render a target, at another revision if given. Raises: RenderError, SourceError, TargetError."""
        return await self._inspector.render(TargetId(cluster, app), revision)

    async def plan(self, app: str, to: str = "") -> PlanRow:
        """Plan a release and try it on its clusters, without writing. Raises: TargetError, SourceError."""
        return await self._planner.plan(app, to)

    async def where(self, commit: str) -> Sequence[WhereRow]:
        """Say on which targets a commit runs. Raises: SourceError when nobody knows it."""
        return await self._inspector.where(commit)

    async def sync(self, request: SyncRequest, actor: Actor) -> Sequence[TargetRow]:
        """Fetch, wait until what came is rendered, and reconcile; returns before clusters are done."""
        async with self._auditor.act(
            "Sync", actor, subject="fetch and reconcile now", cluster=request.cluster, app=request.app
        ):
            return await self._sync(request)

    async def _sync(self, request: SyncRequest) -> Sequence[TargetRow]:
        inventory = self._supervisor.inventory
        targets = [
            t
            for t in (inventory.targets.values() if inventory else ())
            if request.app in ("", t.id.app)
            and request.cluster in ("", t.id.cluster)
            and request.repository in ("", t.app.spec.repository)
        ]
        await self._supervisor.mirrors.sync(sorted({t.app.spec.repository for t in targets}))
        await self._supervisor.feed.settle(sorted({t.id.app for t in targets}))
        for target in targets:
            if (session := self._supervisor.sessions.get(target.id.cluster)) is not None:
                session.mark(target.id, urgent=True)
        return [self._board.target_row(t.id) for t in targets]

    async def pause(self, request: PauseRequest, actor: Actor) -> PauseRow:
        """Pause durably. Idempotent."""
        async with self._auditor.act(
            "Paused",
            actor,
            request.reason,
            subject=_scope(request),
            cluster=request.cluster,
            app=request.app,
            before=await self._paused(request),
            after={"pause": request.reason, "until": format_at(request.until) if request.until else ""},
        ):
            pause = await self._pauses.add(
                cluster=request.cluster,
                app=request.app,
                environment=request.environment,
                reason=request.reason,
                actor=actor.name,
                until=request.until,
            )
            await self._reload_pauses()
        return pause_row(pause)

    async def _paused(self, request: PauseRequest) -> dict[str, str]:
        """Tell the audit log which pause of exactly this scope is in force; nothing when there is none."""
        for pause in await self._pauses.load():
            if (pause.cluster, pause.app, pause.environment) == (request.cluster, request.app, request.environment):
                until = format_at(pause.until) if pause.until else ""
                return {"pause": pause.reason, "by": pause.actor, "until": until}
        return {}

    async def resume(self, request: PauseRequest, actor: Actor) -> int:
        """End the pause of exactly this scope; returns how many ended. Raises: TargetError when a file sets it."""
        before = await self._paused(request)
        if not before:
            self._refuse_file_pause(request)
            return 0
        async with self._auditor.act(
            "Resumed", actor, subject=_scope(request), cluster=request.cluster, app=request.app, before=before
        ):
            ended = await self._pauses.remove(cluster=request.cluster, app=request.app, environment=request.environment)
            await self._reload_pauses()
        return ended

    def _refuse_file_pause(self, request: PauseRequest) -> None:
        inventory = self._supervisor.inventory
        app = inventory.apps.get(request.app) if inventory else None
        if app is not None and app.spec.paused is not None and not request.cluster and not request.environment:
            raise TargetError(
                f"app {app.name} is paused by its document; remove spec.paused in {app.origin}", reason="PausedByFile"
            )

    async def _reload_pauses(self) -> None:
        self._board.pauses = await self._pauses.load()
        for session in self._supervisor.sessions.values():
            session.mark_all()

    async def restart(self, cluster: str, app: str, *, kind: str, namespace: str, name: str, actor: Actor) -> int:
        """Restart workloads of a target (all when `kind` is empty); returns how many. Raises: KubeError, TargetError."""
        target = TargetId(cluster, app)
        session = self._supervisor.sessions.get(cluster)
        if session is None or self._board.target(target) is None:
            raise TargetError(f"app {app} does not go to cluster {cluster}", reason="NotFound")
        if session.link is None:
            raise session.trouble or TargetError(f"cluster {cluster} is not connected", reason="NotConnected")
        keys = [key for key in self._workloads(session, target) if _is_meant(key, kind, namespace, name)]
        if not keys:
            raise TargetError(
                f"app {app} has no such Deployment, StatefulSet or DaemonSet on {cluster}", reason="NotFound"
            )
        named = ", ".join(map(str, keys))
        async with self._auditor.act("Restarted", actor, subject=named, cluster=cluster, app=app):
            for key in keys:
                await self._restart_one(session.link.api_of(target), key)
        return len(keys)

    def _workloads(self, session: Session, target: TargetId) -> list[ObjectKey]:
        report = session.progress[target].report if target in session.progress else None
        return [c.key for c in (report.changes if report else ()) if c.key.group_kind in RESTARTABLE]

    async def _restart_one(self, api: Tenant, key: ObjectKey) -> None:
        """Set the annotation that kubectl sets; under our own manager it is nobody's drift."""
        found = await api.get(key, priority=Priority.USER)
        if found is None or found.body is None:
            raise NotFound("it is not in the cluster", subject=str(key))
        template = msgspec.json.decode(found.body)["spec"]["template"]
        metadata = template.setdefault("metadata", {})
        annotations = {**(metadata.get("annotations") or {}), RESTARTED_AT[-1]: self._clock.now().isoformat()}
        patch = [{"op": "add", "path": "/spec/template/metadata/annotations", "value": annotations}]
        await api.patch_json(key, patch, priority=Priority.USER)

    async def accept_cluster(self, name: str, *, uid: str, reason: str, actor: Actor) -> ClusterRow:
        """Take the cluster that answers for the one known by this name. Raises: TargetError."""
        return await self._custody.accept(name, uid=uid, reason=reason, actor=actor)

    async def take_over_cluster(self, name: str, *, reason: str, actor: Actor) -> ClusterRow:
        """Take a cluster from the hub that holds it. Raises: TargetError when no other hub holds it."""
        return await self._custody.take_over(name, reason=reason, actor=actor)

    async def drain_cluster(self, name: str, app: str, *, reason: str, actor: Actor) -> DrainRow:
        """Delete what was applied to a cluster, of one app or of all, and keep it away. Idempotent."""
        return await self._custody.drain(name, app, reason=reason, actor=actor)

    async def undrain_cluster(self, name: str, app: str, *, actor: Actor) -> int:
        """End the drain of exactly this scope; returns how many ended. Raises: TargetError DrainedAsAWhole."""
        return await self._custody.undrain(name, app, actor=actor)

    def cluster_manifests(self, name: str) -> Manifests:
        """Write the rights that the hub and the apps of a cluster need. Raises: TargetError."""
        return self._custody.manifests(name)

    def approvals(self) -> Sequence[ApprovalRow]:
        """Deletions that wait for approval, by cluster and app; then those approved and not over yet."""
        return self._deletions.rows()

    async def approve(self, cluster: str, app: str, *, digest: str, reason: str, actor: Actor) -> ApprovalRow:
        """Allow exactly the deletion of this digest. Idempotent. Raises: TargetError NothingHeld, ApprovalStale."""
        target = TargetId(cluster, app)
        subject = f"deletion {digest}"
        async with self._auditor.act("Approved", actor, reason, subject=subject, cluster=cluster, app=app) as act:
            row = approved_row(await self._deletions.approve(target, digest, reason=reason, actor=actor.name))
            named = ", ".join(row.objects[:AUDITED]) + (", ..." if row.count > AUDITED else "")
            act.after = {"count": str(row.count), "objects": named}
        return row

    async def prune(self, cluster: str, app: str, *, reason: str, actor: Actor) -> int:
        """Prune although a failed apply blocks it; returns how many objects are meant, before they are gone.

        Raises: KubeError, TargetError when the target may not be written, or a deletion needs an approval first.
        """
        target = TargetId(cluster, app)
        count = self._deletions.check_prune(target)
        if count:
            subject = f"{count} objects"
            async with self._auditor.act("PruneNow", actor, reason, subject=subject, cluster=cluster, app=app):
                self._deletions.prune(target)
        return count

    async def releases(self, app: str) -> Sequence[ReleaseRow]:
        """List an app's releases, newest first."""
        return await self._history.releases(app)

    async def rollback(self, request: HoldRequest, actor: Actor) -> HoldRow:
        """Hold targets at an earlier release, durably. Idempotent. Raises: TargetError, SourceError, RenderError."""
        async with self._auditor.act("Held", actor, request.reason, cluster=request.cluster, app=request.app) as act:
            row = await self._history.rollback(request, actor.name)
            act.after = {"scope": row.scope, "release": row.release}
        return row

    async def unhold(self, request: HoldRequest, actor: Actor) -> int:
        """End the hold of exactly this scope; returns how many ended. Raises: TargetError when others hold it."""
        async with self._auditor.act("Unheld", actor, cluster=request.cluster, app=request.app) as act:
            ended = await self._history.unhold(request)
            act.result = f"done: {ended} holds ended"
        return ended

    def recovery(self) -> Sequence[RecoverRow]:
        """List what a lost ledger left behind and nobody has confirmed."""
        return self._recovery.rows()

    async def recover(self, *, cluster: str, app: str, reason: str, actor: Actor) -> Sequence[RecoverRow]:
        """Let what `recovery` lists be pruned; returns it. Idempotent. Raises: TargetError when a cluster is away."""
        async with self._auditor.act("Recovered", actor, reason, cluster=cluster, app=app) as act:
            rows = await self._recovery.confirm(cluster, app)
            act.after = {"objects": ", ".join(f"{r.cluster}/{r.app} {r.kind} {r.namespace}/{r.name}" for r in rows)}
        return rows

    async def targets_at(self, moment: datetime) -> Sequence[TargetRow]:
        """Say which release every target had at a past moment; rows have no state."""
        return await self._history.at(moment)

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
        if since < 0:
            return await self._event_store.newest(limit, cluster=cluster, app=app, kind=kind, reason=reason)
        return await self._event_store.since(since, limit=limit, cluster=cluster, app=app, kind=kind, reason=reason)

    def follow(self, since: int) -> AsyncIterator[Event]:
        """Yield events after `since` as they happen; a reader that is too slow misses some."""
        return self._events.follow(since)

    async def create_token(
        self, name: str, role: Role, environments: Sequence[str], expires_at: datetime | None, actor: Actor
    ) -> str:
        """Make a token; returns its secret once. Raises: StoreError TokenExists."""
        after = {"role": role.value, "environments": ",".join(environments) or "all"}
        after["expires"] = format_at(expires_at) if expires_at else "never"
        async with self._auditor.act("TokenCreated", actor, subject=f"token {name}", after=after):
            return await self._tokens.create(
                name, role, environments=environments, expires_at=expires_at, created_by=actor.name
            )

    async def tokens(self) -> Sequence[Token]:
        """List tokens."""
        return await self._tokens.list()

    async def revoke_token(self, name: str, actor: Actor) -> bool:
        """Revoke a token; False when there is none. One that was revoked before makes no second event."""
        known = next((token for token in await self._tokens.list() if token.name == name), None)
        if known is None:
            return False
        if known.revoked_at is not None:
            return True
        before = {"role": known.role.value, "revoked": ""}
        async with self._auditor.act("TokenRevoked", actor, subject=f"token {name}", before=before):
            return await self._tokens.revoke(name)

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
        found = await self._audits.list(since=since, after=after, limit=limit, actor=actor, app=app, cluster=cluster)
        return [audit_row(recorded) for recorded in found]

    async def verify_audit(self, head: str = "") -> AuditVerdict:
        """Walk the audit log's chain; `head` is that of an earlier walk, which must still be in it."""
        return audit_verdict(await self._audits.verify(head))

    async def authenticate(self, secret: str) -> Actor:
        """Return whose token this is. Raises: FleetError with reason TokenUnknown, TokenExpired or TokenRevoked."""
        token = await self._tokens.find(secret)
        if token is None:
            raise FleetError(
                "this hub does not know the token; make one with fleet token create", reason="TokenUnknown"
            )
        if token.revoked_at is not None:
            way = "restart the hub, which makes a new one" if token.name == HUB_ADMIN else "ask an admin for another"
            raise FleetError(f"token {token.name} was revoked; {way}", reason="TokenRevoked")
        if token.expires_at is not None and token.expires_at <= self._clock.now():
            raise FleetError(f"token {token.name} expired; make another with fleet token create", reason="TokenExpired")
        now = asyncio.get_running_loop().time()
        if now - self._used.get(token.name, float("-inf")) > USE_NOTED_S:
            self._used[token.name] = now
            await self._tokens.note_use(token.name)
        return Actor(name=token.name, role=token.role, environments=token.environments)

    def checks(self) -> Sequence[Check]:
        """Readiness, check by check; a dead cluster is never one of them."""
        error, inventory = self._supervisor.inventory_error, self._supervisor.inventory
        waiting = "" if inventory is not None else str(error or "the inventory has not been read yet")
        return [
            Check(name="running", ok=not self.stopping, message="the hub is stopping" if self.stopping else ""),
            Check(name="inventory", ok=inventory is not None, message=waiting),
        ]

    def live(self) -> bool:
        """Tell whether the event loop is turning: whoever gets an answer knows that it is."""
        return True


def _scope(request: PauseRequest) -> str:
    parts = [("cluster", request.cluster), ("app", request.app), ("environment", request.environment)]
    return ", ".join(f"{word} {name}" for word, name in parts if name) or "the whole fleet"


def _is_meant(key: ObjectKey, kind: str, namespace: str, name: str) -> bool:
    return kind.lower() in ("", key.kind.lower()) and namespace in ("", key.namespace) and name in ("", key.name)
