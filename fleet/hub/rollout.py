"""Carries rollouts out: facts in, decisions stored with their cause, then acted upon; one at a time per app.

A decision is stored before anything is done about it, and what is done follows from what is stored: a hub that was
killed in between does the same again.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, assert_never

import msgspec
import structlog

from fleet.aio import as_fleet_error, spawn
from fleet.clock import Clock
from fleet.errors import TargetError
from fleet.hub.event import EventLog
from fleet.hub.progression import Admission
from fleet.hub.queue import Runner
from fleet.hub.rolloutmetric import count_states, measure
from fleet.hub.sight import Sight
from fleet.hub.supervisor import Supervisor
from fleet.inventory.schema import App
from fleet.inventory.value import Inventory
from fleet.object import TargetId
from fleet.reconcile.status import Why
from fleet.rollout.compile import policy_of
from fleet.rollout.decide import decide
from fleet.rollout.decision import Act, Ask, Preflight, Wake
from fleet.rollout.evolve import Transition, add_sample, assigned, evolve
from fleet.rollout.order import approval_digest, order_clusters
from fleet.rollout.policy import OnNewRelease, Policy
from fleet.rollout.record import read_run, write_cluster, write_run, write_transition
from fleet.rollout.state import WAITING, ClusterRun, ClusterState, Facts, Run, RunState, Sample, Seen, StageRun
from fleet.rollout.verb import Verb, obey
from fleet.store.archive import ArchiveStore
from fleet.store.event import Event
from fleet.store.release import Release, ReleaseStore, TargetRow
from fleet.store.rollout import RolloutStore

log = structlog.get_logger()

SOON_S, SOON_PER_CLUSTER_S = 0.02, 0.0002
"""News of one app's targets within this time are one look at its rollout: the more clusters, the longer a look takes."""
MOST_ROUNDS = 1000
"""More decisions in a row than this are a bug."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What a preflight found: empty `refused` = the release may go."""

    refused: str = ""
    unverified: tuple[str, ...] = ()


class Outside(Protocol):
    """What a rollout asks of others."""

    async def ask(self, ask: Ask, run: Run) -> Sample:
        """Ask a check once. Never raises but for bugs."""
        ...

    async def preflight(self, app: str, release: int, clusters: Sequence[str]) -> Tried:
        """Try a release on clusters without doing it."""
        ...


