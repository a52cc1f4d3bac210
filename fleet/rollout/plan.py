"""What a rollout would do, before it does it: stages, batches and gates. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fleet.rollout.decide import limits_of
from fleet.rollout.order import order_clusters
from fleet.rollout.policy import Check, HttpProbe, OnFailure, Policy, StagePolicy, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A target of the app: where it is, and what the release is for it."""

    environment: str
    labels: Mapping[str, str]
    digest: str
    """Of what it would be given."""
    applied: str
    """Of what it has; empty when it has nothing."""

    @property
    def changed(self) -> bool:
        """The release makes a step here."""
        return self.digest != self.applied


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Clusters that may be under way at the same time."""

    size: str
    """As the inventory says it, cumulative; `rest` for what the batches leave over."""
    clusters: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One environment's part of a plan."""

    environment: str
    after: tuple[str, ...]
    gates: tuple[str, ...]
    """What must be so before it begins, goes on and ends, as sentences."""
    batches: tuple[Batch, ...]
    unchanged: tuple[str, ...]
    """Clusters that have it already, or for which the release is what they have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which clusters in which order, and what is waited for."""

    app: str
    release: int
    stages: tuple[Stage, ...]

    @property
    def clusters(self) -> Sequence[str]:
        """Every cluster that is changed, in the order they go."""
        return [name for stage in self.stages for batch in stage.batches for name in batch.clusters]


def make_plan(policy: Policy, app: str, release: int, subjects: Mapping[str, Subject]) -> Plan:
    """Plan a release of an app; `subjects` by cluster. Equal inputs make equal plans, whatever their order."""
    order = order_clusters(policy, {name: (s.environment, s.labels) for name, s in subjects.items()})
    stages = tuple(_plan_stage(rules, order[rules.environment], subjects) for rules in policy.stages)
    return Plan(app=app, release=release, stages=stages)


def _plan_stage(rules: StagePolicy, order: Sequence[str], subjects: Mapping[str, Subject]) -> Stage:
    moving = [name for name in order if subjects[name].changed]
    return Stage(
        environment=rules.environment,
        after=rules.after,
        gates=tuple(_gates(rules)),
        batches=tuple(_batches(rules, moving)),
        unchanged=tuple(name for name in order if not subjects[name].changed),
    )


def _batches(rules: StagePolicy, clusters: Sequence[str]) -> Iterator[Batch]:
    """Cut clusters into batches as a run does; batches that round to the same number are one."""
    begin = 0
    for limit in limits_of(rules, len(clusters)):
        named = [str(b) for b in rules.batches if b.of(len(clusters), at_least=1) == limit]
        yield Batch(size=named[0] if named else "rest", clusters=tuple(clusters[begin:limit]))
        begin = limit


def _gates(rules: StagePolicy) -> Iterator[str]:
    """Say what a stage waits for, in the order in which it does."""
    if rules.approval is not None:
        lasts = f"; each counts for {_span(rules.approval.expires_s)}" if rules.approval.expires_s is not None else ""
        people = "one person" if rules.approval.required == 1 else f"{rules.approval.required} people"
        yield f"approval by {people}{lasts}"
    yield from (f"starts only in the window {_window(w)}" for w in rules.windows)
    yield from (f"no start in the freeze {_window(w)}" for w in rules.freezes)
    if rules.pace_s:
        yield f"at least {_span(rules.pace_s)} between two starts"
    if rules.staged:
        yield f"each cluster is healthy within {_span(rules.deadline_s)}"
    if rules.soak_s:
        yield f"each cluster stays healthy for {_span(rules.soak_s)}"
    yield from (_check(check) for check in rules.checks)
    if rules.stage_deadline_s is not None:
        yield f"the stage is over within {_span(rules.stage_deadline_s)}"
    if rules.staged:
        does = "pauses" if rules.on_failure is OnFailure.PAUSE else "goes back"
        yield f"more than {rules.failure_budget} broken: the rollout {does}"


def _check(check: Check) -> str:
    question = check.question
    asked = question.url if isinstance(question, HttpProbe) else f"{question.query} {question.condition}"
    times = f"{check.count} times" if check.count != 1 else "once"
    whose = "each cluster" if check.per_cluster else "each batch"
    return f"check {check.name} passes {times} after {whose}: {asked}"


def _window(window: Window) -> str:
    why = f" ({window.reason})" if window.reason else ""
    return f"{window.cron} for {_span(window.duration_s)}, {window.timezone}{why}"


def _span(seconds: float) -> str:
    """Write a duration as the inventory does.

    >>> _span(600), _span(90), _span(28800), _span(0.5)
    ('10m', '90s', '8h', '0.5s')
    """
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"
