"""One cluster while it is connected: watches feed the live cache, the cache and the feed wake targets, targets run.

Everything here ends with the connection; what must survive is in the ledger and in the session.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import structlog

from fleet.aio import as_fleet_error, spawn
from fleet.clock import jitter
from fleet.errors import FleetError, KubeError
from fleet.hub.brake import Brakes
from fleet.hub.brief import Brief
from fleet.hub.checkup import Checkups
from fleet.hub.guard import Guard
from fleet.hub.heartbeat import Heartbeat
from fleet.hub.kinds import KindWatches
from fleet.hub.order import Commons, Orders
from fleet.hub.pods import PodWatches
from fleet.hub.progress import Progress, judge
from fleet.hub.queue import Runner
from fleet.hub.tenant import Tenant, Tenants
from fleet.kube.api import KubeApi
from fleet.kube.client import Client
from fleet.kube.discovery import Discovery, run_discovery
from fleet.kube.gate import Priority
from fleet.object import GroupKind, Manifest, ObjectKey, TargetId, short
from fleet.reconcile.carry import CRD, definition_of
from fleet.reconcile.drift import matching
from fleet.reconcile.live import Live, LiveObject
from fleet.reconcile.plan import FOUND, Plan, not_allowed
from fleet.reconcile.port import Policy
from fleet.reconcile.preflight import Trial, coming_with
from fleet.reconcile.recover import find_marked
from fleet.reconcile.run import Desired, Order, Report, Surroundings
from fleet.reconcile.status import Condition, State
from fleet.reconcile.target import Target
from fleet.store.event import Event
from fleet.store.ledger import Entry, Lease

log = structlog.get_logger()

REFRESH_S = 0.02
"""News of one target's objects within this time are one look at it."""
ERROR_FIRST_S, ERROR_MOST_S = 1.0, 30.0
SCHEMA_SETTLE_S = 2.0
SILENCE_S = 20.0
PROBE_DEADLINE_S = 5.0


