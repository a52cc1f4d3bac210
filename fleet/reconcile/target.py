"""One target, one page: desired manifests, ledger and live objects in; requests, ledger rows and a report out.

`run_once` is level-based: it looks at what is, never at what happened, so that it may be run at any time and any number
of times. Nothing else writes the objects of an app to a cluster.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from fleet.aio import spawn
from fleet.clock import Clock, jitter
from fleet.errors import FleetError, OnChange
from fleet.kube.gate import Priority
from fleet.kube.wire import Observed
from fleet.metric import counter, histogram
from fleet.object import GroupKind, Manifest, ObjectKey, TargetId
from fleet.reconcile.applyset import Scope, parent_key, parent_manifest, scope_in, scope_of, set_id
from fleet.reconcile.carry import Result, Site, carry_prunes, carry_writes, definition_of
from fleet.reconcile.drift import Contest, blocked_until, matching, note_drift, note_repair
from fleet.reconcile.health import Health
from fleet.reconcile.live import Drift, Live
from fleet.reconcile.plan import WRITES, Action, Change, Plan, View, plan_target, unseen
from fleet.reconcile.port import ClusterApi, Kinds, Ledger, Policy, Unsealer
from fleet.render.normalize import with_namespace
from fleet.store.ledger import Entry, Lease

log = structlog.get_logger()

LIST_ABOVE = 5
"""More look-ups than this of one kind and namespace become one LIST."""
RETRY_FIRST_S, RETRY_MOST_S = 1.0, 30.0

REPAIRS = counter("fleet_drift_corrected_total", "Objects repaired after drift.", "cluster", "app")
REPAIR_SECONDS = histogram("fleet_drift_repair_seconds", "From seeing drift to its repair.", "cluster")
WRITES_TOTAL = counter("fleet_objects_written_total", "Objects written, by plan action.", "cluster", "app", "action")


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What a target shall be: one release, rendered for it."""

    release: int
    revision: str
    digest: str
    manifests: tuple[Manifest, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one run shall do."""

    policy: Policy
    desired: Desired | None
    """None: nothing may be decided yet, or (with `removed`) the target is to be emptied."""
    removed: bool = False
    writable: bool = True
    """False while paused or report-only: plan and show."""
    prune_now: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something worth an event: kind is `apply`, `drift`, `prune` or `adopt`."""

    kind: str
    reason: str
    message: str
    key: ObjectKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run found and did. `changes` is the plan after the run: what is still to be done, and what is in sync."""

    order: Order
    changes: tuple[Change, ...] = ()
    failures: Mapping[ObjectKey, FleetError] = field(default_factory=dict)
    waits_for: frozenset[ObjectKey] = frozenset()
    contested: Mapping[ObjectKey, Contest] = field(default_factory=dict)
    complete: bool = False
    """Every desired object is applied as desired and nothing is left to prune."""
    written: int = 0
    pruned: int = 0
    wake_in_s: float | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class _Failure:
    digest: bytes
    error: FleetError
    count: int
    retry_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all targets of one cluster share."""

    hub_id: str
    api: Callable[[TargetId], ClusterApi]
    kinds: Kinds
    live: Live
    ledger: Ledger
    lease: Lease
    clock: Clock
    unsealer: Unsealer
    owners: dict[ObjectKey, TargetId]
    """Which target's ledger holds an object: one index per cluster, kept by its targets."""
    wants: Callable[[ObjectKey, TargetId], bool]
    ledgers: dict[TargetId, dict[ObjectKey, Entry]]
    """Every target's ledger rows, in memory, equal to the database."""
    digest_key: bytes


class Target:
    """Runs one app on one cluster. Not re-entrant: its runner calls `run_once` one at a time."""

    def __init__(self, target: TargetId, around: Surroundings) -> None:
        self.id = target
        self.part_of = set_id(target)
        self.results: dict[ObjectKey, Result] = {}
        self.schema_changed: set[GroupKind] = set()
        self.finished: set[ObjectKey] = set()
        self._around = around
        self._failures: dict[ObjectKey, _Failure] = {}
        self._contests: dict[ObjectKey, Contest] = {}
        self._parent: Scope | None = None
        self._scoped: tuple[Desired | None, Mapping[ObjectKey, Manifest]] = (None, {})

    @property
    def entries(self) -> dict[ObjectKey, Entry]:
        """This target's ledger."""
        return self._around.ledgers.setdefault(self.id, {})

    async def run_once(self, order: Order) -> Report:
        """Make the target what `order` says, as far as it can be done now.

        Raises: KubeError when the cluster as a whole fails; StoreError. An object's failure is in the report.
        """
        if order.desired is None and not order.removed:
            return Report(order=order)
        desired = self._resolve_scopes(order)
        view = self._view(order, desired, {})
        view = replace(view, found=await self._look_up(unseen(view)))
        plan = plan_target(view)
        notes: list[Note] = []
        self._count_drift(plan, order.policy)
        if not order.writable:
            return self._report(order, plan, notes, written=0, pruned=0)
        site = self._site(order)
        await self._hand_over(plan)
        results = await self._write(site, plan, order, notes)
        plan = plan_target(self._view(order, desired, view.found))
        pruned = await self._prune(site, plan, order, notes)
        if pruned:
            plan = plan_target(self._view(order, desired, view.found))
        await self._shrink_parent(site, order, plan)
        return self._report(order, plan, notes, written=sum(r.error is None for r in results), pruned=pruned)

    async def plan_only(self, order: Order) -> Plan:
        """Plan without writing anything, for people who want to see it."""
        view = self._view(order, self._resolve_scopes(order), {})
        return plan_target(replace(view, found=await self._look_up(unseen(view))))

    def _resolve_scopes(self, order: Order) -> Mapping[ObjectKey, Manifest]:
        """Give custom resources that name no namespace one, if their kind is namespaced here."""
        if (
            self._scoped[0] is order.desired
            and order.desired is not None
            and all(m.scoped for m in self._scoped[1].values())
        ):
            return self._scoped[1]
        desired: dict[ObjectKey, Manifest] = {}
        for m in order.desired.manifests if order.desired else ():
            resolved = m
            if not m.scoped and (resource := self._around.kinds.resource(m.key.group_kind)) is not None:
                resolved = (
                    self._place(m, order.policy.namespace or "default")
                    if resource.namespaced
                    else replace(m, scoped=True)
                )
            desired[resolved.key] = resolved
        self._scoped = (order.desired, desired)
        return desired

    def _place(self, m: Manifest, namespace: str) -> Manifest:
        return with_namespace(m, namespace, self._around.digest_key)

    def _view(
        self, order: Order, desired: Mapping[ObjectKey, Manifest], found: Mapping[ObjectKey, Observed | None]
    ) -> View:
        around = self._around
        return View(
            target=self.id,
            part_of=self.part_of,
            policy=order.policy,
            desired=desired,
            ledger=self.entries,
            live=around.live.get,
            synced=around.live.is_synced,
            served=lambda kind: around.kinds.resource(kind) is not None,
            found=found,
            owner=around.owners.get,
            wants=around.wants,
            schema_changed=frozenset(self.schema_changed),
            removed=order.removed,
            prune_now=order.prune_now,
        )

    def _site(self, order: Order) -> Site:
        around = self._around
        return Site(
            target=self.id,
            part_of=self.part_of,
            hub_id=around.hub_id,
            api=around.api(self.id),
            kinds=around.kinds,
            live=around.live,
            clock=around.clock,
            unsealer=around.unsealer,
            policy=order.policy,
        )

    async def _look_up(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Observed | None]:
        """Ask for objects that no watch can show: by one LIST per kind and namespace when there are many."""
        api = self._around.api(self.id)
        groups: dict[tuple[GroupKind, str], list[ObjectKey]] = {}
        for key in keys:
            groups.setdefault((key.group_kind, key.namespace), []).append(key)
        found: dict[ObjectKey, Observed | None] = {}

        async def by_list(kind: GroupKind, namespace: str, members: list[ObjectKey]) -> None:
            listed = {o.key: o for o in await api.list_metadata(kind, namespace, priority=Priority.APPLY)}
            found.update({key: listed.get(key) for key in members})

        async def by_name(key: ObjectKey) -> None:
            found[key] = await api.get_metadata(key, priority=Priority.APPLY)

        try:
            async with asyncio.TaskGroup() as group:
                for (kind, namespace), members in groups.items():
                    if len(members) > LIST_ABOVE:
                        spawn(group, f"list/{kind}", by_list(kind, namespace, members))
                    else:
                        for key in members:
                            spawn(group, f"get/{key}", by_name(key))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return found

    def _count_drift(self, plan: Plan, policy: Policy) -> None:
        """Count the rounds of fights with other controllers; people with kubectl never make one."""
        now = self._around.clock.now()
        for change in plan.changes:
            if not change.is_drift:
                continue
            drift = self._around.live.drift(change.key)
            taker = _taker(change, drift, policy)
            contest = self._contests.get(change.key, Contest())
            if (
                taker is not None
                and (contest.until is None or contest.until <= now)
                and contest.repaired_at is not None
            ):
                self._contests[change.key] = note_drift(contest, taker, now)

    def _is_held(self, change: Change) -> bool:
        """A change that failed is tried again later, not at every event; a contested one is spaced out."""
        loop_time = asyncio.get_running_loop().time()
        failure = self._failures.get(change.key)
        digest = change.manifest.digest if change.manifest else b""
        if failure is not None and failure.digest == digest and failure.retry_at > loop_time:
            return True
        return change.is_drift and blocked_until(self._contests, change.key, self._around.clock.now()) is not None

    async def _hand_over(self, plan: Plan) -> None:
        sources: dict[TargetId, list[ObjectKey]] = {}
        for change in plan.with_action(Action.HAND_OVER):
            if change.from_target is not None:
                sources.setdefault(change.from_target, []).append(change.key)
        for source, keys in sources.items():
            await self._around.ledger.hand_over(source, self.id, keys, self._around.lease)
            rows = self._around.ledgers.get(source, {})
            for key in keys:
                self._around.owners[key] = self.id
                if (entry := rows.pop(key, None)) is not None:
                    self.entries[key] = replace(entry, desired=b"")

    async def _write(self, site: Site, plan: Plan, order: Order, notes: list[Note]) -> list[Result]:
        handed = {change.key for change in plan.with_action(Action.HAND_OVER)}
        if handed:
            plan = plan_target(self._view(order, self._resolve_scopes(order), {}))
        changes = [c for c in plan.changes if c.action in WRITES and not self._is_held(c)]
        if not changes:
            return []
        await self._cover_parent(site, plan)
        await self._around.ledger.intend(
            self.id, [c.key for c in changes if c.key not in self.entries], self._around.lease
        )
        results: list[Result] = []
        try:
            await carry_writes(site, changes, results.append)
        finally:
            await self._record(results, order, notes)
        return results

    async def _record(self, results: Sequence[Result], order: Order, notes: list[Note]) -> None:
        """Keep what became of writes: first in the database, then in memory."""
        entries = [result.entry for result in results if result.entry is not None]
        gone = [result.key for result in results if result.gone]
        if entries or gone:
            await self._around.ledger.record(self.id, entries, gone, self._around.lease)
        for result in results:
            self.results[result.key] = result
            if result.entry is not None:
                self.entries[result.key] = result.entry
                self._around.owners[result.key] = self.id
            if result.gone:
                self.entries.pop(result.key, None)
                self._around.owners.pop(result.key, None)
                self.results.pop(result.key, None)
            self._note_result(result, order, notes)

    def _note_result(self, result: Result, order: Order, notes: list[Note]) -> None:
        change = result.change
        if result.error is not None:
            self._note_failure(result, notes)
            return
        self._failures.pop(change.key, None)
        WRITES_TOTAL.labels(self.id.cluster, self.id.app, change.action.value).inc()
        if change.reason == "SchemaChanged":
            self.schema_changed.discard(change.key.group_kind)
        if not change.is_drift:
            if change.action in (Action.ADOPT, Action.PRUNE):
                notes.append(
                    Note(kind=change.action.value, reason=change.reason, message=change.message, key=change.key)
                )
            return
        self._note_repair(change, order, notes)

    def _note_repair(self, change: Change, order: Order, notes: list[Note]) -> None:
        drift = self._around.live.drift(change.key)
        elapsed_s = asyncio.get_running_loop().time() - drift.seen_at if drift else 0.0
        REPAIRS.labels(self.id.cluster, self.id.app).inc()
        REPAIR_SECONDS.labels(self.id.cluster).observe(elapsed_s)
        self._contests[change.key] = note_repair(self._contests.get(change.key, Contest()), self._around.clock.now())
        message = f"{describe_drift(change, drift)}; repaired in {elapsed_s * 1000:.0f} ms"
        notes.append(Note(kind="drift", reason=change.reason, message=message, key=change.key))
        self._around.live.forget_drift(change.key)

    def _note_failure(self, result: Result, notes: list[Note]) -> None:
        assert result.error is not None
        known = self._failures.get(result.key)
        digest = result.change.manifest.digest if result.change.manifest else b""
        count = known.count + 1 if known and known.digest == digest else 1
        pause_s = jitter(self._around.clock, min(RETRY_FIRST_S * 2 ** min(count - 1, 10), RETRY_MOST_S))
        if isinstance(result.error.retry, OnChange):
            pause_s = RETRY_MOST_S
        self._failures[result.key] = _Failure(digest, result.error, count, asyncio.get_running_loop().time() + pause_s)
        if known is None or known.error.message != result.error.message:
            notes.append(Note(kind="apply", reason=result.error.reason, message=result.error.message, key=result.key))

    def retry_now(self) -> None:
        """Forget how long failed and contested objects should wait: somebody asked, or what they waited for came."""
        self._failures = {key: replace(failure, retry_at=0.0) for key, failure in self._failures.items()}
        self._contests.clear()

    async def _prune(self, site: Site, plan: Plan, order: Order, notes: list[Note]) -> int:
        """Prune only after everything desired was applied and everything was seen, or when a person insists."""
        prunes = [c for c in plan.with_action(Action.PRUNE) if not self._is_held(c)]
        if not prunes:
            return 0
        if not order.prune_now and not self._may_prune(plan):
            return 0
        results: list[Result] = []
        try:
            await carry_prunes(site, prunes, results.append)
        finally:
            await self._record(results, order, notes)
        return sum(result.gone for result in results)

    def _may_prune(self, plan: Plan) -> bool:
        open_ends = {Action.CREATE, Action.CONFIGURE, Action.ADOPT, Action.HAND_OVER}
        return not any(
            (c.action in open_ends and not c.is_drift) or c.reason in ("NotObserved", "MissingKind")
            for c in plan.changes
        )

    async def _cover_parent(self, site: Site, plan: Plan) -> None:
        """Write the ApplySet parent before the first object of a new kind or namespace."""
        wanted = scope_of([*self.entries, *(c.key for c in plan.changes if c.action in WRITES)])
        if self._parent is None:
            found = await site.api.get_metadata(parent_key(self.id), priority=site.priority)
            self._parent = scope_in(found) if found is not None else Scope()
        if not self._parent.covers(wanted):
            self._parent = self._parent.union(wanted)
            await site.api.apply(parent_manifest(self.id, self._parent, site.hub_id), priority=site.priority)

    async def _shrink_parent(self, site: Site, order: Order, plan: Plan) -> None:
        if self._parent is None or any(c.action is Action.PRUNE for c in plan.changes):
            return
        wanted = scope_of(self.entries)
        if order.removed and not self.entries:
            found = await site.api.get_metadata(parent_key(self.id), priority=site.priority)
            if found is not None:
                await site.api.delete(parent_key(self.id), found.uid, priority=site.priority)
            self._parent = None
        elif not wanted.covers(self._parent) and not self._failures:
            self._parent = wanted
            await site.api.apply(parent_manifest(self.id, wanted, site.hub_id), priority=site.priority)

    def _report(self, order: Order, plan: Plan, notes: list[Note], *, written: int, pruned: int) -> Report:
        self._finish_jobs(plan)
        keys = {change.key for change in plan.changes}
        self._failures = {key: failure for key, failure in self._failures.items() if key in keys}
        loop_time = asyncio.get_running_loop().time()
        waits = [failure.retry_at - loop_time for failure in self._failures.values()]
        now = self._around.clock.now()
        contested = {key: c for key, c in self._contests.items() if c.active and key in keys}
        waits += [(c.until - now).total_seconds() for c in contested.values() if c.until is not None and c.until > now]
        arrivals = {
            result.waits_for
            for key in self._failures
            if (result := self.results.get(key)) is not None and result.waits_for is not None
        }
        arrivals |= {definition_of(c.key.group_kind) for c in plan.changes if c.reason == "MissingKind"}
        pending = any(c.action in WRITES or c.action in (Action.PRUNE, Action.HAND_OVER) for c in plan.changes)
        blocked = any(c.action is Action.SKIP and c.reason in BLOCKING for c in plan.changes)
        return Report(
            order=order,
            changes=plan.changes,
            failures={key: failure.error for key, failure in self._failures.items()},
            waits_for=frozenset(arrivals),
            contested=contested,
            complete=not pending and not blocked and not self._failures,
            written=written,
            pruned=pruned,
            wake_in_s=max(min(waits), 0.05) if waits else None,
            notes=tuple(notes),
        )

    def _finish_jobs(self, plan: Plan) -> None:
        """Remember Jobs that were seen done: when a TTL removes them they are not run again."""
        for change in plan.changes:
            entry, live = self.entries.get(change.key), change.live
            if change.key.group_kind != JOB or entry is None or live is None or live.verdict is None:
                continue
            if live.verdict.health in (Health.CURRENT, Health.FAILED) and not entry.state and live.rv >= entry.rv:
                self.entries[change.key] = replace(entry, state="finished")
                self.finished.add(change.key)

    async def save_finished(self) -> None:
        """Write the Jobs newly seen done to the ledger."""
        rows = [self.entries[key] for key in sorted(self.finished) if key in self.entries]
        self.finished.clear()
        if rows:
            await self._around.ledger.record(self.id, rows, [], self._around.lease)


JOB = GroupKind("batch", "Job")
BLOCKING = frozenset(
    {"OwnedElsewhere", "Duplicate", "NotAllowed", "HookUnsupported", "MissingKind", "Terminating", "NotObserved"}
)
"""Reasons for which a target is not complete although nothing is left to write."""


def _taker(change: Change, drift: Drift | None, policy: Policy) -> str | None:
    """Name who is to be counted for a drift: a manager, "" for a deletion, None for a person."""
    if change.reason in ("Deleted", "Replaced"):
        return ""
    managers = sorted({p.manager for p in drift.paths if p.manager}) if drift else []
    others = [name for name in managers if not matching([name], policy.drift_managers)]
    return others[0] if others else None


def describe_drift(change: Change, drift: Drift | None) -> str:
    """Say what was changed and by whom.

    The first paths by name, so that an event can be read by itself.
    """
    if change.reason in ("Deleted", "Replaced") or drift is None or not drift.paths:
        return change.message or change.reason
    shown = [f"{p.path} {'added' if p.added else 'changed'} by {p.manager or 'somebody'}" for p in drift.paths[:3]]
    more = f" and {len(drift.paths) - 3} more" if len(drift.paths) > 3 else ""
    return "; ".join(shown) + more
