"""What everybody reads: rows made from what sessions, feed and mirrors know at this moment. Never waits for anything."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

import fleet
from fleet.clock import Clock, format_at
from fleet.hub.link import Link
from fleet.hub.progress import Progress
from fleet.hub.rolloutview import RolloutRow
from fleet.hub.session import Session
from fleet.hub.supervisor import Supervisor
from fleet.hub.supply import Supply
from fleet.hub.tenant import explain
from fleet.hub.view import (
    AppRow,
    ClusterRow,
    DrainRow,
    DriftRow,
    HoldRow,
    ObjectCounts,
    ObjectRow,
    PauseRow,
    ProblemRow,
    RepositoryRow,
    Status,
    TargetDetail,
    TargetRow,
)
from fleet.inventory.schema import App, Repository
from fleet.inventory.stage import order_stages
from fleet.inventory.value import Target
from fleet.object import TargetId
from fleet.reconcile.status import Condition, State
from fleet.reconcile.summary import ObjectSummary, summarise_objects
from fleet.store.drain import Drain
from fleet.store.hold import Hold
from fleet.store.pause import Pause

NOT_CONTACTED = Condition(state=State.UNKNOWN, reason="NotContacted", message="the cluster has not been contacted yet")


class Board:
    """Rows for people and machines."""

    def __init__(self, supervisor: Supervisor, clock: Clock, *, hub_id: str, stale_after_s: float) -> None:
        self._supervisor = supervisor
        self._clock = clock
        self._hub_id = hub_id
        self._stale_after_s = stale_after_s
        self._started_at = clock.now()
        self.pauses: Sequence[Pause] = ()
        self.drains: Sequence[Drain] = ()
        self.key_troubles: Callable[[], Sequence[str]] = tuple
        """What stands in the way of sealing and opening."""
        self.rollouts: Callable[[], tuple[RolloutRow, ...]] = tuple

    def status(self) -> Status:
        """Everything at a glance."""
        inventory = self._supervisor.inventory
        return Status(
            version=fleet.__version__,
            hub_id=self._hub_id,
            started_at=format_at(self._started_at),
            now=format_at(self._clock.now()),
            clusters=dict(sorted(Counter(row.state for row in self.clusters()).items())),
            targets=dict(sorted(Counter(row.state for row in self.targets()).items())),
            repositories=tuple(self.repositories()),
            problems=tuple(self._problems()),
            pauses=tuple(self.pauses_in_force()),
            holds=tuple(map(hold_row, self._supervisor.feed.holds)),
            environments=order_stages(inventory.environments) if inventory else (),
            rollouts=self.rollouts(),
        )

    def _problems(self) -> Iterator[ProblemRow]:
        error, inventory = self._supervisor.inventory_error, self._supervisor.inventory
        if error is not None:
            yield ProblemRow(file=error.subject, line=0, column=0, field="", message=error.message)
        for p in inventory.problems if inventory else ():
            yield ProblemRow(file=p.file, line=p.line, column=p.column, field=p.field, message=p.message)
        for message in self.key_troubles():
            yield ProblemRow(file="sealing keys", line=0, column=0, field="", message=message)

    def pauses_in_force(self) -> Iterator[PauseRow]:
        """Every pause, those of commands first."""
        now = self._clock.now()
        for pause in self.pauses:
            if pause.until is None or now < pause.until:
                yield pause_row(pause)
        inventory = self._supervisor.inventory
        for app in inventory.apps.values() if inventory else ():
            paused = app.spec.paused
            if paused is not None and (paused.until is None or now < paused.until):
                yield PauseRow(
                    scope=f"app {app.name}",
                    cluster="",
                    app=app.name,
                    environment="",
                    reason=paused.reason,
                    actor=str(app.origin),
                    since="",
                    until=_at(paused.until),
                    origin="file",
                )

    def repositories(self) -> list[RepositoryRow]:
        """Every repository, by name."""
        inventory = self._supervisor.inventory
        return [self._repository(r) for r in (inventory.repositories.values() if inventory else ())]

    def _repository(self, repository: Repository) -> RepositoryRow:
        snapshot = self._supervisor.mirrors.snapshot(repository.name)
        ref = repository.spec.ref
        words = [(k, v) for k, v in ref.model_dump(by_alias=True).items() if v is not None]
        error = snapshot.error if snapshot else None
        if error is not None:
            state, reason, message = "Failed", error.reason, error.message
        elif snapshot is not None and snapshot.revision:
            state, reason, message = "Ready", "Fetched", ""
        else:
            state, reason, message = "Progressing", "Fetching", "the first fetch is under way"
        return RepositoryRow(
            name=repository.name,
            url=repository.spec.url,
            ref=" ".join(f"{k} {v}" for k, v in words),
            revision=snapshot.revision if snapshot else "",
            state=state,
            reason=reason,
            message=message,
            fetched_at=_at(snapshot.checked_at if snapshot else None),
        )

    def clusters(self) -> list[ClusterRow]:
        """Every cluster of the inventory, by name."""
        by_cluster: dict[str, list[TargetRow]] = {}
        for row in self.targets():
            by_cluster.setdefault(row.cluster, []).append(row)
        sessions = sorted(self._supervisor.sessions.items())
        return [self._cluster(session, by_cluster.get(name, [])) for name, session in sessions]

    def _cluster(self, session: Session, rows: Sequence[TargetRow]) -> ClusterRow:
        cluster, link = session.cluster, session.last_link
        state, reason, message = self._cluster_state(session)
        skew_s = link.client.skew_s if link is not None else None
        return ClusterRow(
            name=cluster.name,
            environment=cluster.spec.environment,
            state=state,
            reason=reason,
            message=message,
            since=format_at(session.since),
            observed_at=_at(session.observed_at),
            server=session.server,
            version=session.version,
            uid=session.uid,
            labels=dict(self._labels(cluster.name)),
            targets=len(rows),
            synced=sum(row.state == State.SYNCED for row in rows),
            objects=sum(row.objects.total for row in rows),
            watches=len(link.kinds) if link is not None else 0,
            clock_skew_s=round(skew_s, 1) if skew_s is not None else 0.0,
            drained="; ".join(_describe_drain(drain) for drain in self.drains if drain.cluster == cluster.name),
        )

    def cluster(self, session: Session) -> ClusterRow:
        """One cluster."""
        return self._cluster(session, [row for row in self.targets() if row.cluster == session.cluster.name])

    def drain_row(self, drain: Drain) -> DrainRow:
        """Show a drain, and how far it is."""
        session = self._supervisor.sessions.get(drain.cluster)
        link = session.last_link if session is not None else None
        targets = [t for t in self._supervisor.feed.supplies if drain.covers(t)]
        return DrainRow(
            cluster=drain.cluster,
            app=drain.app,
            reason=drain.reason,
            actor=drain.actor,
            since=format_at(drain.created_at),
            objects=sum(len(link.applied(t)) for t in targets) if link is not None else 0,
        )

    def _labels(self, cluster: str) -> dict[str, str]:
        inventory = self._supervisor.inventory
        found = inventory.clusters.get(cluster) if inventory else None
        return found.labels if found is not None else {}

    def _cluster_state(self, session: Session) -> tuple[str, str, str]:
        """Return state, reason and message of a cluster."""
        trouble = session.trouble
        if trouble is None:
            refused = next(iter(session.link.kinds.refused.items()), None) if session.link is not None else None
            if refused is not None:
                # the cluster answers: only what is of this kind cannot be seen
                return (
                    "Ready",
                    refused[1].reason,
                    f"{refused[0]} cannot be watched: {explain(refused[1], session.cluster.name)}",
                )
            return "Ready", "Connected", ""
        if trouble.reason in ("IdentityChanged", "SameCluster", "OwnedByAnotherHub", "CredentialInvalid"):
            return "Failed", trouble.reason, trouble.message
        if not session.contacted:
            return "Unknown" if trouble.reason == "Connecting" else "Failed", trouble.reason, str(trouble)
        if session.silent_s > self._stale_after_s:
            return "Stale", trouble.reason, str(trouble)
        return "Connecting", trouble.reason, str(trouble)

    def apps(self) -> list[AppRow]:
        """Every app, by name."""
        inventory = self._supervisor.inventory
        by_app: dict[str, list[TargetRow]] = {}
        for row in self.targets():
            by_app.setdefault(row.app, []).append(row)
        return [self._app(app, by_app.get(app.name, [])) for app in (inventory.apps.values() if inventory else ())]

    def _app(self, app: App, rows: Sequence[TargetRow]) -> AppRow:
        found = [self._supervisor.feed.supplies.get(TargetId(row.cluster, row.app)) for row in rows]
        supplies = [supply for supply in found if supply is not None]
        newest = max((s.desired.release for s in supplies if s.desired), default=0)
        pauses = [p for p in self.pauses_in_force() if p.app == app.name and not p.cluster and not p.environment]
        return AppRow(
            app=app.name,
            repository=app.spec.repository,
            path=app.spec.path,
            release=f"{app.name}#{newest}" if newest else "",
            revision=next((s.head for s in supplies if s.head), ""),
            targets=len(rows),
            states=dict(sorted(Counter(row.state for row in rows).items())),
            depends_on=tuple(d.app for d in app.spec.depends_on),
            paused=pauses[0].reason if pauses else "",
        )

    def targets(self) -> list[TargetRow]:
        """Every target, by cluster and app; those that leave the inventory until nothing of them is left."""
        inventory = self._supervisor.inventory
        known = dict(inventory.targets) if inventory else {}
        leaving = [t for s in self._supervisor.sessions.values() for t in s.progress if t not in known]
        return [self.target_row(t) for t in sorted([*known, *leaving])]

    def target_row(self, target: TargetId) -> TargetRow:
        """One target."""
        session = self._supervisor.sessions.get(target.cluster)
        progress = session.progress.get(target) if session else None
        supply = self._supervisor.feed.supplies.get(target)
        row = self._supervisor.feed.rows.get(target)
        known = self._known(target)
        condition, since = self._condition(session, progress)
        summary = progress.summary if progress else None
        release = row.applied_release if row else 0
        held = supply.hold if supply else None
        hold = f"held at {target.app}#{held.release} by {held.actor}: {held.reason}" if held else ""
        return TargetRow(
            app=target.app,
            cluster=target.cluster,
            environment=known.environment.name if known else "",
            state=condition.state.value,
            reason=condition.reason,
            message="; ".join(filter(None, (condition.message, hold))),
            since=_at(since),
            desired_revision=_desired_revision(supply),
            applied_revision=row.applied_revision if row else "",
            release=f"{target.app}#{release}" if release else "",
            observed_at=_at(session.observed_at if session else None),
            objects=ObjectCounts(
                total=summary.total, current=summary.current, drifted=summary.drifted_count, failed=summary.failed_count
            )
            if summary
            else ObjectCounts(),
            labels=dict(self._labels(target.cluster)),
            hold=hold,
        )

    def _known(self, target: TargetId) -> Target | None:
        inventory = self._supervisor.inventory
        return inventory.targets.get(target) if inventory else None

    def _condition(self, session: Session | None, progress: Progress | None) -> tuple[Condition, datetime | None]:
        """Return the state to show: what was seen last, unless the cluster is silent."""
        if session is None:
            return NOT_CONTACTED, None
        trouble = session.trouble
        why = str(trouble) if trouble is not None else "it has been silent"
        if progress is None or progress.since is None:
            if session.contacted and session.silent_s > self._stale_after_s:
                return self._stale(session, why)
            message = NOT_CONTACTED.message if trouble is None or trouble.reason == "Connecting" else why
            reason = NOT_CONTACTED.reason if trouble is None or trouble.reason == "Connecting" else trouble.reason
            return Condition(state=State.UNKNOWN, reason=reason, message=message), session.since
        if session.silent_s > self._stale_after_s:
            return self._stale(session, why)
        return progress.condition, progress.since

    def _stale(self, session: Session, why: str) -> tuple[Condition, datetime]:
        reason = session.trouble.reason if session.trouble is not None else "Silent"
        message = f"not observed for {session.silent_s:.0f} s: {why}"
        since = self._clock.now() - timedelta(seconds=session.silent_s - self._stale_after_s)
        return Condition(state=State.STALE, reason=reason, message=message), since

    def target(self, target: TargetId) -> TargetDetail | None:
        """One target with its objects; None when there is none."""
        session = self._supervisor.sessions.get(target.cluster)
        progress = session.progress.get(target) if session else None
        known = self._known(target)
        if known is None and progress is None:
            return None
        row = self.target_row(target)
        objects: tuple[ObjectRow, ...] = ()
        if session is not None and session.last_link is not None and progress is not None and progress.report:
            link = session.last_link
            objects = tuple(_object_row(link, o) for o in summarise_objects(progress.report, link.live.get))
        stale = row.state == State.STALE
        return TargetDetail(
            target=row,
            objects=objects,
            last_state=progress.condition.state.value if stale and progress else "",
            variables=dict(known.variables) if known else {},
            depends_on=tuple(d.app for d in known.depends_on) if known else (),
        )


def _object_row(link: Link, o: ObjectSummary) -> ObjectRow:
    change = o.change
    drift = link.live.drift(change.key)
    paths = drift.paths if drift is not None and o.drifted else ()
    manifest, entry = change.manifest, change.entry
    return ObjectRow(
        group=change.key.group,
        version=manifest.version if manifest is not None else entry.version if entry is not None else "",
        kind=change.key.kind,
        namespace=change.key.namespace,
        name=change.key.name,
        action=change.action.value,
        health=o.health.value,
        reason=o.reason,
        message=o.message,
        drift=tuple(
            DriftRow(
                path=p.path,
                manager=p.manager,
                at=p.at,
                change="added" if p.added else "changed" if p.manager else "removed",
            )
            for p in paths
        ),
        overridden=link.overridden(change.key),
        file=str(manifest.origin) if manifest is not None else "",
    )


def _desired_revision(supply: Supply | None) -> str:
    if supply is None:
        return ""
    return supply.desired.revision if supply.hold is not None and supply.desired is not None else supply.head


def hold_row(hold: Hold) -> HoldRow:
    """Show a hold."""
    return HoldRow(
        scope=hold.scope,
        app=hold.app,
        environment=hold.environment,
        cluster=hold.cluster,
        release=f"{hold.app}#{hold.release}",
        reason=hold.reason,
        actor=hold.actor,
        since=format_at(hold.created_at),
    )


def pause_row(pause: Pause) -> PauseRow:
    """Show a pause."""
    return PauseRow(
        scope=pause.scope,
        cluster=pause.cluster,
        app=pause.app,
        environment=pause.environment,
        reason=pause.reason,
        actor=pause.actor,
        since=format_at(pause.created_at),
        until=_at(pause.until),
        origin="command",
    )


def _describe_drain(drain: Drain) -> str:
    return f"{f'app {drain.app} ' if drain.app else ''}by {drain.actor}: {drain.reason}"


def _at(at: datetime | None) -> str:
    return format_at(at) if at is not None else ""
