"""What a rollout of a release would do: which clusters in which order, what changes on each, what it waits for."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fleet.aio import as_fleet_error, spawn
from fleet.errors import FleetError, SourceError, TargetError
from fleet.hub.history import MOST_RELEASES, is_commit, release_number
from fleet.hub.preflight import Preflights
from fleet.hub.supervisor import Supervisor
from fleet.hub.view import BatchRow, PlanClusterRow, PlanRow, PlanStageRow, TriedRow
from fleet.inventory.parse import nearest
from fleet.inventory.value import Inventory, Target
from fleet.object import TargetId
from fleet.reconcile.plan import Action
from fleet.reconcile.preflight import Outcome, Preflight, Trial
from fleet.reconcile.run import Desired
from fleet.render.renderer import Renderer
from fleet.rollout.compile import policy_of
from fleet.rollout.plan import Plan, Stage, Subject, make_plan
from fleet.store.release import Release, ReleaseStore


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """What is planned: a release, or with number 0 a commit that is none."""

    number: int
    revision: str


class Planner:
    """Makes plans for people; nothing is written."""

    def __init__(
        self, *, supervisor: Supervisor, releases: ReleaseStore, renderer: Renderer, preflights: Preflights
    ) -> None:
        self._supervisor = supervisor
        self._releases = releases
        self._renderer = renderer
        self._preflights = preflights

    async def plan(self, app: str, to: str) -> PlanRow:
        """Plan a release, by `42`, `shop#42` or a commit; empty = the newest one.

        Raises: TargetError (`NotFound`, `NothingDesired`, `ReleaseUnknown`); SourceError when nobody knows the commit.
        """
        inventory = self._inventory()
        targets = {t.id.cluster: t for t in inventory.targets.values() if t.id.app == app}
        if not targets:
            hint = nearest(app, list(inventory.apps))
            raise TargetError(f"no app {app} goes to any cluster{hint}", reason="NotFound")
        choice = await self._choose(app, to.strip())
        free = {name: t for name, t in targets.items() if self._supervisor.feed.hold_of(t) is None}
        wanted = await self._want_all(list(free.values()), choice)
        subjects = {name: self._subject(t, wanted[t.id]) for name, t in free.items()}
        plan = make_plan(policy_of(inventory.apps[app], inventory), app, choice.number, subjects)
        moving = {free[name].id: wanted[free[name].id] for name in plan.clusters}
        tried = await self._preflights.try_all(choice.number, moving)
        held = {name: t for name, t in targets.items() if name not in free}
        return self._row(plan, choice, [self._cluster_row(free[t.cluster], tried[t]) for t in moving], held)

    def _inventory(self) -> Inventory:
        if self._supervisor.inventory is None:
            raise self._supervisor.inventory_error or TargetError(
                "the inventory has not been read yet; try again in a moment", reason="NothingDesired"
            )
        return self._supervisor.inventory

    async def _choose(self, app: str, to: str) -> _Choice:
        listed = await self._releases.list(app, MOST_RELEASES)
        if not to and not listed:
            raise TargetError(f"{app} has no release yet; fleet status {app} says why", reason="NothingDesired")
        found = _named(app, to, listed) if to else listed[0]
        if found is None and is_commit(to):
            revision = await self._supervisor.mirrors.find(to.lower())
            found = next((release for release in listed if release.revision == revision), None)
            if found is None:
                return _Choice(number=0, revision=revision)
        if found is None:
            raise TargetError(
                f"{to} is no release of {app} and no commit; fleet release {app} lists the releases",
                reason="ReleaseUnknown",
            )
        return _Choice(number=found.number, revision=found.revision)

    async def _want_all(self, targets: Sequence[Target], choice: _Choice) -> Mapping[TargetId, Desired | FleetError]:
        async with asyncio.TaskGroup() as group:
            tasks = {t.id: spawn(group, f"plan/{t.id}", self._want(t, choice)) for t in targets}
        return {target: task.result() for target, task in tasks.items()}

    async def _want(self, target: Target, choice: _Choice) -> Desired | FleetError:
        try:
            if choice.number:
                return (await self._supervisor.feed.recall(target, choice.number)).desired
            return await self._render(target, choice.revision)
        except Exception as error:  # noqa: BLE001 - one target's failure is its own
            return as_fleet_error(error, f"plan/{target.id}")

    async def _render(self, target: Target, revision: str) -> Desired:
        if target.problem:
            raise SourceError(target.problem, reason="TargetInvalid")
        snapshot = self._supervisor.mirrors.snapshot(target.app.spec.repository)
        if snapshot is None:
            raise SourceError("its repository has not been read yet", reason="NotFetched")
        rendered = await self._renderer.render(self._supervisor.feed.render_input(target, snapshot.store, revision))
        return Desired(release=0, revision=revision, digest=rendered.digest, manifests=rendered.manifests)

    def _subject(self, target: Target, wanted: Desired | FleetError) -> Subject:
        row = self._supervisor.feed.rows.get(target.id)
        return Subject(
            environment=target.environment.name,
            labels=target.cluster.labels,
            digest=wanted.digest if isinstance(wanted, Desired) else "",
            applied=row.applied_digest if row is not None and row.applied_digest else "none",
        )

    def _cluster_row(self, target: Target, tried: Preflight) -> PlanClusterRow:
        row = self._supervisor.feed.rows.get(target.id)
        actions = Counter(trial.change.action.value for trial in tried.trials)
        trouble = tried.trouble
        return PlanClusterRow(
            cluster=target.id.cluster,
            environment=target.environment.name,
            release=f"{target.id.app}#{row.applied_release}" if row is not None and row.applied_release else "",
            counts=dict(sorted(actions.items())),
            outcome=tried.outcome.value,
            reason=trouble.reason if trouble is not None else "",
            message=str(trouble) if trouble is not None else "",
            waits=tuple(self._waits(target)),
            objects=tuple(_tried_row(trial) for trial in tried.trials if _is_told(trial)),
        )

    def _waits(self, target: Target) -> Iterator[str]:
        """Say what keeps a release from one cluster, besides the gates of its stage."""
        session = self._supervisor.sessions.get(target.id.cluster)
        for needed in target.depends_on:
            other = self._supervisor.feed.supplies.get(needed)
            progress = session.progress.get(needed) if session is not None else None
            if other is None or progress is None or not progress.is_done(other.desired):
                yield f"app {needed.app} must be healthy there with its release"
        paused = session.last_link.brakes.held(target.id) if session is not None and session.last_link else None
        if paused is not None:
            yield paused.message
        if target.app.spec.apply == "report":
            yield "the app is report-only (apply: report): nothing is written"

    def _row(
        self, plan: Plan, choice: _Choice, clusters: Sequence[PlanClusterRow], held: Mapping[str, Target]
    ) -> PlanRow:
        outcomes = {row.outcome for row in clusters}
        worst = next((o for o in (Outcome.REFUSED, Outcome.UNVERIFIED) if o.value in outcomes), Outcome.OK)
        return PlanRow(
            app=plan.app,
            release=f"{plan.app}#{choice.number}" if choice.number else "",
            revision=choice.revision,
            outcome=worst.value,
            stages=tuple(_stage_row(stage, self._held_in(stage, held)) for stage in plan.stages),
            clusters=tuple(clusters),
        )

    def _held_in(self, stage: Stage, held: Mapping[str, Target]) -> tuple[str, ...]:
        return tuple(sorted(name for name, t in held.items() if t.environment.name == stage.environment))


def _named(app: str, to: str, listed: Sequence[Release]) -> Release | None:
    number = release_number(app, to)
    return next((release for release in listed if release.number == number), None)


def _is_told(trial: Trial) -> bool:
    quiet = trial.change.action is Action.UNCHANGED or trial.change.reason == "OptedOut"
    return not quiet or trial.outcome is not Outcome.OK


def _tried_row(trial: Trial) -> TriedRow:
    change = trial.change
    return TriedRow(
        group=change.key.group,
        version=change.manifest.version if change.manifest else change.entry.version if change.entry else "",
        kind=change.key.kind,
        namespace=change.key.namespace,
        name=change.key.name,
        action=change.action.value,
        outcome=trial.outcome.value,
        reason=trial.reason or change.reason,
        message=trial.message or change.message,
    )


def _stage_row(stage: Stage, held: tuple[str, ...]) -> PlanStageRow:
    return PlanStageRow(
        environment=stage.environment,
        after=stage.after,
        gates=stage.gates,
        batches=tuple(BatchRow(size=batch.size, clusters=batch.clusters) for batch in stage.batches),
        unchanged=stage.unchanged,
        held=held,
    )