class Link:
    """Runs the targets of one connected cluster. `on_trouble` is told when the server stops or begins to answer."""

    def __init__(
        self,
        cluster: str,
        commons: Commons,
        *,
        client: Client,
        discovery: Discovery,
        api: KubeApi,
        lease: Lease,
        progress: dict[TargetId, Progress],
        heartbeat: Heartbeat,
        former_hubs: frozenset[str] = frozenset(),
        on_trouble: Callable[[FleetError | None], None],
    ) -> None:
        self.cluster = cluster
        self.client = client
        self.api = api
        self.discovery = discovery
        self.progress = progress
        self.live = Live(self._on_change)
        self._commons = commons
        self._lease = lease
        self._heartbeat = heartbeat
        self._tenants = Tenants(api, discovery, cluster)
        self._targets: dict[TargetId, Target] = {}
        self._owners: dict[ObjectKey, TargetId] = {}
        self._refreshing: set[TargetId] = set()
        self._runner: Runner[TargetId] | None = None
        self._on_trouble = on_trouble
        ledgers: dict[TargetId, dict[ObjectKey, Entry]] = {}
        self.brakes = Brakes(
            commons.feed,
            commons.clock,
            inventory=commons.inventory,
            pauses=commons.pauses,
            drains=commons.drains,
            ledgers=ledgers,
            wake=self._look_later,
        )
        self._orders = Orders(
            cluster, commons, progress=progress, ledgers=ledgers, brakes=self.brakes, look_later=self._look_later
        )
        clock = commons.clock
        self.pods = PodWatches(
            client=client,
            discovery=discovery,
            api=api,
            live=self.live,
            clock=clock,
            grace_s=commons.settings.unschedulable_grace_s,
        )
        self.kinds = KindWatches(
            cluster=cluster,
            client=client,
            discovery=discovery,
            live=self.live,
            hub_id=commons.hub_id,
            clock=clock,
            wanted=self._wanted_kinds,
            awaited=self._awaited,
            on_synced=self._on_synced,
            on_arrival=self._on_arrival,
            on_definition=self._on_definition,
            on_trouble=on_trouble,
            on_doubt=heartbeat.doubt,
        )
        self._checkups = Checkups(cluster, commons.checkups, clock, targets=self._auditable, audit=self._audit)
        self._guard = Guard(cluster=cluster, approvals=commons.approvals, leaving=self._orders.leaving)
        self._around = Surroundings(
            hub_id=commons.hub_id,
            api=self.api_of,
            kinds=discovery,
            live=self.live,
            ledger=commons.ledger,
            lease=lease,
            clock=clock,
            unsealer=commons.unsealer,
            owners=self._owners,
            wants=self._orders.wants,
            wanted_by=self._orders.wanted_by,
            guard=lambda target, order, plan: self._guard.check(self._around, target, order, plan),
            system=api,
            ledgers=ledgers,
            digest_key=commons.digest_key,
            former_hubs=former_hubs,
        )

    async def run(self) -> None:
        """Reconcile until cancelled. Raises: KubeError, StoreError when the connection as a whole must end."""
        loaded = await self._commons.ledger.load_cluster(self.cluster) or await self._rebuild()
        self._around.ledgers.update(loaded)
        self._owners.update({key: target for target, rows in loaded.items() for key in rows})
        self.discovery.on_change = self._on_discovery
        try:
            async with asyncio.TaskGroup() as group:
                self._runner = Runner(f"target/{self.cluster}", group, self._commons.clock, self._run_target)
                spawn(group, f"discovery/{self.cluster}", run_discovery(self.discovery, self.client))
                spawn(group, f"kinds/{self.cluster}", self.kinds.run())
                spawn(group, f"pods/{self.cluster}", self.pods.run())
                spawn(group, f"probe/{self.cluster}", self._probe())
                spawn(group, f"checkups/{self.cluster}", self._checkups.run())
                self.mark_all()
        finally:
            if self._runner is not None:
                self._runner.close()
            self._runner = None

    async def _rebuild(self) -> dict[TargetId, dict[ObjectKey, Entry]]:
        """Find what this hub applied here before it lost its ledger; a new cluster has nothing of it."""
        commons, now = self._commons, self._commons.clock.now()
        found = await find_marked(self.api, self.discovery, cluster=self.cluster, hub_id=commons.hub_id, now=now)
        if found:
            await commons.ledger.rebuild(found, self._lease)
            apps = ", ".join(sorted(target.app for target in found))
            message = (
                f"{sum(map(len, found.values()))} objects of {apps} were found by their marks; nothing was written"
            )
            commons.events.append(
                Event(at=now, kind="cluster", reason="LedgerRebuilt", message=message, cluster=self.cluster)
            )
        return found

    async def release_found(self, target: TargetId, keys: Sequence[ObjectKey]) -> None:
        """Treat objects found by their marks as any others from now on: somebody confirmed. Raises: StoreError."""
        rows = self._around.ledgers.get(target, {})
        confirmed = [replace(rows[key], state="") for key in keys if key in rows and rows[key].state == FOUND]
        await self._commons.ledger.record(target, confirmed, [], self._lease)
        rows.update({row.key: row for row in confirmed})
        self.mark(target, urgent=True)

    def mark(self, target: TargetId, *, urgent: bool = False) -> None:
        """Look at a target again; `urgent` forgets how long its failures should wait."""
        if urgent and target in self._targets:
            self._targets[target].retry_now()
        if self._runner is not None:
            self._runner.mark(target)
            self.kinds.adjust()

    def mark_all(self) -> None:
        """Look at every target of this cluster again: those of the inventory, and those with something left."""
        for target in sorted(self._known_targets()):
            self.mark(target)

    def _look_later(self, target: TargetId, delay_s: float) -> None:
        if self._runner is not None:
            self._runner.mark_later(target, delay_s)

    async def settle(self, target: TargetId) -> None:
        """Wait until a target is neither marked nor running."""
        if self._runner is not None:
            await self._runner.settle(target)

    async def plan_only(self, target: TargetId) -> Plan | None:
        """Plan what a run would do, without writing. Raises: KubeError."""
        order = self._orders.order(target)
        return await self._target(target).plan_only(order) if order is not None else None

    async def preflight(self, target: TargetId, policy: Policy, desired: Desired) -> Sequence[Trial]:
        """Try a release, without writing. Raises: KubeError when the cluster as a whole fails."""
        others = [
            m
            for other, supply in self._commons.feed.supplies.items()
            if other.cluster == self.cluster and other != target and supply.desired is not None
            for m in supply.desired.manifests
        ]
        order = Order(policy=policy, desired=desired)
        return await Target(target, self._around).preflight(order, coming_with(others))

    async def open(self, m: Manifest) -> Manifest:
        """Open a sealed manifest, to compare what it opens to. Raises: SealError."""
        return await self._commons.unsealer.open(m, self.cluster)

    def drift_managers(self, target: TargetId) -> tuple[str, ...]:
        """Return the managers whose additions to a target's objects are undone."""
        supply = self._commons.feed.supplies.get(target)
        return supply.brief.policy.drift_managers if supply is not None else ()

    def applied(self, target: TargetId) -> list[ObjectKey]:
        """List what a target holds on this cluster."""
        return sorted(self._around.ledgers.get(target, {}))

    def overridden(self, key: ObjectKey) -> tuple[str, ...]:
        """Name the managers whose values our last apply of an object replaced, with the field."""
        target = self._targets.get(self._owners.get(key, TargetId("", "")))
        result = target.results.get(key) if target is not None else None
        return tuple(f"{cause.field}: {cause.message}" for cause in result.overridden) if result is not None else ()

    def _known_targets(self) -> set[TargetId]:
        supplied = {t for t in self._commons.feed.supplies if t.cluster == self.cluster}
        stored = {t for t in self._commons.feed.rows if t.cluster == self.cluster}
        return supplied | stored | self._around.ledgers.keys()

    def _target(self, target: TargetId) -> Target:
        if target not in self._targets:
            self._targets[target] = Target(target, self._around)
        return self._targets[target]

    async def _run_target(self, target: TargetId) -> None:
        progress = self.progress.setdefault(target, Progress(target=target))
        order = self._orders.order(target)
        if order is None:
            self._refresh(target)
            return
        try:
            await self._heartbeat.confirm()
            report = await self._target(target).run_once(order)
            await self._target(target).save_finished()
        except Exception as error:  # noqa: BLE001 - one target's failure is its own
            self._fail(progress, as_fleet_error(error, f"target/{target}"))
        else:
            if order.prune_now and not order.prune_later and report.held is None:
                progress.prune_now = False
            progress.error, progress.errors = None, 0
            await self._take(progress, report)
        self.kinds.adjust()
        self._refresh(target)

    def _fail(self, progress: Progress, error: FleetError) -> None:
        if progress.error is None or str(progress.error) != str(error):
            self._note(progress.target, "apply", error.reason, str(error))
        progress.error = error
        progress.errors += 1
        pause_s = min(ERROR_FIRST_S * 2 ** min(progress.errors - 1, 10), ERROR_MOST_S)
        if self._runner is not None:
            self._runner.mark_later(progress.target, jitter(self._commons.clock, pause_s))

    async def _take(self, progress: Progress, report: Report) -> None:
        before = progress.report
        progress.take(report, self.live.get)
        desired = report.order.desired
        if before is None or before.order.desired is not desired or report.pruned or report.written:
            await self._review_held(progress.target)
        if report.held is not None and (before is None or before.held is None or before.held != report.held):
            self._note(progress.target, "prune", report.held.reason, report.held.message)
        for note in report.notes:
            self._note(progress.target, note.kind, note.reason, note.message, str(note.key or ""))
        if report.complete and desired is not None and await self._commons.feed.note_applied(progress.target, desired):
            counts = f"{report.written} written, {report.pruned} pruned"
            message = f"{progress.target.app}#{desired.release} at {short(desired.revision)} is applied: {counts}"
            self._note(progress.target, "apply", "Applied", message)
        if report.order.removed and report.complete and not self._around.ledgers.get(progress.target):
            await self._end(progress.target)
        elif report.wake_in_s is not None and self._runner is not None:
            self._runner.mark_later(progress.target, report.wake_in_s)

    async def _review_held(self, besides: TargetId) -> None:
        """What one target does or no longer wants to do may free or empty another, or end what approvals were for."""
        if self._guard.is_over(self._around):
            await self._commons.approvals.clear(self.cluster)
        for target, progress in self.progress.items():
            held = progress.report is not None and progress.report.held is not None
            left = target not in self._commons.feed.supplies and not self._around.ledgers.get(target)
            if target != besides and (held or left):
                self.mark(target)
            elif target != besides and progress.report is not None and _has_duplicate(progress.report):
                self.mark(target, urgent=True)

    async def _end(self, target: TargetId) -> None:
        """Nothing of a target is left here: it was drained, or left the inventory."""
        supply = self._commons.feed.supplies.get(target)
        if supply is None:
            await self._forget(target)
        elif await self._commons.feed.note_emptied(target):
            self._note(target, "prune", "Drained", f"nothing of {target.app} is left on this cluster")
        for needed in supply.target.depends_on if supply is not None else ():
            self.mark(needed)

    async def _forget(self, target: TargetId) -> None:
        """Drop a target that left the inventory and holds nothing any more."""
        await self._commons.feed.forget(target)
        await self._checkups.forget(target)
        self._note(target, "prune", "Removed", f"{target.app} was taken off this cluster, and nothing of it is left")
        self._targets.pop(target, None)
        self._around.ledgers.pop(target, None)
        self.progress.pop(target, None)
        self._orders.forget(target)

    def _auditable(self) -> list[TargetId]:
        """List the targets of which it is known what they should be and are."""
        return [t for t, p in self.progress.items() if p.report is not None and p.report.order.desired is not None]

    async def _audit(self, target: TargetId) -> None:
        """Compare one target's objects with what an apply would make of them; what differs is drift."""
        progress = self.progress.get(target)
        report = progress.report if progress is not None else None
        if report is not None and await self._target(target).audit_once(report):
            self.mark(target)

    def _note(self, target: TargetId, kind: str, reason: str, message: str, key: str = "") -> None:
        row = self._commons.feed.supplies.get(target)
        self._commons.events.append(
            Event(
                at=self._commons.clock.now(),
                kind=kind,
                reason=reason,
                message=message,
                cluster=target.cluster,
                app=target.app,
                object=key,
                revision=row.desired.revision if row and row.desired else "",
            )
        )

    def api_of(self, target: TargetId) -> Tenant:
        """Return the API with the rights that a target's objects are written with."""
        supply = self._commons.feed.supplies.get(target)
        if supply is not None:
            return self._tenants.of(supply.brief.impersonation)
        row = self._commons.feed.rows.get(target)
        return self._tenants.of(Brief.decode(row.policy).impersonation if row is not None else None)

    def _wanted_kinds(self) -> Iterable[GroupKind]:
        kinds = {key.group_kind for rows in self._around.ledgers.values() for key in rows}
        for target, supply in self._commons.feed.supplies.items():
            if target.cluster == self.cluster and supply.desired is not None:
                policy = supply.brief.policy
                kinds |= {m.key.group_kind for m in supply.desired.manifests if not_allowed(policy, m) is None}
        return kinds

    def _awaited(self) -> Iterable[ObjectKey]:
        return {key for p in self.progress.values() if p.report is not None for key in p.report.waits_for}

    def _waiting_for(self, key: ObjectKey) -> list[TargetId]:
        return [t for t, p in self.progress.items() if p.report is not None and key in p.report.waits_for]

    def _on_synced(self, kind: GroupKind) -> None:
        for target in sorted(self._known_targets()):
            progress = self.progress.get(target)
            report = progress.report if progress is not None else None
            if report is None or any(c.key.group_kind == kind for c in report.changes):
                self.mark(target)

    def _on_arrival(self, key: ObjectKey) -> None:
        for target in self._waiting_for(key):
            self.mark(target, urgent=True)

    def _on_discovery(self) -> None:
        self.kinds.adjust()
        for target, progress in self.progress.items():
            waits = progress.report.waits_for if progress.report is not None else ()
            if any(k.group_kind == CRD for k in waits) and any(self._is_served(k) for k in waits):
                self.mark(target, urgent=True)

    def _is_served(self, key: ObjectKey) -> bool:
        return any(definition_of(kind) == key for kind in self.discovery.kinds())

    def _on_definition(self, kind: GroupKind) -> None:
        """A definition changed: its objects are applied once more, since old values may mean less or more now."""
        self.live.schema_changed_at = asyncio.get_running_loop().time()
        for target, rows in self._around.ledgers.items():
            if any(key.group_kind == kind for key in rows):
                self._target(target).schema_changed.add(kind)
                if self._runner is not None:
                    self._runner.mark_later(target, SCHEMA_SETTLE_S)

    def _on_change(self, key: ObjectKey, before: LiveObject | None, after: LiveObject | None) -> None:
        self.pods.note(key, after)
        target = self._owners.get(key)
        if target is None or self._runner is None:
            return
        if self._needs_run(target, key, before, after):
            self._runner.mark(target)
        else:
            self._refresh_soon(target)

    def _needs_run(self, target: TargetId, key: ObjectKey, before: LiveObject | None, after: LiveObject | None) -> bool:
        """Tell whether an object's news may mean work; most events are status, and status is only shown."""
        entry = self._around.ledgers.get(target, {}).get(key)
        if entry is None or after is None or before is None:
            return True
        if after.deleting or after.uid != entry.uid or after.flags != before.flags or after.part_of != before.part_of:
            return True
        if after.owned not in (entry.owned, before.owned) and after.rv > entry.rv:
            return True
        finished = key.kind == "Job" and not entry.state and after.verdict != before.verdict
        added = matching(after.foreign, self.drift_managers(target))
        return finished or bool(added) or before.rv < entry.rv <= after.rv

    def _refresh_soon(self, target: TargetId) -> None:
        if target not in self._refreshing:
            self._refreshing.add(target)
            asyncio.get_running_loop().call_later(REFRESH_S, self._refresh, target)

    def _refresh(self, target: TargetId) -> None:
        """Judge a target once more; a change of its state is noted and wakes what depends on it."""
        self._refreshing.discard(target)
        progress = self.progress.get(target)
        if progress is None:
            return
        progress.summarise(self.live.get)
        condition = judge(progress, self._commons.feed.supplies.get(target), self.brakes.held(target))
        if (condition.state, condition.reason) != (progress.condition.state, progress.condition.reason):
            self._note_state(progress, condition)
            progress.since = self._commons.clock.now()
        progress.condition = condition
        if progress.summary.done:
            self._wake_dependents(target)
        self._commons.on_progress(target)

    def _note_state(self, progress: Progress, condition: Condition) -> None:
        bad = (State.FAILED, State.DEGRADED, State.DRIFTED)
        if condition.state in bad or (progress.condition.state in bad and condition.state is State.SYNCED):
            message = f"{condition.state.value}: {condition.message}"
            self._note(progress.target, "health", condition.reason, message)

    def _wake_dependents(self, target: TargetId) -> None:
        for other, progress in self.progress.items():
            supply = self._commons.feed.supplies.get(other)
            if progress.gate is not None and supply is not None and target in supply.target.depends_on:
                self.mark(other)

    async def _probe(self) -> None:
        """Ask a server that has been silent whether it is there: watches alone would notice after 75 s."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(self.client.heard_at + SILENCE_S - loop.time(), PROBE_DEADLINE_S))
            if loop.time() - self.client.heard_at < SILENCE_S:
                continue
            try:
                await self.client.request("GET", "/readyz", priority=Priority.USER, deadline_s=PROBE_DEADLINE_S)
            except KubeError as error:
                self._on_trouble(error)
            else:
                self._on_trouble(None)


def _has_duplicate(report: Report) -> bool:
    """Tell whether an object is another target's: as soon as that one lets go of it, this one takes it."""
    return any(change.reason == "Duplicate" for change in report.changes)
