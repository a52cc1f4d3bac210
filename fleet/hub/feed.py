"""From commits and inventory edits to what each target should be: rendered, numbered as a release, admitted.

One run per app, whenever its repository or the inventory changed. A target whose files cannot be had or rendered keeps
what it has; its neighbours go on.
"""

import asyncio
import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from fleet.aio import as_fleet_error, spawn
from fleet.clock import Clock, jitter
from fleet.errors import After, Backoff, FleetError, OnChange, RevisionMissing, SourceError
from fleet.git.order import DAMAGED
from fleet.git.repository import Snapshot
from fleet.hub.archive import Archive, Recalled, encode_input, input_of
from fleet.hub.brief import brief_of
from fleet.hub.event import EventLog
from fleet.hub.progression import Admission, Progression
from fleet.hub.queue import Runner
from fleet.hub.supply import Fresh, Supply, is_same
from fleet.inventory.schema import App
from fleet.inventory.value import Inventory, Target
from fleet.object import TargetId, encode_canonical, short
from fleet.reconcile.run import Desired
from fleet.reconcile.status import Why
from fleet.render.renderer import Rendered, Renderer, RenderInput
from fleet.store.archive import Made
from fleet.store.event import Event
from fleet.store.hold import Hold, find_hold
from fleet.store.release import Release, ReleaseStore, TargetRow

log = structlog.get_logger()

RETRY_S = 10.0
COMMITS, KEEP_SOON_S = "commits", 0.1
"""One commit is news to many apps, and which commits are in use is asked once for all of them."""
NOTHING = Rendered(manifests=(), digest=hashlib.blake2b(digest_size=16).hexdigest(), reads="")
"""What an app that had objects and renders to none is to be: the guard holds the deletion, not the release."""
FALLBACK = ("the repository has not been read yet", "NotFetched")


class Sources(Protocol):
    """The repositories, by document name."""

    def snapshot(self, repository: str) -> Snapshot | None:
        """Return what is known of a repository; None before its document is in force."""
        ...

    def distrust(self, repository: str) -> None:
        """Have a clone that was found damaged replaced."""
        ...

    async def keep(self, revisions: Mapping[str, frozenset[str]]) -> None:
        """Keep these commits reachable, by repository: releases in force were made from them."""
        ...


