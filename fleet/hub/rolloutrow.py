"""Rows of one rollout, made from what is known of it at one moment. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fleet.clock import format_at
from fleet.hub.rolloutview import (
    GateRow,
    GivenRow,
    RolloutBatchRow,
    RolloutClusterRow,
    RolloutDetail,
    RolloutRow,
    RolloutStageRow,
    SampleRow,
    StepRow,
)
from fleet.rollout.decide import approvals_of
from fleet.rollout.outlook import Gate, cluster_gates, cut_batches, describe_wait, members_of, stage_gates
from fleet.rollout.policy import Policy, StagePolicy
from fleet.rollout.state import ClusterRun, Facts, Run, RunState, Sample, StageRun, StageState
from fleet.store.rollout import TransitionRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A look at a run. Of an earlier run than the newest nobody knows the rules: `policy` and `facts` are None then."""

    run: Run
    now: datetime
    policy: Policy | None = None
    facts: Facts | None = None

    def row(self) -> RolloutRow:
        """Show the run at a glance."""
        run = self.run
        waits = describe_wait(self.policy, self.facts, self.now) if self.policy and self.facts else ""
        open_ = [s.environment for s in run.stages if s.state not in (StageState.PENDING, StageState.DONE)]
        return RolloutRow(
            app=run.app,
            release=f"{run.app}#{run.release}",
            number=run.release,
            revision=run.revision,
            state=run.state,
            reason=run.reason,
            # of one that went well it is whom it left behind: over when they were caught up
            message="" if run.state is RunState.SUCCEEDED and not waits else run.message,
            since=_at(run.since),
            created_at=format_at(run.created_at),
            finished_at=_at(run.finished_at),
            active=run.active,
            returning=run.returning,
            stage=", ".join(open_) if run.active else "",
            waits_for=waits,
            clusters=dict(Counter(part.state.value for part in run.clusters.values())),
        )

    def detail(self, history: Sequence[TransitionRow]) -> RolloutDetail:
        """Show everything of the run."""
        return RolloutDetail(
            rollout=self.row(),
            now=format_at(self.now),
            stages=tuple(self._stage(stage) for stage in self.run.stages),
            history=tuple(map(_step, history)),
        )

    def _stage(self, stage: StageRun) -> RolloutStageRow:
        rules = self.policy.stage(stage.environment) if self.policy is not None else None
        digest = self.facts.digests.get(stage.environment, "") if self.facts is not None and self.run.active else ""
        names = self._members(stage)
        return RolloutStageRow(
            environment=stage.environment,
            after=rules.after if rules is not None else (),
            state=stage.state,
            reason=stage.reason,
            message=stage.message,
            since=_at(stage.since),
            started_at=_at(stage.started_at),
            finished_at=_at(stage.finished_at),
            promoted=stage.promoted,
            batches=tuple(_batches(rules, stage, names)) if rules is not None else (),
            gates=self._gates(stage, rules),
            approvals_needed=rules.approval.required if rules is not None and rules.approval is not None else 0,
            approvals=tuple(self._given(stage, rules, digest)),
            digest=digest,
            clusters=tuple(self._cluster(stage, self.run.clusters[name], rules) for name in names),
            samples=tuple(_samples(stage.samples, stage.round)),
        )

    def _members(self, stage: StageRun) -> Sequence[str]:
        if self.facts is not None:
            return members_of(self.facts, stage.environment)
        return sorted(c.cluster for c in self.run.clusters.values() if c.environment == stage.environment)

    def _gates(self, stage: StageRun, rules: StagePolicy | None) -> tuple[GateRow, ...]:
        if rules is None or self.facts is None:
            return ()
        return tuple(self._gate(gate) for gate in stage_gates(rules, stage, self.facts, self.now))

    def _gate(self, gate: Gate) -> GateRow:
        at = format_at(self.now + timedelta(seconds=gate.left_s)) if gate.left_s is not None else ""
        return GateRow(kind=gate.kind, message=gate.message, at=at)

    def _given(self, stage: StageRun, rules: StagePolicy | None, digest: str) -> Iterator[GivenRow]:
        counting = approvals_of(rules, self.run.approvals, digest, self.now) if rules is not None and digest else ()
        for given in self.run.approvals:
            if given.environment == stage.environment:
                yield GivenRow(
                    actor=given.actor,
                    at=format_at(given.at),
                    digest=given.digest,
                    reason=given.reason,
                    counts=given.actor in counting,
                )

    def _cluster(self, stage: StageRun, part: ClusterRun, rules: StagePolicy | None) -> RolloutClusterRow:
        gates = cluster_gates(rules, stage, part, self.facts) if rules is not None and self.facts is not None else ()
        return RolloutClusterRow(
            cluster=part.cluster,
            state=part.state,
            reason=part.reason,
            message=part.message,
            since=_at(part.since),
            started_at=_at(part.started_at),
            finished_at=_at(part.finished_at),
            before=f"{self.run.app}#{part.before}" if part.before else "",
            broken_before=part.broken_before,
            gates=tuple(self._gate(gate) for gate in gates),
            samples=tuple(_samples(part.samples, part.round)),
        )


def _batches(rules: StagePolicy, stage: StageRun, names: Sequence[str]) -> Iterator[RolloutBatchRow]:
    for cut in cut_batches(rules, stage, names):
        yield RolloutBatchRow(size=cut.size, clusters=cut.clusters, over=cut.over)


def _samples(samples: Sequence[Sample], round_: int) -> Iterator[SampleRow]:
    for sample in samples:
        yield SampleRow(
            check=sample.check,
            at=format_at(sample.at),
            outcome=sample.outcome,
            value=sample.value,
            message=sample.message,
            counts=sample.round == round_,
        )


def _step(row: TransitionRow) -> StepRow:
    return StepRow(
        at=format_at(row.at),
        environment=row.environment,
        cluster=row.cluster,
        before=row.before,
        after=row.after,
        reason=row.reason,
        message=row.message,
        actor=row.actor,
    )


def _at(at: datetime | None) -> str:
    return format_at(at) if at is not None else ""
