"""One target, one page: desired manifests, ledger and live objects in; requests, ledger rows and a report out.

`run_once` is level-based: it looks at what is, never at what happened, so that it may be run at any time and any number
of times. Nothing else writes the objects of an app to a cluster.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from fleet.kube.wire import Observed
from fleet.metric import counter, histogram
from fleet.object import Apply, GroupKind, Manifest, ObjectKey, TargetId
from fleet.reconcile.applyset import set_id
from fleet.reconcile.audit import audit_objects
from fleet.reconcile.carry import Result, Site, carry_prunes, carry_writes, definition_of
from fleet.reconcile.drift import Finding
from fleet.reconcile.guard import HeldPrune, explain_refusals
from fleet.reconcile.live import Drift
from fleet.reconcile.lookup import Found, look_up
from fleet.reconcile.opening import Openings, Settled
from fleet.reconcile.parent import Parent
from fleet.reconcile.patience import Patience
from fleet.reconcile.plan import BLOCKING, FOUND, HOLDS_PRUNE, WRITES, Action, Change, Plan, View, plan_target, unseen
from fleet.reconcile.port import Policy
from fleet.reconcile.preflight import Coming, Trial, try_plan
from fleet.reconcile.recover import recognise
from fleet.reconcile.run import Desired, Note, Order, Report, Surroundings
from fleet.render.normalize import with_namespace
from fleet.store.ledger import Entry

ROUNDS = 3
"""A definition's objects are written in the round after it; more rounds than this are left to the next run."""
LOOK_AGAIN_S = 30.0
"""Objects of others are in no watch: an object held by another tool or app is looked at again after this time."""
GONE_AGAIN_S = 2.0
"""The same for an object of somebody else that is being deleted."""
PRUNE_AGAIN_S = 0.2
"""How soon to ask again whether the other apps have their news."""

REPAIRS = counter("fleet_drift_corrected_total", "Objects repaired after drift.", "cluster", "app")
REPAIR_SECONDS = histogram("fleet_drift_repair_seconds", "From seeing drift to its repair.", "cluster")
WRITES_TOTAL = counter("fleet_objects_written_total", "Objects written, by plan action.", "cluster", "app", "action")


