"""Whatever happens in whatever order: what must hold of every rollout."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from fleet.errors import TargetError
from fleet.rollout.decide import approvals_of, broken_by_run, limits_of
from fleet.rollout.decision import MoveCluster, MoveStage
from fleet.rollout.policy import (
    Amount,
    Approval,
    Check,
    HttpProbe,
    OnFailure,
    OnNewRelease,
    OnUnreachable,
    Policy,
    StagePolicy,
)
from fleet.rollout.state import IN_FLIGHT, SETTLED, ClusterState, RunState, StageState
from fleet.rollout.verb import Abort, Approve, Pause, Promote, Resume, Retry, Rollback, Skip, Verb
from tests.unit.rollout.world import Node, World

NAMES = ("a", "b", "c")
MOVING = {RunState.AWAITING_APPROVAL, RunState.RUNNING}
"""A run that may start clusters."""
AMOUNTS = st.one_of(
    st.builds(Amount, count=st.integers(1, 4)), st.builds(Amount, percent=st.sampled_from((10, 34, 50, 100)))
)
CHECK = Check(name="smoke", question=HttpProbe(url="http://x/"), interval_s=5, count=2, failure_limit=1)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Three stages, each after some of those before it."""
    stages = []
    for i, name in enumerate(NAMES):
        after = tuple(n for n in NAMES[:i] if draw(st.booleans()))
        stages.append(
            StagePolicy(
                environment=name,
                after=after,
                staged=draw(st.integers(0, 3)) > 0,
                batches=tuple(draw(st.lists(AMOUNTS, max_size=3))),
                pace_s=draw(st.sampled_from((0.0, 7.0))),
                failure_budget=Amount(count=draw(st.integers(0, 2))),
                deadline_s=60.0,
                stage_deadline_s=draw(st.sampled_from((None, 500.0))),
                soak_s=draw(st.sampled_from((0.0, 20.0))),
                on_failure=draw(st.sampled_from(OnFailure)),
                on_unreachable=draw(st.sampled_from(OnUnreachable)),
                unreachable_wait_s=draw(st.sampled_from((None, 40.0))),
                on_new_release=draw(st.sampled_from(OnNewRelease)),
                approval=draw(st.sampled_from((None, Approval(required=2, expires_s=300.0)))),
                checks=draw(
                    st.sampled_from(((), (CHECK,), (Check(name="own", question=CHECK.question, per_cluster=True),)))
                ),
            )
        )
    return Policy(stages=tuple(stages))


class Observed(World):
    """A world that looks at every decision before it is carried out."""

    promoted: set[str]

    def _carry_out(self, decision: Any) -> None:
        if isinstance(decision, MoveCluster):
            self._check_cluster(decision)
        if isinstance(decision, MoveStage) and decision.to is StageState.RUNNING:
            self._check_opening(decision)
        super()._carry_out(decision)

    def _check_cluster(self, decision: MoveCluster) -> None:
        part, node = self.run.clusters[decision.cluster], self.nodes.get(decision.cluster)
        rules = self.policy.stage(part.environment)
        assert rules is not None
        if decision.to is ClusterState.APPLYING and not part.touched:
            assert node is not None
            assert node.reachable or not rules.staged, "nothing moves on unknown health"
            assert self.run.state in MOVING | {RunState.SUCCEEDED}, f"nothing starts in a run that is {self.run.state}"
            before = [s for name in rules.after if (s := self.run.stage(name)) is not None]
            assert all(s.state is StageState.DONE for s in before), "no later stage before its gate"
            self._check_batch(decision, rules)
        if decision.to is ClusterState.DONE:
            assert node is not None
            assert node.acknowledged
            assert node.healthy
            assert not node.failure
            stage = self.run.stage(part.environment)
            assert stage is not None
            if not stage.promoted:
                assert self.now_s - node.since >= rules.soak_s - 0.001, "the soak is whole"

    def _check_batch(self, decision: MoveCluster, rules: StagePolicy) -> None:
        mates = [c for c in self.run.clusters.values() if c.environment == rules.environment]
        present = [c for c in mates if c.cluster in self.nodes]
        limits = limits_of(rules, len(present))
        steps = [high - low for low, high in zip([0, *limits], limits, strict=False)]
        flying = sum(c.state in IN_FLIGHT for c in present)
        assert flying + 1 <= max(steps, default=1), f"{decision.cluster}: never more than the batch at once"

    def _check_opening(self, decision: MoveStage) -> None:
        rules, stage = self.policy.stage(decision.environment), self.run.stage(decision.environment)
        assert rules is not None
        assert stage is not None
        if stage.started_at is None and rules.approval is not None:
            given = approvals_of(rules, self.run.approvals, self.digest(decision.environment), self.now)
            assert len(given) >= rules.approval.required, "approved by enough people, for this plan"


