"""A world in which a rollout's decisions are carried out at once: clusters, their health, and a clock."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import msgspec

from fleet.rollout.decide import decide
from fleet.rollout.decision import Ask, Decision, MoveCluster, MoveStage, Preflight, Wake
from fleet.rollout.evolve import Transition, add_sample, evolve
from fleet.rollout.order import approval_digest, order_clusters
from fleet.rollout.policy import Policy
from fleet.rollout.state import ClusterRun, ClusterState, Facts, Run, Sample, Seen, StageRun, StageState
from fleet.rollout.verb import Verb, obey

START = datetime(2026, 1, 1, tzinfo=UTC)
MOST_ROUNDS = 100


@dataclass
class Node:
    """One cluster as it is."""

    environment: str
    given: int = 1
    acknowledged: bool = True
    healthy: bool = True
    reachable: bool | None = True
    failure: str = ""
    held: str = ""
    dependency: str = ""
    since: float = 0.0
    """Since when it has been healthy, or not, without a break."""
    silent_since: float = 0.0


@dataclass
class World:
    """One run of release 2; every cluster has release 1. `log` is what was decided."""

    policy: Policy
    nodes: dict[str, Node]
    now_s: float = 0.0
    newer: bool = False
    preflight: str = "passed"
    answers: dict[str, str] = field(default_factory=dict)
    """What checks say by name; missing = passed."""
    log: list[Decision] = field(default_factory=list)
    history: list[Transition] = field(default_factory=list)
    started: dict[str, float] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    wake_s: float | None = None

    def __post_init__(self) -> None:
        self.run = Run(
            id=1,
            app="shop",
            release=2,
            revision="f" * 40,
            created_at=START,
            stages=tuple(StageRun(environment=s.environment) for s in self.policy.stages),
            clusters={
                name: ClusterRun(cluster=name, environment=n.environment, before=n.given)
                for name, n in self.nodes.items()
            },
        )

    @property
    def now(self) -> datetime:
        """Wall time."""
        return START + timedelta(seconds=self.now_s)

    def facts(self) -> Facts:
        """What a decision sees."""
        order = order_clusters(self.policy, {name: (n.environment, {}) for name, n in self.nodes.items()})
        return Facts(
            run=self.run,
            seen={name: self._see(node) for name, node in self.nodes.items()},
            order=order,
            digests={s.environment: self.digest(s.environment) for s in self.policy.stages},
            joining={name: (n.environment, n.given) for name, n in self.nodes.items() if name not in self.run.clusters},
            newer=self.newer,
            since_start_s={name: self.now_s - at for name, at in self.started.items()},
            stage_for_s={name: self.now_s - at for name, at in self.begun.items()},
        )

    def digest(self, environment: str) -> str:
        """What an approval of a stage is for now."""
        order = order_clusters(self.policy, {name: (n.environment, {}) for name, n in self.nodes.items()})
        stage = self.policy.stage(environment)
        assert stage is not None
        return approval_digest(self.run, stage, order[environment])

    def _see(self, node: Node) -> Seen:
        healthy = node.reachable is True and node.acknowledged and node.healthy and not node.failure
        return Seen(
            reachable=node.reachable,
            unreachable_for_s=self.now_s - node.silent_since,
            known_in_s=5.0,
            held=node.held,
            dependency=node.dependency,
            acknowledged=node.acknowledged,
            healthy_for_s=self.now_s - node.since if healthy else None,
            unhealthy_for_s=0.0 if healthy else self.now_s - node.since,
            failure=node.failure,
            failure_reason="CrashLoopBackOff" if node.failure else "",
            broken=not node.healthy or bool(node.failure),
        )

    def change(self, name: str, **values: object) -> None:
        """Let something happen to a cluster; a change of its health begins its time anew."""
        before = self._see(self.nodes[name]).healthy_for_s is not None
        self.nodes[name] = replace(self.nodes[name], **values)  # type: ignore[arg-type]
        if (self._see(self.nodes[name]).healthy_for_s is not None) != before:
            self.nodes[name].since = self.now_s
        if values.get("reachable") is False:
            self.nodes[name].silent_since = self.now_s

    def settle(self) -> Sequence[Decision]:
        """Decide and carry out until nothing is left to do; returns what was decided."""
        found: list[Decision] = []
        for _ in range(MOST_ROUNDS):
            decisions = decide(self.policy, self.facts(), self.now)
            self.wake_s = decisions[-1].in_s if decisions and isinstance(decisions[-1], Wake) else None
            work = [d for d in decisions if not isinstance(d, Wake)]
            if not work:
                return found
            found += work
            self.log += work
            for decision in work:
                self._carry_out(decision)
        raise AssertionError(f"no end to it: {found[-5:]}")

    def _carry_out(self, decision: Decision) -> None:
        if isinstance(decision, Preflight):
            self.run = msgspec.structs.replace(self.run, preflight=self.preflight, message="p1: quota")
        elif isinstance(decision, Ask):
            outcome = self.answers.get(decision.check.name, "passed")
            sample = Sample(check=decision.check.name, at=self.now, outcome=outcome, round=decision.round, message="m")
            self.run = add_sample(self.run, decision.environment, decision.cluster, sample)
        elif not isinstance(decision, Wake):
            before = self.run
            self.run, steps = evolve(self.run, [decision], self.now)
            self.history += steps
            self._take(decision, before)

    def _take(self, decision: Decision, before: Run) -> None:
        if isinstance(decision, MoveStage) and decision.to is StageState.RUNNING:
            self.begun.setdefault(decision.environment, self.now_s)
        for name, part in self.run.clusters.items():
            was = before.clusters.get(name)
            given = self.run.release if part.touched else part.before
            if isinstance(decision, MoveCluster) and decision.cluster == name and decision.to is ClusterState.APPLYING:
                self.started[part.environment] = self.now_s
            if was is not None and (was.touched != part.touched) and name in self.nodes:
                node = self.nodes[name]
                self.nodes[name] = replace(node, given=given, acknowledged=False, failure="", since=self.now_s)

    def obey(self, verb: Verb, actor: str = "ada") -> None:
        """Tell the run something."""
        self.run, steps = obey(self.run, verb, actor=actor, reason="r", now=self.now)
        self.history += steps
        self.begun.clear()

    def sleep(self, seconds: float) -> None:
        """Let time pass; what is decided meanwhile is decided at its time."""
        end = self.now_s + seconds
        self.settle()
        while self.wake_s is not None and self.now_s + self.wake_s < end:
            self.now_s += self.wake_s
            self.settle()
        self.now_s = end
        self.settle()

    def work(self, *names: str) -> None:
        """Let clusters apply what they were given, and become healthy."""
        for name in names or [n for n, part in self.run.clusters.items() if part.state is ClusterState.APPLYING]:
            if name in self.nodes:
                self.change(name, acknowledged=True, healthy=True, failure="")
        self.settle()

    def states(self) -> dict[str, str]:
        """State of every cluster of the run."""
        return {name: part.state.value for name, part in sorted(self.run.clusters.items())}