class Target:
    """Runs one app on one cluster. Not re-entrant: its runner calls `run_once` one at a time."""

    def __init__(self, target: TargetId, around: Surroundings) -> None:
        self.id = target
        self.part_of = set_id(target)
        self.results: dict[ObjectKey, Result] = {}
        self.schema_changed: set[GroupKind] = set()
        """Kinds to apply once more. It may grow while a run writes: what was not in its plan stays for the next one."""
        self._planned_schemas: frozenset[GroupKind] = frozenset()
        self.finished: set[ObjectKey] = set()
        self.audited: dict[ObjectKey, Finding] = {}
        """What the last daily audit found and no write has mended yet."""
        self._around = around
        self._patience = Patience(around.clock)
        self._parent = Parent(target)
        self._found: dict[ObjectKey, Observed | None] = {}
        self._moved = False
        """Objects were taken over that the parent may not cover yet."""
        self._scoped: tuple[Desired | None, Mapping[ObjectKey, Manifest]] = (None, {})
        self._openings = Openings(target, around.unsealer, around.digest_key)
        self._settled = Settled()
        self._unopened: dict[ObjectKey, str] = {}
        """What was last told of objects that do not open."""

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
        notes: list[Note] = []
        await self._settle(order)
        self._note_sealed(notes)
        await self._recognise(order)
        plan = await self._plan(order, notes)
        self._count_drift(plan, order.policy)
        if not order.writable:
            return self._report(order, plan, notes, written=0, pruned=0)
        site = self._site(order)
        if await self._hand_over(plan):
            plan = await self._plan(order, notes)
        written = await self._write(site, plan, order, notes)
        plan = plan_target(self._view(order))
        prunes = self._ready_prunes(plan, order)
        held = self._around.guard(self.id, order, plan) if prunes else None
        pruned = await self._prune(site, prunes, notes) if held is None else 0
        if pruned:
            plan = plan_target(self._view(order))
        await self._tend_parent(site, order, plan, pruned)
        return self._report(order, plan, notes, written=written, pruned=pruned, held=held)

    async def _recognise(self, order: Order) -> None:
        """Learn which objects of a rebuilt ledger are as an apply would leave them: those are not written."""
        if not any(entry.state == FOUND for entry in self.entries.values()):
            return
        view = self._view(order)
        changes = [
            Change(
                key=key, action=Action.CONFIGURE, reason="LedgerMissing", manifest=m, entry=entry, live=view.live(key)
            )
            for key, m in view.desired.items()
            if (entry := self.entries.get(key)) is not None and entry.state == FOUND
        ]
        if changes:
            rows = await recognise(self._site(order), changes)
            await self._around.ledger.record(self.id, rows, [], self._around.lease)
            self.entries.update({row.key: row for row in rows})

    async def plan_only(self, order: Order) -> Plan:
        """Plan without writing anything, for people who want to see it."""
        await self._settle(order)
        view = self._view(order, {})
        found = await look_up(self._around.api(self.id), unseen(view))
        return plan_target(replace(view, found=found.objects))

    async def preflight(self, order: Order, others: Coming) -> Sequence[Trial]:
        """Try what a run would write, without writing; not on the Target that runs, which has one release in mind.

        Raises: KubeError when the cluster as a whole fails.
        """
        await self._settle(order)
        view = self._view(order, {})
        found = await look_up(self._around.api(self.id), unseen(view))
        plan = plan_target(replace(view, found=found.objects))
        return await try_plan(self._site(order), plan, others, found.refused)

    async def _plan(self, order: Order, notes: list[Note]) -> Plan:
        """Plan, after a look at what no watch can show."""
        await self._settle(order)
        view = self._view(order, {})
        keys = unseen(view)
        skipped = {key for key in keys if self._need_not_look(view, key)}
        known = {key: self._found[key] for key in skipped if key in self._found}
        found: Found = await look_up(self._around.api(self.id), [key for key in keys if key not in skipped])
        self._found = {**known, **found.objects}
        plan = plan_target(self._view(order))
        self._planned_schemas = frozenset(self.schema_changed)
        for change in plan.changes:
            if (error := found.refused.get(change.key)) is not None:
                self._note_failure(Result(change=change, error=error), notes)
        return plan

    def _need_not_look(self, view: View, key: ObjectKey) -> bool:
        """What waits for its next try is not looked up, nor what is only created and was there already."""
        m = view.desired[key]
        there = self._found.get(key) is not None and m.flags.apply is Apply.IF_NOT_PRESENT
        return self._patience.holds_look_up(key, m.digest) or there

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
                    with_namespace(m, order.policy.namespace or "default", self._around.digest_key)
                    if resource.namespaced
                    else replace(m, scoped=True)
                )
            desired[resolved.key] = resolved
        self._scoped = (order.desired, desired)
        return desired

    async def _settle(self, order: Order) -> None:
        """Learn what is desired, in the namespaces of this cluster and as far as it opens here."""
        self._settled = await self._openings.settle(self._resolve_scopes(order), self.entries)

    def _note_sealed(self, notes: list[Note]) -> None:
        """Tell once of each object that it does not open here."""
        errors = self._settled.errors
        for key, error in errors.items():
            if self._unopened.get(key) != str(error):
                notes.append(Note(kind="apply", reason=error.reason, message=str(error), key=key))
        self._unopened = {key: str(error) for key, error in errors.items()}

    def _view(self, order: Order, found: Mapping[ObjectKey, Observed | None] | None = None) -> View:
        around = self._around
        return View(
            target=self.id,
            part_of=self.part_of,
            hub_id=around.hub_id,
            former_hubs=around.former_hubs,
            policy=order.policy,
            desired=self._settled.manifests,
            sealed=self._settled.errors,
            ledger=self.entries,
            live=around.live.get,
            synced=around.live.is_synced,
            served=lambda kind: around.kinds.resource(kind) is not None,
            kinds=around.kinds.kinds,
            found=self._found if found is None else found,
            owner=around.owners.get,
            wants=around.wants,
            wanted_by=around.wanted_by,
            ended=around.live.ended,
            schema_changed=frozenset(self.schema_changed),
            audited=self.audited,
            removed=order.removed,
            prune_now=order.prune_now,
        )

    async def audit_once(self, report: Report) -> bool:
        """Compare what the last run left in sync with what an apply would make; return whether that is news.

        At most two requests per object. Raises: KubeError when the cluster as a whole fails.
        """
        before = dict(self.audited)
        await audit_objects(self._site(report.order), report.changes, self.audited)
        return self.audited != before

    def _site(self, order: Order) -> Site:
        around = self._around
        api = around.api(self.id)
        return Site(
            target=self.id,
            part_of=self.part_of,
            hub_id=around.hub_id,
            api=api,
            system=around.system or api,
            kinds=around.kinds,
            live=around.live,
            clock=around.clock,
            unsealer=around.unsealer,
            policy=order.policy,
        )

    def _count_drift(self, plan: Plan, policy: Policy) -> None:
        for change in plan.changes:
            if change.is_drift:
                self._patience.note_drift(change, self._around.live.drift(change.key), policy)

    async def _hand_over(self, plan: Plan) -> bool:
        """Take over the rows of objects that left other targets; return whether there were any."""
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
        self._moved |= bool(sources)
        return bool(sources)

    async def _write(self, site: Site, plan: Plan, order: Order, notes: list[Note]) -> int:
        """Write what is to be written, and once more what a definition among it has made possible."""
        written = 0
        for _ in range(ROUNDS):
            results = await self._write_round(site, plan, order, notes)
            written += sum(result.entry is not None for result in results)
            if not any(result.redefines for result in results):
                break
            plan = await self._plan(order, notes)
        return written

    async def _write_round(self, site: Site, plan: Plan, order: Order, notes: list[Note]) -> list[Result]:
        changes = [c for c in plan.changes if c.action in WRITES and not self._patience.holds(c) and self._claim(c.key)]
        if not changes:
            return []
        new = [change for change in changes if change.key not in self.entries]
        if new or self._moved:
            await self._parent.cover(site, [*self.entries, *(change.key for change in new)])
            self._moved = False
        if new:
            await self._around.ledger.intend(self.id, [change.key for change in new], self._around.lease)
            self.entries.update({change.key: self._intent(change) for change in new})
        results: list[Result] = []
        try:
            await carry_writes(site, changes, results.append)
        finally:
            await self._record(site.policy, results, notes)
        unfinished = {r.key.group_kind for r in results if r.error is not None}
        held = {change.key.group_kind for change in plan.changes if self._patience.holds(change)}
        self.schema_changed -= self._planned_schemas - unfinished - held
        return results

    def _claim(self, key: ObjectKey) -> bool:
        """Hold an object for this target, unless another one was faster since the plan was made."""
        return self._around.owners.setdefault(key, self.id) == self.id

    def _intent(self, change: Change) -> Entry:
        assert change.manifest is not None
        now = self._around.clock.now()
        version = change.manifest.version
        return Entry(key=change.key, version=version, desired=b"", owned=b"", uid="", rv=0, applied_at=now)

    async def _record(self, policy: Policy, results: Sequence[Result], notes: list[Note]) -> None:
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
                self._drop(result.key)
            if result.error is not None:
                self._note_failure(result, notes)
            else:
                self._note_success(policy, result, notes)

    def _drop(self, key: ObjectKey) -> None:
        self.entries.pop(key, None)
        self.results.pop(key, None)
        self.audited.pop(key, None)
        if self._around.owners.get(key) == self.id:
            del self._around.owners[key]

    def _note_success(self, policy: Policy, result: Result, notes: list[Note]) -> None:
        change = result.change
        self._patience.note_success(change)
        self.audited.pop(change.key, None)
        if result.makes_room:
            return
        WRITES_TOTAL.labels(self.id.cluster, self.id.app, change.action.value).inc()
        if change.is_drift:
            notes.append(self._note_repair(policy, result))
        elif change.action in (Action.ADOPT, Action.PRUNE):
            notes.append(Note(kind=change.action.value, reason=change.reason, message=change.message, key=change.key))
        self._around.live.forget_drift(change.key, result.entry.rv if result.entry is not None else 0)

    def _note_repair(self, policy: Policy, result: Result) -> Note:
        change, drift = result.change, self._around.live.drift(result.key)
        if change.reason == "AuditDrift":
            REPAIRS.labels(self.id.cluster, self.id.app).inc()
            return Note(kind="drift", reason=change.reason, message=f"{change.message}; applied again", key=change.key)
        drift = drift.within(policy.drift_managers) if drift is not None else None
        REPAIRS.labels(self.id.cluster, self.id.app).inc()
        message = f"{describe_drift(change, drift)}; repaired"
        if drift is not None:  # what happened while nobody watched has no time
            elapsed_s = asyncio.get_running_loop().time() - drift.seen_at
            REPAIR_SECONDS.labels(self.id.cluster).observe(elapsed_s)
            message += f" in {elapsed_s * 1000:.0f} ms"
        if result.unrepaired:
            return Note(
                kind="drift",
                reason="Unrepaired",
                message=f"{message}; still there: {', '.join(result.unrepaired)}",
                key=change.key,
            )
        return Note(kind="drift", reason=change.reason, message=message, key=change.key)

    def _note_failure(self, result: Result, notes: list[Note]) -> None:
        assert result.error is not None
        if self._patience.note_failure(result.change, result.error, result.waits_for):
            notes.append(Note(kind="apply", reason=result.error.reason, message=result.error.message, key=result.key))

    def retry_now(self) -> None:
        """Forget how long failed and contested objects should wait: somebody asked, or what they waited for came."""
        self._patience.forget_waits()

    def _ready_prunes(self, plan: Plan, order: Order) -> list[Change]:
        """Prune only after everything desired was applied and everything was seen, or when a person insists."""
        if not (order.prune_now or self._may_prune(order, plan.changes)):
            return []
        return [c for c in plan.with_action(Action.PRUNE) if not self._patience.holds(c)]

    async def _prune(self, site: Site, prunes: Sequence[Change], notes: list[Note]) -> int:
        if not prunes:
            return 0
        results: list[Result] = []
        try:
            await carry_prunes(site, prunes, results.append)
        finally:
            await self._record(site.policy, results, notes)
        return sum(result.gone for result in results)

    def _may_prune(self, order: Order, changes: Iterable[Change]) -> bool:
        if order.prune_later:
            return False
        for change in changes:
            if change.reason == "NotObserved":
                return False
            if change.manifest is None:
                continue
            if change.key in self._patience.failures or change.reason in HOLDS_PRUNE:
                return False
            if (change.action in WRITES and not change.is_drift) or change.action is Action.HAND_OVER:
                return False
        return True

    async def _tend_parent(self, site: Site, order: Order, plan: Plan, pruned: int) -> None:
        if order.removed and not self.entries:
            await self._parent.remove(site)
        elif pruned and not self._patience.failures and not plan.with_action(Action.PRUNE):
            await self._parent.shrink(site, self.entries)

    def _report(
        self, order: Order, plan: Plan, notes: list[Note], *, written: int, pruned: int, held: HeldPrune | None = None
    ) -> Report:
        self._finish_jobs(plan)
        self._patience.keep(plan.changes)
        failures = self._patience.failures
        errors = {key: failure.error for key, failure in failures.items()}
        contested = self._patience.contested(change.key for change in plan.changes if change.is_drift)
        arrivals = {failure.waits_for for failure in failures.values() if failure.waits_for is not None}
        arrivals |= {definition_of(c.key.group_kind) for c in plan.changes if c.reason == "MissingKind"}
        pending = any(c.action in WRITES or c.action in (Action.PRUNE, Action.HAND_OVER) for c in plan.changes)
        blocked = any(c.action is Action.SKIP and c.reason in BLOCKING for c in plan.changes)
        waits = [*self._patience.wake_in_s(contested), *_unwatched(plan)]
        waits += [GONE_AGAIN_S for c in plan.with_action(*WRITES) if (r := self.results.get(c.key)) and r.makes_room]
        if order.prune_later and plan.with_action(Action.PRUNE):
            waits.append(PRUNE_AGAIN_S)
        return Report(
            order=order,
            changes=plan.changes,
            failures=errors,
            hints=explain_refusals(self.id, plan.changes, errors),
            waits_for=frozenset(arrivals),
            contested=contested,
            complete=not pending and not blocked and not failures,
            written=written,
            pruned=pruned,
            wake_in_s=max(min(waits), 0.05) if waits else None,
            notes=tuple(notes),
            held=held,
        )

    def _finish_jobs(self, plan: Plan) -> None:
        """Remember Jobs that were seen done: when a TTL removes them they are not run again."""
        for change in plan.changes:
            entry = self.entries.get(change.key)
            if change.key.group_kind != JOB or entry is None or entry.state:
                continue
            if entry.uid and self._around.live.ended(change.key) == entry.uid:
                self.entries[change.key] = replace(entry, state="finished")
                self.finished.add(change.key)

    async def save_finished(self) -> None:
        """Write the Jobs newly seen done to the ledger."""
        rows = [self.entries[key] for key in sorted(self.finished) if key in self.entries]
        self.finished.clear()
        if rows:
            await self._around.ledger.record(self.id, rows, [], self._around.lease)


JOB = GroupKind("batch", "Job")


def _unwatched(plan: Plan) -> Iterable[float]:
    """List in how many seconds to look again at objects whose news no watch brings."""
    for change in plan.changes:
        if change.action is not Action.SKIP:
            continue
        if change.reason in ("OwnedElsewhere", "Duplicate"):
            yield LOOK_AGAIN_S
        elif change.reason == "Terminating" and change.live is None:
            yield GONE_AGAIN_S


def describe_drift(change: Change, drift: Drift | None) -> str:
    """Say what was changed and by whom.

    The first paths by name, so that an event can be read by itself.
    """
    if change.reason in ("Deleted", "Replaced") or drift is None or not drift.paths:
        return change.message or change.reason
    shown = [f"{p.path} {'added' if p.added else 'changed'} by {p.manager or 'somebody'}" for p in drift.paths[:3]]
    more = f" and {len(drift.paths) - 3} more" if len(drift.paths) > 3 else ""
    return "; ".join(shown) + more