class Feed:
    """Keeps `supplies` equal to what repositories and inventory say."""

    def __init__(
        self,
        *,
        sources: Sources,
        renderer: Renderer,
        releases: ReleaseStore,
        archive: Archive,
        progression: Progression,
        events: EventLog,
        clock: Clock,
        digest_key: bytes,
    ) -> None:
        self.on_supply: Callable[[TargetId], None] = lambda _target: None
        """Told when what a target should be has changed."""
        self.supplies: dict[TargetId, Supply] = {}
        self.rows: dict[TargetId, TargetRow] = {}
        """Desired and applied release of every target, equal to the database."""
        self.holds: Sequence[Hold] = ()
        """Every hold in force; who changes it calls `review`."""
        self._sources = sources
        self._renderer = renderer
        self._releases = releases
        self._archive = archive
        self._progression = progression
        self._events = events
        self._clock = clock
        self._digest_key = digest_key
        self._targets: dict[str, list[Target]] = {}
        self._newest: dict[str, Release] = {}
        self._fresh: dict[TargetId, Fresh] = {}
        self._changed: set[str] = set()
        """Apps of which there is news, besides what rollouts say."""
        self._moved: dict[str, set[TargetId]] = {}
        self._runner: Runner[str] | None = None
        self._kept: Mapping[str, frozenset[str]] = {}
        self._keeper: Runner[str] | None = None

    async def load(self) -> None:
        """Read what targets had when the hub stopped."""
        self.rows.update(await self._releases.load_targets())
        await self._archive.load()

    async def run(self) -> None:
        """Deliver whatever is marked, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._runner = Runner("feed", group, self._clock, self._deliver)
            self._keeper = Runner("keep", group, self._clock, self._keep_commits)
            for app in self._targets:
                self._runner.mark(app)
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._runner.close()
                self._keeper.close()
                self._runner = self._keeper = None

    def take_inventory(self, inventory: Inventory) -> None:
        """Take a new inventory: targets that are no longer in it lose their supply."""
        by_app: dict[str, list[Target]] = {}
        for target in inventory.targets.values():
            by_app.setdefault(target.id.app, []).append(target)
        self._targets = by_app
        for gone in self.supplies.keys() - inventory.targets.keys():
            del self.supplies[gone]
            self._fresh.pop(gone, None)
            self.on_supply(gone)
        self._mark(by_app)

    def take_snapshot(self, snapshot: Snapshot) -> None:
        """Take news of a repository."""
        self._mark([name for name, targets in self._targets.items() if _repository(targets) == snapshot.name])

    def newest_of(self, target: TargetId) -> Fresh | None:
        """Return the newest release as rendered for a target; None before it could be rendered."""
        return self._fresh.get(target)

    def is_fresh(self, supply: Supply) -> bool:
        """Tell whether a supply follows what the remote has said since the hub started."""
        snapshot = self._sources.snapshot(supply.target.app.spec.repository)
        return snapshot is not None and snapshot.checked_at is not None and snapshot.revision == supply.head

    def review(self, app: str) -> None:
        """Deliver an app once more: what holds it has changed."""
        self._mark([app] if app in self._targets else [])

    def reassign(self, app: str, targets: Sequence[TargetId]) -> None:
        """Give targets what their rollout says now; nothing is rendered for that."""
        self._moved.setdefault(app, set()).update(targets)
        if self._runner is not None:
            self._runner.mark(app)

    def hold_of(self, target: Target) -> Hold | None:
        """Return what pins a target to an earlier release; None when it follows Git."""
        return find_hold(self.holds, target.id, target.environment.name)

    def is_delivering(self, cluster: str, besides: str) -> bool:
        """Tell whether news of another app on a cluster are on their way: what one app loses may be what that one gains."""
        busy = self._runner.busy if self._runner is not None else frozenset()
        return any(t.id.cluster == cluster for app in busy if app != besides for t in self._targets.get(app, ()))

    async def settle(self, apps: Sequence[str]) -> None:
        """Wait until nothing is being delivered for these apps."""
        for app in apps:
            if self._runner is not None:
                await self._runner.settle(app)

    def _mark(self, apps: Mapping[str, object] | Sequence[str]) -> None:
        self._changed.update(apps)
        if self._runner is not None:
            for app in apps:
                self._runner.mark(app)

    async def _deliver(self, name: str) -> None:
        targets = self._targets.get(name, [])
        moved = self._moved.pop(name, set())
        if not targets:
            return
        if moved and name not in self._changed:
            again = [t for t in targets if t.id in moved and t.id in self._fresh and self.hold_of(t) is None]
            await self._give(again, self._progression.admissions(name, [t.id for t in again]))
            return
        self._changed.discard(name)
        app = targets[0].app
        snapshot = self._sources.snapshot(app.spec.repository)
        held = {t.id: hold for t in targets if (hold := self.hold_of(t)) is not None}
        await self._supply_held(targets, held, snapshot)
        if snapshot is None or not snapshot.revision:
            failure = snapshot.error if snapshot else None
            free = [t for t in targets if t.id not in held]
            await self._withhold(free, failure or RevisionMissing(FALLBACK[0], reason=FALLBACK[1]), head="")
            return
        outcomes = await self._render_all(targets, snapshot)
        good = {target.id: found for target, found in outcomes if isinstance(found, Rendered)}
        bad = [(target, found) for target, found in outcomes if isinstance(found, FleetError)]
        failed = {target.id: str(error) for target, error in bad if not _passes(error)}
        await self._release(app, [t for t in targets if t.id in good], good, snapshot, held=held, failed=failed)
        for target, error in bad:
            if target.id not in held:
                await self._withhold([target], error, head=snapshot.revision)
        await self._archive.store(good)
        if any(error.reason == DAMAGED or isinstance(error, RevisionMissing) for _, error in bad):
            # a good commit that is not there is damage too
            self._sources.distrust(app.spec.repository)
        self._retry_later(name, [error for _, error in bad])
        if self._keeper is not None:
            self._keeper.mark_later(COMMITS, KEEP_SOON_S)

    async def _render_all(
        self, targets: Sequence[Target], snapshot: Snapshot
    ) -> list[tuple[Target, Rendered | FleetError]]:
        async def one(target: Target) -> tuple[Target, Rendered | FleetError]:
            if target.problem:
                return target, SourceError(target.problem, reason="TargetInvalid")
            try:
                return target, await self._renderer.render(self.render_input(target, snapshot.store, snapshot.revision))
            except Exception as error:  # noqa: BLE001 - one target's failure is its own
                failure = as_fleet_error(error, f"render/{target.id}")
                had = failure.reason == "EmptyRender" and target.id in self.rows
                return target, NOTHING if had else failure

        async with asyncio.TaskGroup() as group:
            tasks = [spawn(group, f"render/{target.id}", one(target)) for target in targets]
        return [task.result() for task in tasks]

    def render_input(self, target: Target, store: str, revision: str) -> RenderInput:
        """Say what renders a target at a revision of the clone at `store`."""
        return input_of(target, store, revision, self._digest_key)

    async def _release(
        self,
        app: App,
        targets: Sequence[Target],
        rendered: Mapping[TargetId, Rendered],
        snapshot: Snapshot,
        *,
        held: Container[TargetId],
        failed: Mapping[TargetId, str],
    ) -> None:
        """Number what was rendered if it is new to any target, and hand it out to all that are not held."""
        if not targets:
            return
        newest = await self._newest_release(app.name)
        made = self._archive.newest
        changed = [t for t in targets if (known := made.get(t.id)) and known.digest != rendered[t.id].digest]
        joined = [t for t in targets if t.id not in made]
        if newest is None or changed or (joined and newest.revision != snapshot.revision):
            newest = await self._create_release(app, targets, snapshot, first=newest is None, changed=bool(changed))
        await self._archive.note([self._made(t, newest, rendered[t.id]) for t in targets])
        for t in targets:
            self._fresh[t.id] = Fresh(release=newest, rendered=rendered[t.id], head=snapshot.revision)
        free = [t for t in targets if t.id not in held]
        digests = {t.id: rendered[t.id].digest for t in free}
        await self._give(free, await self._progression.admit(app, newest, digests, failed))

    async def _give(self, targets: Sequence[Target], admitted: Mapping[TargetId, Admission]) -> None:
        """Supply targets with the newest release or with what they are to have instead."""
        fresh = self._fresh
        newest = [t for t in targets if admitted[t.id].release == fresh[t.id].release.number]
        rows = [
            self._row(t, f.release.number, f.rendered.digest, self._inputs(t, f.release))
            for t in newest
            if (f := fresh[t.id])
        ]
        await self._save_rows(rows)
        for target in newest:
            self._supply(target, fresh[target.id])
        for target in targets:
            admission = admitted[target.id]
            if admission.release != fresh[target.id].release.number:
                await self._pin(target, admission.release, fresh[target.id].head, pending=admission.waits)

    async def _newest_release(self, app: str) -> Release | None:
        if app not in self._newest and (listed := await self._releases.list(app, limit=1)):
            self._newest[app] = listed[0]
        return self._newest.get(app)

    async def _create_release(
        self, app: App, targets: Sequence[Target], snapshot: Snapshot, *, first: bool, changed: bool
    ) -> Release:
        inputs = {str(t.id): {"path": t.path, "variables": dict(t.variables)} for t in targets}
        digest = hashlib.sha256(encode_canonical([app.spec.model_dump(mode="json", by_alias=True), inputs])).hexdigest()
        before = self._newest.get(app.name)
        moved = before is None or before.revision != snapshot.revision
        reason = "First" if first else "Commit" if moved else "Inventory" if changed else "Joined"
        release = await self._releases.create(
            app.name,
            repository=app.spec.repository,
            revision=snapshot.revision,
            input_digest=digest,
            inputs=encode_canonical(inputs).decode(),
            reason=reason,
        )
        self._newest[app.name] = release
        message = f"{app.name}#{release.number} from {app.spec.repository} at {short(release.revision)}"
        self._events.append(
            Event(
                at=self._clock.now(),
                kind="git",
                reason="ReleaseCreated",
                message=f"{message}, for {len(targets)} cluster{'s' if len(targets) != 1 else ''}",
                app=app.name,
                revision=release.revision,
            )
        )
        return release

    def _made(self, target: Target, release: Release, rendered: Rendered) -> Made:
        """Say what a release is for a target; one that changes nothing for it stays what it was."""
        inputs = self._inputs(target, release)
        return Made(target=target.id, number=release.number, digest=rendered.digest, inputs=inputs)

    def _inputs(self, target: Target, release: Release) -> str:
        return encode_input(self.render_input(target, "", release.revision))

    def _row(self, target: Target, number: int, digest: str, inputs: str) -> TargetRow:
        known = self.rows.get(target.id) or TargetRow(target=target.id, release=number, render_digest=digest)
        policy = brief_of(target).encode()
        return replace(known, release=number, render_digest=digest, inputs=inputs, policy=policy)

    async def _save_rows(self, rows: Sequence[TargetRow]) -> None:
        fresh = [row for row in rows if self.rows.get(row.target) != row]
        if fresh:
            await self._releases.save_desired(fresh)
            self.rows.update({row.target: row for row in fresh})

    async def _supply_held(
        self, targets: Sequence[Target], held: Mapping[TargetId, Hold], snapshot: Snapshot | None
    ) -> None:
        """Give held targets the release that they are held at, whatever Git says and whether or not it answers."""
        head = snapshot.revision if snapshot is not None else ""
        for target in targets:
            if target.id not in held:
                continue
            await self._pin(target, held[target.id].release, head, hold=held[target.id])

    async def _pin(
        self, target: Target, number: int, head: str, *, hold: Hold | None = None, pending: Why | None = None
    ) -> None:
        """Supply a target with an earlier release, as it was; number 0 = with nothing yet."""
        known = self.supplies.get(target.id)
        desired = known.desired if known is not None else None
        failure: FleetError | None = None
        if number and (desired is None or desired.release != number):
            try:
                recalled = await self.recall(target, number)
                desired = recalled.desired
                await self._save_rows([self._row(target, number, desired.digest, recalled.inputs)])
            except FleetError as error:
                failure = error
                desired = desired or await self._restore(target)
        self._put(
            Supply(
                target=target,
                brief=brief_of(target),
                desired=desired,
                head=head,
                failure=failure,
                hold=hold,
                pending=pending,
            )
        )

    async def recall(self, target: Target, number: int) -> Recalled:
        """Return a release as it was for a target. Raises: SourceError, RenderError."""
        release = await self._releases.get(target.id.app, number)
        if release is None:
            raise SourceError(f"there is no release {target.id.app}#{number}", reason="ReleaseLost", retry=OnChange())
        source = self._sources.snapshot(release.repository)
        store = source.store if source is not None else ""
        return await self._archive.recall(target.id, release, store, self.render_input(target, store, release.revision))

    def _supply(self, target: Target, fresh: Fresh) -> None:
        known = self.supplies.get(target.id)
        desired = known.desired if known else None
        wanted = (fresh.release.number, fresh.head, fresh.rendered.digest)
        if desired is None or (desired.release, desired.revision, desired.digest) != wanted:
            same = desired is not None and desired.digest == fresh.rendered.digest
            desired = Desired(
                release=fresh.release.number,
                revision=fresh.head,
                digest=fresh.rendered.digest,
                manifests=desired.manifests if desired is not None and same else fresh.rendered.manifests,
            )
        self._put(Supply(target=target, brief=brief_of(target), desired=desired, head=fresh.head))

    async def _withhold(self, targets: Sequence[Target], failure: FleetError, *, head: str) -> None:
        """Leave targets at what they have, and say why they do not get what is new."""
        for target in targets:
            known = self.supplies.get(target.id)
            desired = known.desired if known else None
            if desired is None:
                desired = await self._restore(target)
            if known is None or known.failure is None or str(known.failure) != str(failure):
                self._events.append(
                    Event(
                        at=self._clock.now(),
                        kind="git",
                        reason=failure.reason,
                        message=failure.message,
                        cluster=target.id.cluster,
                        app=target.id.app,
                        revision=head,
                    )
                )
            self._put(Supply(target=target, brief=brief_of(target), desired=desired, head=head, failure=failure))

    async def _restore(self, target: Target) -> Desired | None:
        """Give back what the target had when the hub stopped; None when that is not to be had."""
        row = self.rows.get(target.id)
        try:
            recalled = await self.recall(target, row.release) if row is not None else None
        except FleetError as error:
            log.warning("last release cannot be had again", target=str(target.id), error=str(error))
            return None
        return (
            recalled.desired if recalled is not None and row and recalled.desired.digest == row.render_digest else None
        )

    def _put(self, supply: Supply) -> None:
        known = self.supplies.get(supply.target.id)
        self.supplies[supply.target.id] = supply
        if known is None or not is_same(known, supply):
            self.on_supply(supply.target.id)

    def _retry_later(self, app: str, errors: Sequence[FleetError]) -> None:
        """Failures of the machine, unlike those of the files, are tried again by themselves."""
        pauses = [e.retry.seconds if isinstance(e.retry, After) else RETRY_S for e in errors if _passes(e)]
        if pauses and self._runner is not None:
            self._changed.add(app)
            self._runner.mark_later(app, jitter(self._clock, min(pauses)))

    async def _keep_commits(self, _key: str) -> None:
        """Ask for the commits that targets have or should have, so that no history rewrite takes them away."""
        wanted: dict[str, set[str]] = {}
        for supply in self.supplies.values():
            kept = wanted.setdefault(supply.target.app.spec.repository, set())
            row = self.rows.get(supply.target.id)
            kept |= {r for r in (row.applied_revision if row else "", _revision(supply)) if r}
        for name, revisions in (await self._archive.revisions()).items():
            wanted.setdefault(name, set()).update(revisions)
        frozen = {name: frozenset(revisions) for name, revisions in wanted.items()}
        if frozen != self._kept:
            self._kept = frozen
            await self._sources.keep(frozen)

    async def note_applied(self, target: TargetId, desired: Desired) -> bool:
        """Remember that a target has everything of a release; returns whether that is new. Idempotent."""
        row = self.rows.get(target)
        if row is None:
            return False
        applied = (desired.release, desired.revision, desired.digest)
        if (row.applied_release, row.applied_revision, row.applied_digest) == applied:
            return False
        await self._releases.save_applied(
            target, release=desired.release, revision=desired.revision, digest=desired.digest
        )
        new = row.applied_release != desired.release or not row.applied_revision
        self.rows[target] = replace(
            self.rows.get(target, row),
            applied_release=desired.release,
            applied_revision=desired.revision,
            applied_digest=desired.digest,
            applied_at=self._clock.now(),
        )
        if new:
            await self._archive.note_applied(target, desired.release, desired.revision)
        return new

    async def note_emptied(self, target: TargetId) -> bool:
        """Remember that nothing of a target that stays in the inventory is on its cluster; returns whether that is new."""
        row = self.rows.get(target)
        if row is None or not row.applied_revision:
            return False
        await self._releases.save_applied(target, release=0, revision="", digest="")
        await self._archive.note_applied(target, 0, "")
        self.rows[target] = _emptied(self.rows.get(target, row))
        return True

    def forget_applied(self, cluster: str) -> None:
        """Forget, in memory, what was applied to a cluster: another one has taken its place."""
        for target, row in self.rows.items():
            if target.cluster == cluster:
                self.rows[target] = _emptied(row)

    async def forget(self, target: TargetId) -> None:
        """Drop a target that was taken out of the inventory and is empty now."""
        await self._releases.forget(target)
        await self._archive.forget(target)
        self.rows.pop(target, None)


def _repository(targets: Sequence[Target]) -> str:
    return targets[0].app.spec.repository if targets else ""


def _emptied(row: TargetRow) -> TargetRow:
    return replace(row, applied_release=0, applied_revision="", applied_digest="", applied_at=None)


def _revision(supply: Supply) -> str:
    return supply.desired.revision if supply.desired else ""


def _passes(error: FleetError) -> bool:
    return isinstance(error.retry, Backoff | After)
