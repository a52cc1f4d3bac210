"""Rollouts as people see them, and what they may tell one. Every verb is in the audit log before it is carried out."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import assert_never

from fleet.clock import Clock
from fleet.errors import TargetError
from fleet.hub.audit import Auditor
from fleet.hub.rollout import Rollouts
from fleet.hub.rolloutrow import Look
from fleet.hub.rolloutview import RolloutDetail, RolloutRow, Steering, SteerRequest
from fleet.hub.view import Actor
from fleet.rollout.record import read_run
from fleet.rollout.state import ClusterState, Run, RunState
from fleet.rollout.verb import Abort, Approve, Pause, Promote, Resume, Retry, Rollback, Skip, Verb
from fleet.store.rollout import RolloutStore

ACTIONS: Mapping[Steering, str] = {
    Steering.PAUSE: "RolloutPaused",
    Steering.RESUME: "RolloutResumed",
    Steering.ABORT: "RolloutAborted",
    Steering.RETRY: "RolloutRetried",
    Steering.SKIP: "ClusterSkipped",
    Steering.PROMOTE: "StagePromoted",
    Steering.APPROVE: "StageApproved",
    Steering.ROLLBACK: "RolloutRolledBack",
}
"""What the audit log calls each verb."""

KEPT_S = 1.0
MANY = 200
"""Rows of more clusters than this are made off the loop."""


class RolloutDesk:
    """Rows of rollouts, and the verbs of `fleet rollout`."""

    def __init__(self, rollouts: Rollouts, store: RolloutStore, auditor: Auditor, clock: Clock) -> None:
        self._rollouts = rollouts
        self._store = store
        self._auditor = auditor
        self._clock = clock
        self._kept: tuple[float, Sequence[Run], tuple[RolloutRow, ...]] = (float("-inf"), (), ())

    def current(self) -> tuple[RolloutRow, ...]:
        """Return the newest rollout of each app that is under way, did not end well or left a cluster behind, by app.

        What they wait for may be a second old: whoever looks at anything asks for this, and it goes through every cluster.
        """
        now = asyncio.get_running_loop().time()
        runs = [
            run for run in self._rollouts.newest_runs() if _is_of_interest(run) and not self._rollouts.is_outdated(run)
        ]
        at, known, rows = self._kept
        if now - at >= KEPT_S or len(runs) != len(known) or any(a is not b for a, b in zip(runs, known, strict=True)):
            rows = tuple(self._look(run).row() for run in runs)
            self._kept = (now, runs, rows)
        return rows

    async def list(
        self, *, app: str = "", states: Collection[str] = (), limit: int = 100, before: int = 0
    ) -> Sequence[tuple[int, RolloutRow]]:
        """List rollouts, also those that ended, newest first, each with its number in that order."""
        rows = await self._store.list(app, limit, states=states, before=before)
        return [(row.id, self._look(self._freshen(read_run(row))).row()) for row in rows]

    async def show(self, app: str, number: int = 0, *, history: bool = True) -> RolloutDetail | None:
        """Return one rollout, the newest without a number; None when there is none."""
        run = self._rollouts.newest_run(app)
        if number and (run is None or run.release != number):
            row = await self._store.get(app, number)
            run = read_run(row) if row is not None else None
        if run is None:
            return None
        steps = await self._store.history(run.id) if history else ()
        look = self._look(self._freshen(run))
        if len(run.clusters) > MANY:
            return await asyncio.to_thread(look.detail, steps)
        return look.detail(steps)

    async def steer(self, request: SteerRequest, actor: Actor) -> RolloutRow:
        """Do what a person says about the newest rollout of an app. Idempotent.

        Raises: TargetError (`NoRollout`, `OtherRollout`, `StalePlan`, `NothingToApprove`, and those of `fleet.rollout.verb.obey`).
        """
        run = self._rollouts.newest_run(request.app)
        before = {"release": f"{run.app}#{run.release}", "state": run.state.value} if run is not None else {}
        async with self._auditor.act(
            ACTIONS[request.verb],
            actor,
            request.reason,
            subject=f"stage {request.stage}" if request.stage else "",
            cluster=request.cluster,
            app=request.app,
            before=before,
        ) as act:
            verb = self._verb(request)
            run = await self._rollouts.obey(
                request.app, verb, actor=actor.name, reason=request.reason, release=request.release
            )
            act.after = {"release": f"{run.app}#{run.release}", "state": run.state.value}
            if isinstance(verb, Approve):
                act.after["plan"] = verb.digest
        return self._look(run).row()

    def _verb(self, request: SteerRequest) -> Verb:
        match request.verb:
            case Steering.PAUSE:
                return Pause()
            case Steering.RESUME:
                return Resume()
            case Steering.ABORT:
                return Abort()
            case Steering.RETRY:
                return Retry()
            case Steering.ROLLBACK:
                return Rollback()
            case Steering.SKIP:
                return Skip(cluster=request.cluster)
            case Steering.PROMOTE:
                return Promote(environment=request.stage)
            case Steering.APPROVE:
                return self._approval(request)
            case _:
                assert_never(request.verb)

    def _approval(self, request: SteerRequest) -> Approve:
        """Bind an approval to the plan as it is. Raises: TargetError StalePlan, NothingToApprove, InventoryUnread."""
        run = self._rollouts.newest_run(request.app)
        if run is None or run.stage(request.stage) is None:
            return Approve(environment=request.stage, digest=request.plan)  # refused with what there is
        look = self._look(run)
        if look.policy is None or look.facts is None:
            # an approval of nothing known would be kept, and never count
            raise TargetError("the hub has not read its inventory yet; try again in a moment", reason="InventoryUnread")
        rules = look.policy.stage(request.stage)
        if rules is None or rules.approval is None or not rules.approval.required:
            message = f"{request.stage} needs no approval; see fleet rollout show {request.app}"
            raise TargetError(message, reason="NothingToApprove")
        digest = look.facts.digests[request.stage]
        if request.plan not in ("", digest):
            raise TargetError(
                f"the plan of {request.stage} is {digest} now, not {request.plan}; look at it with fleet rollout show"
                f" {request.app} and approve that one",
                reason="StalePlan",
            )
        return Approve(environment=request.stage, digest=digest)

    def _freshen(self, run: Run) -> Run:
        """Return the run as memory has it, if it is the newest: what is stored may be a moment older."""
        newest = self._rollouts.newest_run(run.app)
        return newest if newest is not None and newest.id == run.id else run

    def _look(self, run: Run) -> Look:
        now, policy = self._clock.now(), self._rollouts.policy(run.app)
        if self._rollouts.newest_run(run.app) is not run or policy is None:
            return Look(run=run, now=now)
        return Look(run=run, now=now, policy=policy, facts=self._rollouts.facts(run, policy))


def _is_of_interest(run: Run) -> bool:
    if run.state is RunState.SUCCEEDED:
        return any(part.state is ClusterState.DEFERRED for part in run.clusters.values())
    return run.state is not RunState.SUPERSEDED