@dataclass(slots=True, kw_only=True)
class _App:
    """What is known of one app."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    document: App | None = None
    newest: Release | None = None
    digests: Mapping[TargetId, str] = field(default_factory=dict)
    """Of the newest release, per target that nobody holds."""
    failed: Mapping[TargetId, str] = field(default_factory=dict)
    run: Run | None = None
    """The newest run."""
    busy: set[tuple[str, str, str]] = field(default_factory=set)
    """Questions that are being asked: check, stage, cluster."""
    policy: tuple[Inventory, Policy] | None = None
    order: tuple[Inventory, Mapping[str, Sequence[str]]] | None = None
    """The clusters of each stage."""


class Rollouts:
    """The rollouts of every app; the feed's `Progression`."""

    def __init__(
        self,
        *,
        store: RolloutStore,
        releases: ReleaseStore,
        archive: ArchiveStore,
        events: EventLog,
        clock: Clock,
        supervisor: Callable[[], Supervisor],
        unreachable_after_s: float,
    ) -> None:
        self.outside: Outside | None = None
        """Whom to ask for checks and preflights; none are asked before it is set."""
        self._store = store
        self._releases = releases
        self._archive = archive
        self._events = events
        self._clock = clock
        self._supervisor = supervisor
        self._sight = Sight(supervisor, unreachable_after_s)
        self._apps: dict[str, _App] = {}
        self._group: asyncio.TaskGroup | None = None
        self._runner: Runner[str] | None = None

    @property
    def _rows(self) -> Mapping[TargetId, TargetRow]:
        return self._supervisor().feed.rows

    def _inventory(self) -> Inventory | None:
        return self._supervisor().inventory

    async def load(self) -> None:
        """Read the newest run of every app."""
        for row in await self._store.load_newest():
            self._apps.setdefault(row.app, _App()).run = read_run(row)
        count_states(self.newest_runs())

    async def run(self) -> None:
        """Carry out whatever is decided, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group, self._runner = group, Runner("rollout", group, self._clock, self._step)
            for name in self._apps:
                self._runner.mark(name)
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._runner.close()
                self._group = self._runner = None

    def newest_run(self, app: str) -> Run | None:
        """Return the newest run of an app."""
        known = self._apps.get(app)
        return known.run if known is not None else None

    def newest_runs(self) -> Sequence[Run]:
        """Return the newest run of every app that has one, by app."""
        return [known.run for _, known in sorted(self._apps.items()) if known.run is not None]

    def is_outdated(self, run: Run) -> bool:
        """Tell whether a run ended and a newer release came that changes nothing: Git went back by itself."""
        known = self._apps.get(run.app)
        newest = known.newest if known is not None else None
        return not run.active and newest is not None and newest.number > run.release

    def policy(self, app: str) -> Policy | None:
        """Return the rules of an app's runs; None while it is not in the inventory."""
        known = self._apps.setdefault(app, _App())
        inventory = self._inventory()
        if inventory is None or app not in inventory.apps:
            return known.policy[1] if known.policy is not None else None
        if known.policy is None or known.policy[0] is not inventory:
            known.policy = (inventory, policy_of(inventory.apps[app], inventory))
        return known.policy[1]

    def facts(self, run: Run, policy: Policy, last: Facts | None = None) -> Facts:
        """Return what a decision about a run looks at; `last` are the facts of this very moment, before a move."""
        known = self._apps[run.app]
        order = last.order if last is not None else self._order(run, policy)
        return Facts(
            run=run,
            seen=dict(self._see(run, last)),
            order=order,
            digests={s.environment: approval_digest(run, s, order.get(s.environment, ())) for s in policy.stages},
            joining=dict(self._joining(run)),
            newer=known.newest is not None and known.newest.number > run.release,
            since_start_s=self._sight.since_start_s(run),
            stage_for_s=self._sight.stage_for_s(run),
        )

    def _see(self, run: Run, last: Facts | None) -> Iterator[tuple[str, Seen]]:
        """Look at the run's clusters; at those that did not move since `last` once is enough."""
        for name, part in run.clusters.items():
            if last is not None and last.run.clusters.get(name) is part:
                found = last.seen.get(name)
            else:
                found = self._sight.see(TargetId(name, run.app), part, assigned(run, name))
            if found is not None:
                yield name, found

    def _order(self, run: Run, policy: Policy) -> Mapping[str, Sequence[str]]:
        """Order the clusters of each stage; anew only with another inventory."""
        known, inventory = self._apps[run.app], self._inventory()
        if inventory is None:
            return order_clusters(policy, {name: (c.environment, {}) for name, c in run.clusters.items()})
        if known.order is None or known.order[0] is not inventory:
            members = {
                t.id.cluster: (t.environment.name, t.cluster.labels)
                for t in inventory.targets.values()
                if t.id.app == run.app
            }
            known.order = (inventory, order_clusters(policy, members))
        return known.order[1]

    def note(self, target: TargetId) -> None:
        """Take news of how a target is."""
        known = self._apps.get(target.app)
        run = known.run if known is not None else None
        if run is not None and target.cluster in run.clusters:
            self._sight.note(target, assigned(run, target.cluster))
            if (run.active or run.state is RunState.SUCCEEDED) and self._runner is not None:
                self._runner.mark_later(target.app, SOON_S + SOON_PER_CLUSTER_S * len(run.clusters))

    def note_cluster(self, cluster: str) -> None:
        """Take news of whether a cluster answers."""
        for name in self._apps:
            self.note(TargetId(cluster, name))

    async def admit(
        self, app: App, newest: Release, digests: Mapping[TargetId, str], failed: Mapping[TargetId, str]
    ) -> Mapping[TargetId, Admission]:
        """Take a release that was rendered, begin its run if it changes something, and say who gets what."""
        known = self._apps.setdefault(app.name, _App())
        async with known.lock:
            known.document, known.newest, known.digests, known.failed = app, newest, digests, failed
            await self._advance(app.name, known, inform=False)
        if self._runner is not None:
            self._runner.mark_later(app.name, SOON_S)
        return self.admissions(app.name, list(digests))

    def admissions(self, app: str, targets: Sequence[TargetId]) -> Mapping[TargetId, Admission]:
        """Say what targets are to have."""
        known = self._apps[app]
        return {target: self._admission(known, target) for target in targets}

    def _admission(self, known: _App, target: TargetId) -> Admission:
        newest, run = known.newest, known.run
        if newest is None:
            raise ValueError(f"{target.app} was not delivered yet")
        row = self._rows.get(target)
        part = run.clusters.get(target.cluster) if run is not None else None
        if self._is_report_only(known):
            return Admission(release=newest.number)
        if run is not None and part is not None and (run.active or run.release == newest.number):
            if part.touched:
                return self._explain(known, target, run.release)
            left_out = row is None and part.state is ClusterState.SKIPPED
            if left_out or (part.before and (row is None or part.state is ClusterState.ROLLED_BACK)):
                return self._explain(known, target, part.before)
        if row is not None and row.render_digest == known.digests.get(target):
            return Admission(release=newest.number)
        return self._explain(known, target, row.release if row is not None else self._baseline(target))

    def _is_report_only(self, known: _App) -> bool:
        return known.document is not None and known.document.spec.apply == "report"

    def _explain(self, known: _App, target: TargetId, number: int) -> Admission:
        """Say why a target has not got the newest release while a run goes on."""
        run, newest = known.run, known.newest
        if run is None or newest is None or number == newest.number or not run.active:
            return Admission(release=number)
        part = run.clusters.get(target.cluster)
        stage = run.stage(part.environment) if part is not None else None
        reasons = (
            f"{run.app}#{run.release} is {run.state}",
            f"{stage.environment} is {stage.state}" if stage is not None else "",
            f"see fleet rollout show {run.app}",
        )
        return Admission(release=number, waits=Why(reason="RolloutPending", message="; ".join(filter(None, reasons))))

    def _baseline(self, target: TargetId) -> int:
        """Return the last good release of an environment, for a cluster that joins it; 0 = it has none."""
        inventory = self._inventory()
        known = inventory.targets if inventory is not None else {}
        if target not in known:
            return 0
        environment, run = known[target].environment.name, self.newest_run(target.app)
        mates = [
            row.applied_release
            for other, row in self._rows.items()
            if other.app == target.app
            and other in known
            and known[other].environment.name == environment
            and not (run is not None and run.active and _is_open(run.clusters.get(other.cluster)))
        ]
        return max(mates, default=0)

    def _joining(self, run: Run) -> Iterator[tuple[str, tuple[str, int]]]:
        known, inventory, rows = self._apps[run.app], self._inventory(), self._rows
        if inventory is None or known.newest is None or known.newest.number != run.release:
            return
        for target, digest in known.digests.items():
            row = rows.get(target)
            if target.cluster not in run.clusters and target in inventory.targets:
                before = row.release if row is not None else self._baseline(target)
                if row is None or row.render_digest != digest:
                    yield target.cluster, (inventory.targets[target].environment.name, before)

    async def obey(self, app: str, verb: Verb, *, actor: str, reason: str, release: int = 0) -> Run:
        """Do what a person says about the newest run of an app. Idempotent; with `release`, also when the next run has begun.

        Raises: TargetError (`NoRollout`, `OtherRollout`, and those of `fleet.rollout.verb.obey`); StoreError.
        """
        known = self._apps.get(app)
        if known is None or known.run is None:
            raise TargetError(f"app {app} has no rollout yet; fleet status {app} shows how it is", reason="NoRollout")
        async with known.lock:
            before = known.run
            if release not in (0, before.release):
                raise TargetError(
                    f"the newest rollout of {app} is {app}#{before.release}, not {app}#{release}; nothing was done",
                    reason="OtherRollout",
                )
            after, history = obey(before, verb, actor=actor, reason=reason, now=self._clock.now())
            if after is not before:
                await self._save(known, before, after, history)
                self._sight.forget_stage_times(after)
                self._sight.take(before, after)
                self._tell(after, _changed_targets(before, after))
            await self._advance(app, known, inform=True)
        # what was aborted may make way for the release behind it, about which nothing was said
        return known.run if known.run.id == after.id else after

    async def _step(self, app: str) -> None:
        known = self._apps[app]
        async with known.lock:
            await self._advance(app, known, inform=True)

    async def _advance(self, app: str, known: _App, *, inform: bool) -> None:
        """Decide until nothing is left to decide, store it all at once, then act. The app's lock is held."""
        policy = self.policy(app)
        if policy is None or self._inventory() is None or known.newest is None:
            return  # what cannot be given yet is not begun: a hub that starts reads the repository first
        await self._begin(app, known, policy)
        if known.run is None:
            return
        before, history, rest = known.run, list[Transition](), list[Act]()
        after, facts = before, None
        for _ in range(MOST_ROUNDS):
            facts = self.facts(after, policy, facts)
            decisions = decide(policy, facts, self._clock.now())
            moves = [d for d in decisions if not isinstance(d, Ask | Preflight | Wake)]
            rest = [d for d in decisions if isinstance(d, Ask | Preflight | Wake)]
            if not moves:
                break
            moved, steps = evolve(after, moves, self._clock.now())
            history += steps
            self._sight.take(after, moved)
            after = moved
        if after is not before:
            await self._save(known, before, after, history)
            if inform:
                self._tell(after, _changed_targets(before, after))
        self._act(app, known, after, rest)
        if after.state is not before.state and not after.active:
            await self._advance(app, known, inform=inform)  # a newer release may have waited for this

    async def _begin(self, app: str, known: _App, policy: Policy) -> None:
        """Begin the run of the next release, unless the one before it is still going on."""
        run = known.run
        if known.newest is None or self._is_report_only(known) or (run is not None and run.active):
            return
        found = await self._find_next(app, known, policy)
        if found is None:
            return
        newest, changed = found
        now = self._clock.now()
        fresh = Run(
            id=0,
            app=app,
            release=newest.number,
            revision=newest.revision,
            created_at=now,
            since=now,
            stages=tuple(StageRun(environment=s.environment, since=now) for s in policy.stages),
            clusters={t.cluster: c for t in changed if (c := self._part(t, run)) is not None},
        )
        clusters = {name: write_cluster(part) for name, part in fresh.clusters.items()}
        id_ = await self._store.create(app, fresh.release, fresh.state, write_run(fresh), clusters)
        known.run = msgspec.structs.replace(fresh, id=id_)
        count_states(self.newest_runs())
        self._sight.begin(known.run)

    async def _find_next(self, app: str, known: _App, policy: Policy) -> tuple[Release, Sequence[TargetId]] | None:
        """Return the release that is next, and what it changes: the newest, or with `finish` the oldest without a run."""
        newest, run = known.newest, known.run
        if newest is None or (run is not None and run.release >= newest.number):
            return None
        if run is not None and any(s.on_new_release is OnNewRelease.FINISH for s in policy.stages):
            made = await self._archive.list(app)
            for number in range(run.release + 1, newest.number):
                release = await self._releases.get(app, number)
                changed = self._changed({m.target: m.digest for m in made if m.number == number})
                if release is not None and changed:
                    return release, changed
        changed = self._changed(known.digests)
        return (newest, changed) if changed else None

    def _changed(self, digests: Mapping[TargetId, str]) -> Sequence[TargetId]:
        """Return the targets that do not have what is rendered for them."""
        rows = self._rows
        return [t for t, digest in digests.items() if (row := rows.get(t)) is None or row.render_digest != digest]

    def _part(self, target: TargetId, last: Run | None) -> ClusterRun | None:
        """Say what a cluster would be sent back to: what it had, or what it had before a run that did not end well."""
        inventory = self._inventory()
        found = inventory.targets.get(target) if inventory is not None else None
        if found is None:
            return None
        row = self._rows.get(target)
        before = row.release if row is not None else self._baseline(target)
        then = last.clusters.get(target.cluster) if last is not None else None
        if then is not None and then.touched and then.state is not ClusterState.DONE and then.before:
            before = then.before
        return ClusterRun(
            cluster=target.cluster, environment=found.environment.name, before=before, since=self._clock.now()
        )

    async def _save(self, known: _App, before: Run, after: Run, history: Sequence[Transition]) -> None:
        clusters = {
            name: write_cluster(part) for name, part in after.clusters.items() if before.clusters.get(name) is not part
        }
        await self._store.save(after.id, after.state, write_run(after), clusters, map(write_transition, history))
        known.run = after
        release = known.newest if known.newest is not None and known.newest.number == after.release else after
        measure(before, after, release.created_at)
        if before.state is not after.state:
            count_states(self.newest_runs())
        for step in history:
            self._note_event(after, step)

    def _note_event(self, run: Run, step: Transition) -> None:
        if step.cluster and step.after not in (ClusterState.FAILED, ClusterState.DEFERRED, ClusterState.ROLLED_BACK):
            return
        where = f" in {step.environment}" if step.environment and not step.cluster else ""
        by = f" by {step.actor}" if step.actor else ""
        message = f"{run.app}#{run.release}{where}: {step.after}{by}"
        self._events.append(
            Event(
                at=step.at,
                kind="rollout",
                reason=step.reason or step.after,
                message=f"{message}: {step.message}" if step.message else message,
                cluster=step.cluster,
                app=run.app,
                revision=run.revision,
            )
        )

    def _tell(self, run: Run, clusters: Iterable[str]) -> None:
        """Have the feed give clusters what they are to have now."""
        targets = [TargetId(name, run.app) for name in clusters]
        if targets:
            self._supervisor().feed.reassign(run.app, targets)

    def _mark(self, app: str) -> None:
        if self._runner is not None:
            self._runner.mark_later(app, SOON_S)

    def _act(self, app: str, known: _App, run: Run, decisions: Sequence[Act]) -> None:
        for decision in decisions:
            match decision:
                case Wake():
                    if self._runner is not None:
                        self._runner.mark_later(app, decision.in_s)
                case Ask():
                    name = (decision.check.name, decision.environment, decision.cluster)
                    self._start(known, name, self._ask(app, known, run, decision))
                case Preflight():
                    self._start(known, ("", "", ""), self._preflight(app, known, run))
                case _:
                    assert_never(decision)

    def _start(self, known: _App, name: tuple[str, str, str], work: Coroutine[Any, Any, None]) -> None:
        if self._group is None or self.outside is None or name in known.busy:
            work.close()
            return
        known.busy.add(name)
        spawn(self._group, f"rollout/{'/'.join(name)}", self._finish(known, name, work))

    async def _finish(self, known: _App, name: tuple[str, str, str], work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - a bug in one question must not end the others
            as_fleet_error(error, f"rollout/{'/'.join(name)}")
        finally:
            known.busy.discard(name)
            if known.run is not None:
                self._mark(known.run.app)

    async def _ask(self, app: str, known: _App, run: Run, ask: Ask) -> None:
        if self.outside is None:
            return
        sample = await self.outside.ask(ask, run)
        async with known.lock:
            if known.run is None or known.run.id != run.id:
                return
            after = add_sample(known.run, ask.environment, ask.cluster, sample)
            await self._save(known, known.run, after, ())

    async def _preflight(self, app: str, known: _App, run: Run) -> None:
        if self.outside is None:
            return
        refused = "; ".join(f"{target.cluster}: {why}" for target, why in sorted(known.failed.items()))
        tried = (
            Tried(refused=refused) if refused else await self.outside.preflight(app, run.release, list(run.clusters))
        )
        async with known.lock:
            if known.run is None or known.run.id != run.id or known.run.state is not RunState.PLANNED:
                return
            verdict = "failed" if tried.refused else "passed"
            unverified = f"not tried: {', '.join(tried.unverified)}" if tried.unverified else ""
            after = msgspec.structs.replace(known.run, preflight=verdict, message=tried.refused or unverified)
            step = Transition(
                at=self._clock.now(),
                before=run.state,
                after=run.state,
                reason=f"Preflight{verdict.capitalize()}",
                message=after.message,
            )
            await self._save(known, known.run, after, [step])


def _is_open(part: ClusterRun | None) -> bool:
    return part is not None and part.state is not ClusterState.DONE and part.state not in WAITING


def _changed_targets(before: Run, after: Run) -> Sequence[str]:
    """Name the clusters whose release, or whose reason not to have the newest one, changed."""
    stages = {s.environment for s in after.stages if before.stage(s.environment) is not s}
    moved = before.state is not after.state
    return [
        name
        for name, part in after.clusters.items()
        if assigned(before, name) != assigned(after, name)
        or (not part.touched and (moved or part.environment in stages))
    ]
