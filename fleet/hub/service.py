"""The running hub as the server sees it: `fleet.hub.view.Hub` over board, inspector, store and supervisor."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import msgspec

from fleet.clock import Clock
from fleet.errors import FleetError, NotFound, TargetError
from fleet.hub.board import Board, pause_row
from fleet.hub.event import StoredEvents
from fleet.hub.inspect import Inspector
from fleet.hub.pods import WORKLOADS
from fleet.hub.session import Session
from fleet.hub.supervisor import Supervisor
from fleet.hub.view import (
    Actor,
    AppRow,
    Check,
    ClusterRow,
    PauseRequest,
    PauseRow,
    PlannedRow,
    Rendering,
    Status,
    SyncRequest,
    TargetDetail,
    TargetRow,
    WhereRow,
)
from fleet.kube.gate import Priority
from fleet.object import GroupKind, ObjectKey, TargetId
from fleet.store.event import Event, EventStore
from fleet.store.pause import PauseStore
from fleet.store.token import Role, Token, TokenStore

RESTARTED_AT = ("metadata", "annotations", "kubectl.kubernetes.io/restartedAt")
RESTARTABLE = WORKLOADS - {GroupKind("batch", "Job")}
USE_NOTED_S = 60.0


class HubService:
    """Reads are answered from memory; verbs are written to the store first, then carried out."""

    def __init__(
        self,
        *,
        supervisor: Supervisor,
        board: Board,
        inspector: Inspector,
        events: StoredEvents,
        event_store: EventStore,
        pauses: PauseStore,
        tokens: TokenStore,
        clock: Clock,
    ) -> None:
        self._supervisor = supervisor
        self._board = board
        self._inspector = inspector
        self._events = events
        self._event_store = event_store
        self._pauses = pauses
        self._tokens = tokens
        self._clock = clock
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

    async def where(self, commit: str) -> Sequence[WhereRow]:
        """Say on which targets a commit runs. Raises: SourceError when nobody knows it."""
        return await self._inspector.where(commit)

    async def sync(self, request: SyncRequest, actor: Actor) -> Sequence[TargetRow]:
        """Fetch, wait until what came is rendered, and reconcile; returns before clusters are done."""
        self._audit("Sync", actor, "fetch and reconcile now", cluster=request.cluster, app=request.app)
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
        pause = await self._pauses.add(
            cluster=request.cluster,
            app=request.app,
            environment=request.environment,
            reason=request.reason,
            actor=actor.name,
            until=request.until,
        )
        self._audit("Paused", actor, f"{pause.scope}: {request.reason}", cluster=request.cluster, app=request.app)
        await self._reload_pauses()
        return pause_row(pause)

    async def resume(self, request: PauseRequest, actor: Actor) -> int:
        """End the pause of exactly this scope; returns how many ended. Raises: TargetError when a file sets it."""
        ended = await self._pauses.remove(cluster=request.cluster, app=request.app, environment=request.environment)
        if not ended:
            self._refuse_file_pause(request)
            return 0
        self._audit("Resumed", actor, "the pause is over", cluster=request.cluster, app=request.app)
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
        self._audit("Restarted", actor, ", ".join(map(str, keys)), cluster=cluster, app=app)
        for key in keys:
            await self._restart_one(session, key)
        return len(keys)

    def _workloads(self, session: Session, target: TargetId) -> list[ObjectKey]:
        report = session.progress[target].report if target in session.progress else None
        return [c.key for c in (report.changes if report else ()) if c.key.group_kind in RESTARTABLE]

    async def _restart_one(self, session: Session, key: ObjectKey) -> None:
        """Set the annotation that kubectl sets; under our own manager it is nobody's drift."""
        assert session.link is not None
        found = await session.link.api.get(key, priority=Priority.USER)
        if found is None or found.body is None:
            raise NotFound("it is not in the cluster", subject=str(key))
        template = msgspec.json.decode(found.body)["spec"]["template"]
        metadata = template.setdefault("metadata", {})
        annotations = {**(metadata.get("annotations") or {}), RESTARTED_AT[-1]: self._clock.now().isoformat()}
        patch = [{"op": "add", "path": "/spec/template/metadata/annotations", "value": annotations}]
        await session.link.api.patch_json(key, patch, priority=Priority.USER)

    async def events(
        self, *, since: int = -1, limit: int = 100, cluster: str = "", app: str = "", kind: str = ""
    ) -> Sequence[Event]:
        """Read events after a number; -1 reads the newest."""
        if since < 0:
            return await self._event_store.newest(limit, cluster=cluster, app=app, kind=kind)
        return await self._event_store.since(since, limit=limit, cluster=cluster, app=app, kind=kind)

    def follow(self, since: int) -> AsyncIterator[Event]:
        """Yield events after `since` as they happen; a reader that is too slow misses some."""
        return self._events.follow(since)

    async def create_token(
        self, name: str, role: Role, environments: Sequence[str], expires_at: datetime | None, actor: Actor
    ) -> str:
        """Make a token; returns its secret once. Raises: StoreError TokenExists."""
        secret = await self._tokens.create(
            name, role, environments=environments, expires_at=expires_at, created_by=actor.name
        )
        self._audit("TokenCreated", actor, f"token {name} with role {role.value}")
        return secret

    async def tokens(self) -> Sequence[Token]:
        """List tokens."""
        return await self._tokens.list()

    async def revoke_token(self, name: str, actor: Actor) -> bool:
        """Revoke a token."""
        revoked = await self._tokens.revoke(name)
        if revoked:
            self._audit("TokenRevoked", actor, f"token {name}")
        return revoked

    async def authenticate(self, secret: str) -> Actor:
        """Return whose token this is. Raises: FleetError with reason TokenUnknown, TokenExpired or TokenRevoked."""
        token = await self._tokens.find(secret)
        if token is None:
            raise FleetError(
                "this hub does not know the token; make one with fleet token create", reason="TokenUnknown"
            )
        if token.revoked_at is not None:
            raise FleetError(f"token {token.name} was revoked", reason="TokenRevoked")
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

    def _audit(self, reason: str, actor: Actor, message: str, *, cluster: str = "", app: str = "") -> None:
        self._events.append(
            Event(
                at=self._clock.now(),
                kind="audit",
                reason=reason,
                message=message,
                cluster=cluster,
                app=app,
                actor=actor.name,
            )
        )


def _is_meant(key: ObjectKey, kind: str, namespace: str, name: str) -> bool:
    return kind.lower() in ("", key.kind.lower()) and namespace in ("", key.namespace) and name in ("", key.name)