class RolloutMachine(RuleBasedStateMachine):
    """Clusters come, go, fail, mend and fall silent; people say things; time passes."""

    clusters = Bundle("clusters")

    @initialize(policy=policies(), counts=st.tuples(*[st.integers(0, 4)] * 3))
    def begin(self, policy: Policy, counts: tuple[int, ...]) -> None:
        """Start a run."""
        nodes = {f"{n}{i}": Node(environment=n) for n, count in zip(NAMES, counts, strict=True) for i in range(count)}
        self.world = Observed(policy=policy, nodes=nodes)
        self.world.settle()
        self.returns = 0

    def _pick(self, number: int) -> str | None:
        names = sorted(self.world.nodes)
        return names[number % len(names)] if names else None

    @rule(seconds=st.sampled_from((1.0, 6.0, 21.0, 45.0, 120.0)))
    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.world.sleep(seconds)

    @rule(number=st.integers(0, 11))
    def work(self, number: int) -> None:
        """A cluster applies what it was given and is healthy."""
        if (name := self._pick(number)) is not None:
            self.world.work(name)

    @rule()
    def work_all(self) -> None:
        """All that are applying become healthy."""
        self.world.work()

    @rule(
        number=st.integers(0, 11),
        values=st.sampled_from(
            (
                {"healthy": False},
                {"healthy": True},
                {"failure": "crash"},
                {"failure": ""},
                {"reachable": False},
                {"reachable": None},
                {"reachable": True},
                {"held": "held by ada"},
                {"held": ""},
                {"dependency": "waits"},
                {"dependency": ""},
            )
        ),
    )
    def happen(self, number: int, values: dict[str, object]) -> None:
        """Something happens to a cluster."""
        if (name := self._pick(number)) is not None:
            self.world.change(name, **values)
            self.world.settle()

    @rule(environment=st.sampled_from(NAMES), number=st.integers(4, 6))
    def join(self, environment: str, number: int) -> None:
        """A cluster joins, or is back."""
        self.world.nodes.setdefault(f"{environment}{number}", Node(environment=environment))
        self.world.settle()

    @rule(number=st.integers(0, 11))
    def leave(self, number: int) -> None:
        """A cluster leaves."""
        if (name := self._pick(number)) is not None:
            del self.world.nodes[name]
            self.world.settle()

    @rule(answer=st.sampled_from(("passed", "failed", "inconclusive")))
    def answer(self, answer: str) -> None:
        """The check says something else from now on."""
        self.world.answers["smoke"] = self.world.answers["own"] = answer
        self.world.settle()

    @rule(verb=st.sampled_from((Pause(), Resume(), Abort(), Retry(), Rollback())))
    def tell(self, verb: Verb) -> None:
        """A person says something, twice: the second time changes nothing."""
        self._obey(verb)

    @rule(environment=st.sampled_from(NAMES))
    def promote(self, environment: str) -> None:
        """A person lets a stage do without its waits."""
        self._obey(Promote(environment=environment))

    @rule(number=st.integers(0, 11))
    def skip(self, number: int) -> None:
        """A person leaves a cluster out."""
        if (name := self._pick(number)) is not None:
            self._obey(Skip(cluster=name))

    @rule(environment=st.sampled_from(NAMES), actor=st.sampled_from(("ada", "bob")), stale=st.booleans())
    def approve(self, environment: str, actor: str, stale: bool) -> None:
        """A person approves a stage, or what it once was."""
        digest = "stale" if stale else self.world.digest(environment)
        self._obey(Approve(environment=environment, digest=digest), actor)

    def _obey(self, verb: Verb, actor: str = "ada") -> None:
        try:
            self.world.obey(verb, actor)
        except TargetError:
            return
        self.world.settle()

    @rule()
    def release(self) -> None:
        """A newer release is there."""
        self.world.newer = True
        self.world.settle()

    @invariant()
    def the_budget_holds(self) -> None:
        """A run that goes on has not broken more clusters than it may."""
        run = self.world.run
        if run.state in MOVING and not run.returning:
            for rules in self.world.policy.stages:
                mates = [
                    c
                    for c in run.clusters.values()
                    if c.environment == rules.environment and c.cluster in self.world.nodes
                ]
                if rules.staged:
                    assert len(broken_by_run(mates)) <= rules.failure_budget.of(len(mates))

    @invariant()
    def it_says_what_it_waits_for(self) -> None:
        """A run that has not ended is paused, or looks again, or shows a stage or cluster that it waits for."""
        run = self.world.run
        if run.state in MOVING:
            held = any(s.state is StageState.HELD and s.message for s in run.stages)
            nobody = any(s.reason == "NothingVerified" for s in run.stages)
            open_ = any(c.state not in SETTLED for c in run.clusters.values())
            assert held or nobody or open_ or self.world.wake_s is not None

    @invariant()
    def an_ended_run_stays_ended(self) -> None:
        """A superseded run, and one that was aborted or sent back, keeps nothing under way of its own accord."""
        run = self.world.run
        if run.state is RunState.SUCCEEDED:
            assert all(s.state is StageState.DONE for s in run.stages)
        if run.state is RunState.ROLLED_BACK:
            assert not any(c.touched and c.before for c in run.clusters.values())

    @invariant()
    def going_back_is_done_once(self) -> None:
        """By itself a run sends clusters back at most once."""
        own = [t for t in self.world.history if t.cluster and t.after == ClusterState.ROLLED_BACK and not t.actor]
        by_cluster = [t.cluster for t in own]
        assert len(by_cluster) == len(set(by_cluster))


TestRollout = RolloutMachine.TestCase
TestRollout.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestRollout.__doc__ = "Every rollout keeps its promises."
